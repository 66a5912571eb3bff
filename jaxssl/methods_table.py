"""The README's tables of methods and of measured numbers, both made from files, none by hand.

  python -m jaxssl.methods_table --record runs/lejepa-0 runs/lejepa-1   # into results.json
  python -m jaxssl.methods_table --write                                # the tables, into README.md
  python -m jaxssl.methods_table --check                                # exit code 1: not current

A row of the methods comes from the docstring and the `PRESETS` of a file in `experiments/`; a
number from `experiments/results.json`, which `--record` fills from the workdirs of finished runs.
Workdirs that differ in the seed alone are one measurement. What was not run at its own length
stands as it does in the comparisons at equal compute (`jaxssl.compare`), if it is there.
"""

import argparse
import ast
import itertools
import json
import os
import pathlib
import platform
import re
import runpy
import shlex
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxssl import config as configs
from jaxssl.bench import invariance
from jaxssl.bench.faults import command as faults
from jaxssl.compare.tables import CONTROL, TABLES
from jaxssl.errors import ConfigError
from jaxssl.markdown import count, filled, spread, table
from jaxssl.report.writers import read_json

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONTROLS = ("random_init", "raw_input", "constant")
# What commands of `jaxssl.bench` wrote with --json=experiments/NAME.json, and how it is shown.
BENCHES: Mapping[str, Callable[[Any], str]] = {
    "invariance": invariance.block,
    "faults": faults.block,
}
OWN = "its_control"  # the rival that a method's docstring names
COMPARED = ("knn", "linear")  # the metrics of a comparison at equal compute that are won or lost
ERRORS = "pretext/"  # metrics that begin with this are errors: less is better, and no shares
# What may differ between two runs of one measurement: nothing here is part of what is measured.
IRRELEVANT = (
    *("name", "preset", "train.seed", "mesh.", "checkpoint.", "report.", "data.path"),
    *("data.cache", "evals.every_steps", "evals.batch_size"),
)


class Control(NamedTuple):
    """The same method without what makes it: what it does, in words, and its overrides."""

    words: str
    overrides: tuple[str, ...]


class Experiment(NamedTuple):
    """What a file in `experiments/` says of itself."""

    name: str
    method: str
    idea: str
    reference: str
    presets: tuple[str, ...]
    control: Control | None


