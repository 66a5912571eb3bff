"""Every experiment, and its `digits` preset made small enough for a test."""

import pathlib
import runpy
from collections.abc import Callable, Iterator

from ml_collections import ConfigDict

from jaxssl import config as configs
from jaxssl import stages
from jaxssl.config import merged

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "experiments"
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem != "__init__")


# network -> the fields that make it small
SMALL = {
    "convnet": {"widths": (8, 16), "strides": (1, 2)},
    "vit": {"width": 16, "depth": 2, "heads": 2},
    "residual_unet": {"widths": (4, 8), "blocks": (1, 1)},
    "transformer_head": {"width": 16, "depth": 1, "heads": 2},
    "decoder": {"width": 16, "depth": 1, "heads": 2},
    "predictor": {"width": 16, "depth": 1, "heads": 2},
    "prototypes": {"count": 32},
}


def named_sections(config: ConfigDict, path: str = "") -> Iterator[tuple[str, ConfigDict]]:
    """Every section that has a name, such as networks wherever a method keeps them; its path."""
    for key, section in config.items():
        if isinstance(section, ConfigDict):
            yield from named_sections(section, f"{path}.{key}".lstrip("."))
    if path and "name" in config:
        yield path, config


def load(name: str, preset: str = "digits", *overrides: str) -> ConfigDict:
    """The config of an experiment as the command line would give it."""
    return configs.load(f"{FOLDER / name}.py:{preset}", overrides)


def presets(name: str) -> tuple[str, ...]:
    """The presets that an experiment names."""
    return tuple(runpy.run_path(str(FOLDER / f"{name}.py"))["PRESETS"])


Changes = dict[str, object]


def in_every_stage(config: ConfigDict, changes_of: Callable[[ConfigDict], Changes]) -> ConfigDict:
    """The config with `changes_of(config)`; each of its stages with those of its own config."""
    entries = []
    for stage, entry in zip(plan(config), config.stages):
        new = changes_of(stage.config)
        within = tuple(f"{path}." for path in new)
        old = dict(entry.get("changes", {}))
        kept = {path: x for path, x in old.items() if not path.startswith(within)}
        entries.append({**entry, "changes": kept | new})
    return merged(config, changes_of(config) | {"stages": tuple(entries)})


def plan(config: ConfigDict) -> list[stages.Stage]:
    """The stages of a config, whose folders are nowhere."""
    return stages.resolve(config, pathlib.Path("nowhere"))


def small(name: str, **changes: object) -> ConfigDict:
    """The `digits` preset with a tiny encoder, narrow heads, few slices and 20 steps a stage."""
    return in_every_stage(load(name), lambda config: shrunk(config) | changes)


def shrunk(config: ConfigDict) -> Changes:
    """What makes a config small."""
    found: Changes = {
        "train.global_batch": 32,
        "evals.every_steps": 0,
        "evals.linear": None,
        "evals.fewshot": None,
        "evals.calibration_batches": 2,
        "checkpoint.every_steps": 0,
        "mesh.min_shard_elements": 1,
        "report.every_steps": 1,
        "report.samples": 32,
    }
    if any(config.train[unit] for unit in stages.LENGTHS):  # else it only evaluates
        found |= {"train.steps": 20, "train.epochs": 0.0, "train.examples": 0}
    for path, network in named_sections(config):
        found |= {f"{path}.{field}": x for field, x in SMALL.get(network.name, {}).items()}
    for head in config.student:
        if "widths" in config.student[head]:
            last = config.student[head].widths[-1]
            found[f"student.{head}.widths"] = (16, min(last, 16))
    for term in config.losses:
        if "num_slices" in config.losses[term]:
            found[f"losses.{term}.num_slices"] = 16
    return found


def without_batch_norm(config: ConfigDict) -> ConfigDict:
    """The same config with norms that see one sample at a time, as microbatches need."""

    def changes_of(config: ConfigDict) -> Changes:
        changes: Changes = {}
        if config.encoder.get("norm") == "batch":
            changes["encoder.norm"] = "group"
        for head in config.student:
            if config.student[head].get("norm") == "batch":
                changes[f"student.{head}.norm"] = "layer"
        return changes

    return in_every_stage(config, changes_of)


def with_changes(config: ConfigDict, changes: dict[str, object]) -> ConfigDict:
    """The config with {"a.b": value} changes, new entries among them; None takes one away."""
    with config.unlocked():
        for path, value in changes.items():
            *parents, last = path.split(".")
            section = config
            for name in parents:
                section = section[name]
            if value is None:
                del section[last]
            else:
                section[last] = value
    return config
