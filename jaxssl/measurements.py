"""Finished runs put on record, in `experiments/results.json`: a number is what a run has left.

Runs that differ in the seed alone are one measurement. Of a run with stages the evaluations are
those of its last stage, and steps and seconds those of all.
"""

import json
import os
import pathlib
import platform
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxssl import config as configs
from jaxssl import stages
from jaxssl.errors import ConfigError
from jaxssl.report.writers import read_json

CONTROLS = ("random_init", "raw_input", "constant")
# What may differ between two runs of one measurement: nothing here is part of what is measured.
IRRELEVANT = (
    *("name", "preset", "train.seed", "mesh.", "checkpoint.", "report.", "data.path"),
    *("data.cache", "evals.every_steps", "evals.batch_size"),
)


class Finished(NamedTuple):
    """A run that is over.

    Attributes:
      seed: of the run.
      summary: its steps, seconds and evaluations.
      changes: as of `changes`.
    """

    seed: int
    summary: dict[str, Any]
    changes: dict[str, Any]


def record(
    root: pathlib.Path,
    workdirs: Sequence[str],
    name: str | None = None,
    preset: str | None = None,
    machine: str = "",
) -> list[dict[str, Any]]:
    """Adds finished runs to `experiments/results.json`; returns all that it now holds.

    A run whose config is not that of the preset is recorded as a change of it, so a control such
    as `losses.sigreg.weight=0` is a row of its own. A measurement replaces an older one of the
    same experiment, preset and changes.

    Raises:
      ConfigError: a run that is not finished, two of one seed, or a config of another version.
    """
    runs: dict[tuple[str, str, str], list[Finished]] = {}
    for folder in map(pathlib.Path, workdirs):
        summary, parts = _summary(folder)
        first = next(iter(parts.values()))  # a later stage draws from a seed of its own
        own_name, own_preset = first.get("name") or name, first.get("preset") or preset
        if not own_name or not own_preset:
            raise ConfigError(f"{folder}: of which experiment? expected --name and --preset")
        changed = changes(root, folder, own_name, own_preset, parts)
        key = (own_name, own_preset, json.dumps(changed))
        runs.setdefault(key, []).append(Finished(first["train"]["seed"], summary, changed))
    made = []
    for (own_name, own_preset, _), found in runs.items():
        found.sort(key=lambda run: run.seed)
        seeds = [run.seed for run in found]
        if len(set(seeds)) < len(seeds):
            raise ConfigError(f"{own_name}:{own_preset}: found seeds {seeds}; expected each once")
        made.append(
            dict(
                experiment=own_name,
                preset=own_preset,
                changes=found[0].changes,
                seeds=seeds,
                steps=found[0].summary["step"],
                seconds=[round(run.summary["seconds"], 1) for run in found],
                machine=machine,
                evals=_collected(f"{own_name}:{own_preset}", [r.summary["evals"] for r in found]),
            )
        )
    identity = lambda r: (r["experiment"], r["preset"], len(r["changes"]), str(r["changes"]))
    kept = [r for r in results(root) if identity(r) not in map(identity, made)]
    kept = sorted([*kept, *made], key=identity)
    (root / "experiments" / "results.json").write_text(json.dumps(kept, indent=1) + "\n")
    return kept


def changes(
    root: pathlib.Path,
    folder: pathlib.Path,
    name: str,
    preset: str,
    parts: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The fields in which a run's config is not what the experiment's preset says today.

    Args:
      root: of the project.
      folder: the run's.
      name, preset: of the experiment.
      parts: the config of every stage by its folder's name, as `_summary` reads them.

    Raises:
      ConfigError: a field that only one of the two has, or other stages.
    """
    whole = configs.load(f"{root / 'experiments' / name}.py:{preset}")
    wanted = {"": whole}
    if "" not in parts:
        plan = stages.resolve(whole, folder)
        wanted = {stage.folder.name if stage.name else "": stage.config for stage in plan}
    if wanted.keys() != parts.keys():
        found, known = (", ".join(filter(None, names)) or "none" for names in (parts, wanted))
        raise ConfigError(f"{folder}: found stages {found}; expected {known}")
    changed: dict[str, Any] = {}
    for part, config in parts.items():
        here, there = _flat(config), _flat(configs.to_dict(wanted[part]))
        for key in sorted(here.keys() ^ there.keys()):
            side = "the run" if key in here else "the experiment"
            raise ConfigError(f"{folder}: only {side} has {key}; expected a run of today's config")
        changed |= {key: here[key] for key in sorted(there) if there[key] != here[key]}
    return changed


def machine() -> str:
    """This machine in words: cores or accelerators, and the versions that made the numbers."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    processor = found[1].strip() if found else platform.machine()
    devices = jax.devices()
    if devices[0].platform == "cpu":
        words = f"{len(os.sched_getaffinity(0))} cores ({processor})"
    else:
        words = f"{len(devices)} x {devices[0].device_kind}"
    return f"{words}, jax {jax.__version__}, Python {platform.python_version()}"


def _summary(folder: pathlib.Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """A run's summary, and the config of each of its stages; of a run without stages "" alone.

    Raises:
      ConfigError: a run, or a stage of it, that is not there or not finished.
    """
    index = folder / stages.INDEX
    names = [row["folder"] for row in read_json(index)] if index.exists() else [""]
    found = {name: _read(folder / name / "summary.json") for name in names}
    for name, summary in found.items():
        if summary["status"] != "finished":
            raise ConfigError(f"{folder / name}: {summary['status']}; expected a finished run")
    together = {key: sum(summary[key] for summary in found.values()) for key in ("step", "seconds")}
    configs_of = {name: _read(folder / name / "config.json") for name in names}
    return {**found[names[-1]], **together}, configs_of


def _read(path: pathlib.Path) -> dict[str, Any]:
    if not path.exists():
        raise ConfigError(f"{path}: no such file; expected the workdir of a finished run")
    return read_json(path)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by dotted key, without those that are not part of a measurement."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            leaves |= _flat(value, f"{key}.")
        elif not key.startswith(IRRELEVANT):
            leaves[key] = value
    return leaves


def _collected(
    where: str, evals: Sequence[Mapping[str, Mapping[str, Any]]]
) -> dict[str, dict[str, list[float]]]:
    """metric -> {"trained": one value a seed, ...} of the metrics that are a success or not."""
    if any(run.keys() != evals[0].keys() for run in evals):
        raise ConfigError(f"{where}: the runs made different evaluations")
    return {
        metric: {
            kind: [round(float(run[metric][kind]), 5) for run in evals]
            for kind in ("trained", *CONTROLS)
            if evals[0][metric].get(kind) is not None
        }
        for metric, entry in evals[0].items()
        if entry.get("better", "higher") is not None
    }


def results(root: pathlib.Path) -> list[dict[str, Any]]:
    """What `experiments/results.json` holds; nothing where there is none."""
    path = root / "experiments" / "results.json"
    return json.loads(path.read_text()) if path.exists() else []