def main(argv: Sequence[str] | None = None, root: pathlib.Path = ROOT) -> int:
    """The exit code: 0 done, 1 README.md is not current, 2 bad input."""
    parser = argparse.ArgumentParser(prog="jaxssl.methods_table", allow_abbrev=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write the tables into README.md")
    what.add_argument("--check", action="store_true", help="fail where README.md is not current")
    what.add_argument("--record", nargs="+", metavar="WORKDIR", help="collect finished runs")
    parser.add_argument("--name", help="the experiment, where config.json does not say")
    parser.add_argument("--preset", help="the preset, where config.json does not say")
    parser.add_argument("--machine", help="where the runs were made, if not on this machine")
    flags = parser.parse_args(argv)
    try:
        if flags.record:
            record(root, flags.record, flags.name, flags.preset, flags.machine or machine())
            return 0
        readme = root / "README.md"
        old = readme.read_text() if readme.exists() else ""
        new = filled(old, tables(root))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if flags.write:
        readme.write_text(new)
    elif new != old:
        print(f"{readme.name}: not current; run python -m jaxssl.methods_table --write")
        return 1
    return 0


# ------------------------------------------------------------------ recording


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
    runs: dict[tuple[str, str, str], list[tuple[int, dict[str, Any], dict[str, Any]]]] = {}
    for folder in map(pathlib.Path, workdirs):
        summary, config = (_read(folder / f"{n}.json") for n in ("summary", "config"))
        if summary["status"] != "finished":
            raise ConfigError(f"{folder}: {summary['status']}; expected a finished run")
        own_name, own_preset = config.get("name") or name, config.get("preset") or preset
        if not own_name or not own_preset:
            raise ConfigError(f"{folder}: of which experiment? expected --name and --preset")
        changed = changes(root, folder, own_name, own_preset, config)
        key = (own_name, own_preset, json.dumps(changed))
        runs.setdefault(key, []).append((config["train"]["seed"], summary, changed))
    made = []
    for (own_name, own_preset, _), found in runs.items():
        found.sort(key=lambda run: run[0])
        seeds = [seed for seed, _, _ in found]
        if len(set(seeds)) < len(seeds):
            raise ConfigError(f"{own_name}:{own_preset}: found seeds {seeds}; expected each once")
        made.append(
            dict(
                experiment=own_name,
                preset=own_preset,
                changes=found[0][2],
                seeds=seeds,
                steps=found[0][1]["step"],
                seconds=[round(summary["seconds"], 1) for _, summary, _ in found],
                machine=machine,
                evals=_collected(f"{own_name}:{own_preset}", [s["evals"] for _, s, _ in found]),
            )
        )
    identity = lambda r: (r["experiment"], r["preset"], len(r["changes"]), str(r["changes"]))
    kept = [r for r in results(root) if identity(r) not in map(identity, made)]
    kept = sorted([*kept, *made], key=identity)
    (root / "experiments" / "results.json").write_text(json.dumps(kept, indent=1) + "\n")
    return kept


def changes(
    root: pathlib.Path, folder: pathlib.Path, name: str, preset: str, config: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields in which a run's config is not what the experiment's preset says today.

    Raises:
      ConfigError: a field that only one of the two has.
    """
    spec = f"{root / 'experiments' / name}.py:{preset}"
    wanted, found = (_flat(c) for c in (configs.to_dict(configs.load(spec)), config))
    for key in sorted(wanted.keys() ^ found.keys()):
        side = "the run" if key in found else "the experiment"
        raise ConfigError(f"{folder}: only {side} has {key}; expected a run of today's config")
    return {key: found[key] for key in sorted(wanted) if wanted[key] != found[key]}


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


# ------------------------------------------------------------------ the tables


def experiments(root: pathlib.Path) -> list[Experiment]:
    """Every experiment, by name.

    Raises:
      ConfigError: a docstring that is not "Method: idea.", then a paragraph with the reference.
    """
    found = []
    for path in sorted((root / "experiments").glob("*.py")):
        paragraphs = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")
        method, colon, idea = " ".join(paragraphs[0].split()).partition(": ")
        if not colon or len(paragraphs) < 2:
            raise ConfigError(f"{path.name}: expected a docstring 'Method: idea.' and a reference")
        presets = tuple(runpy.run_path(str(path)).get("PRESETS", ()))
        reference = " ".join(paragraphs[1].split())
        idea, control = idea.rstrip("."), _control(paragraphs)
        found.append(Experiment(path.stem, method, idea, reference, presets, control))
    return found


def _control(paragraphs: Sequence[str]) -> Control | None:
    """The first "... The control does so:" that is followed by the overrides which make it so.

    >>> _control(["An idea.", "CIFAR-10. The control has no head:", "  ... --config.losses.a.b=0"])
    Control(words='has no head', overrides=('--config.losses.a.b=0',))
    """
    for said, command in itertools.pairwise(paragraphs):
        words = re.search(r"The control (.+):$", " ".join(said.split()))
        parts = shlex.split(command, posix=True) if words else []
        if words and parts[:1] == ["..."]:
            return Control(words[1], tuple(parts[1:]))
    return None


def results(root: pathlib.Path) -> list[dict[str, Any]]:
    """What `experiments/results.json` holds; nothing where there is none."""
    path = root / "experiments" / "results.json"
    return json.loads(path.read_text()) if path.exists() else []


def tables(root: pathlib.Path) -> dict[str, str]:
    """Marker -> the Markdown that belongs there."""
    made = {"methods": methods(root), "numbers": numbers(results(root))}
    for name, shown in BENCHES.items():
        path = root / "experiments" / f"{name}.json"
        made[name] = shown(read_json(path)) if path.exists() else "Nothing is measured yet."
    return made


def methods(root: pathlib.Path) -> str:
    """One row per experiment: its idea, its reference, its presets and how it stands."""
    rows = []
    measured, compared = results(root), comparisons(root)
    for e in experiments(root):
        stands = []
        for preset in e.presets:
            of = [r for r in measured if (r["experiment"], r["preset"]) == (e.name, preset)]
            plain = [verdict(r) for r in of if not r["changes"]]
            found = compared.get((e.name, preset), ())
            short = [f"at equal compute {verdict(r)}" for r in found]
            stands.append(f"`{preset}`: {(plain or short or ['not measured'])[0]}")
        link = f"[{e.method}](experiments/{e.name}.py)"
        reference = re.sub(
            r"arXiv[: ](\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", e.reference
        )
        rows.append((link, e.idea, reference, "<br>".join(stands)))
    return table(("method", "idea", "reference", "presets and how they stand"), rows)


def verdict(result: Mapping[str, Any]) -> str:
    """How a measurement stands against its controls; a metric is won where every seed wins.

    >>> verdict({"seeds": [0], "evals": {"knn": {"trained": [0.9], "raw_input": [0.95]}}})
    'not better than raw input on knn (1 seed)'
    """
    lost = []
    for metric, entry in result["evals"].items():
        for control in (*CONTROLS, OWN):
            pairs = zip(entry["trained"], entry.get(control, ()))
            sign = -1 if metric.startswith(ERRORS) else 1
            if not all(sign * trained > sign * rival for trained, rival in pairs):
                lost.append(f"{control.replace('_', ' ')} on {metric}")
    seeds = count(len(result["seeds"]), "seed")
    if not lost:
        return f"better than its controls on {count(len(result['evals']), 'metric')} ({seeds})"
    return f"not better than {', '.join(lost)} ({seeds})"


def comparisons(root: pathlib.Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(experiment, preset) -> how it did in comparisons, in the form that `verdict` takes.

    The control counts at the seeds at which it was run.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for kind in TABLES.values():
        path = root / kind.record
        record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rows": ()}
        rows = {row["experiment"]: row for row in record["rows"] if row["seeds"]}
        for name, row in rows.items():
            control = rows.get(name + CONTROL, {"seeds": ()})
            seeds = sorted(row["seeds"], key=lambda s: s not in control["seeds"])
            evals = {metric: _ordered(row, metric, seeds) for metric in COMPARED}
            shared = [s for s in seeds if s in control["seeds"]]
            for metric in COMPARED if shared else ():
                evals[metric][OWN] = _ordered(control, metric, shared)["trained"]
            found.setdefault((name, record["preset"]), []).append({"seeds": seeds, "evals": evals})
    return found


def _ordered(row: Mapping[str, Any], metric: str, seeds: Sequence[int]) -> dict[str, list[float]]:
    """kind -> the values of a metric at some seeds of a recorded row."""
    at = [row["seeds"].index(seed) for seed in seeds]
    kinds = row["evals"][metric]
    return {k: [kinds[k][i] for i in at] for k in ("trained", *CONTROLS) if k in kinds}


def numbers(measured: Sequence[Mapping[str, Any]]) -> str:
    """The measured numbers beside their controls, then the command and machine of each."""
    if not measured:
        return "Nothing is measured yet."
    rows, commands = [], []
    for r in measured:
        name = " ".join((f"{r['experiment']}:{r['preset']}", *_overrides(r["changes"], prefix="")))
        for metric, entry in r["evals"].items():
            trained = statistics.fmean(entry["trained"])
            error = metric.startswith(ERRORS)
            cells = [spread(entry["trained"], 1 if error else 100, 3 if error else 1)]
            for control in CONTROLS:
                if control in entry and error:
                    ratio = trained / statistics.fmean(entry[control])
                    cells.append(f"{spread(entry[control], 1, 3)} (x {ratio:.2f})")
                elif control in entry:
                    gain = 100 * (trained - statistics.fmean(entry[control]))
                    cells.append(f"{spread(entry[control])} ({gain:+.1f})")
                else:
                    cells.append("")
            rows.append((f"`{name}`", metric, *cells, str(len(r["seeds"]))))
        seconds = f"{statistics.fmean(r['seconds']):.0f} s of training for each seed"
        commands.append(f"- `{name}`: {seconds} on {r['machine']}\n\n  `{command(r)}`")
    head = (
        *("run", "metric", "trained", "random init (gain)", "raw input (gain)"),
        *("best constant (ratio)", "seeds"),
    )
    return "\n\n".join((table(head, rows), *commands))


def command(result: Mapping[str, Any]) -> str:
    """The shell command that makes the runs of a measurement."""
    name, preset, seeds = (result[k] for k in ("experiment", "preset", "seeds"))
    words = ["python -m jaxssl.main", f"--config=experiments/{name}.py:{preset}"]
    words += [f"--workdir=runs/{name}-{preset}-$seed", "--config.train.seed=$seed"]
    words += _overrides(result["changes"])
    return f"for seed in {' '.join(map(str, seeds))}; do {' '.join(words)}; done"


def _overrides(changed: Mapping[str, Any], prefix: str = "--config.") -> list[str]:
    return [f"{prefix}{key}={_literal(value)}" for key, value in changed.items()]


def _literal(value: Any) -> str:
    """A value as the command line takes it: JSON's lists are the config's tuples."""
    tuples: Callable[[Any], Any] = lambda v: tuple(map(tuples, v)) if isinstance(v, list) else v
    return shlex.quote(f"{tuples(value)!r}" if isinstance(value, list) else str(value))


if __name__ == "__main__":
    sys.exit(main())
