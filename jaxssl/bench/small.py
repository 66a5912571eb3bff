"""Every experiment, and its `digits` preset made small enough to be run in seconds, on any devices.

What the tests hold of every method, and `python -m jaxssl.bench.invariance`, run these.
"""

import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxssl.config import load as configs
from jaxssl.config.load import merged
from jaxssl.config.naming import named_leaves
from jaxssl.devices.sharding import ONE_DEVICE
from jaxssl.program import Program
from jaxssl.run import stages, table_stages
from jaxssl.state import State

PyTree = Any
Changes = dict[str, object]
FOLDER = pathlib.Path(__file__).resolve().parents[2] / "experiments"
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem != "__init__")

# network -> the fields that make it small
SMALL: Mapping[str, Changes] = {
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
    """The `digits` preset with a tiny encoder, narrow heads, few slices and 20 steps a stage.

    Of rounds over tables there is the first.
    """
    config = load(name)
    trains = [i for i, entry in enumerate(config.stages) if "make" not in entry]
    if len(trains) < len(config.stages):
        config = merged(config, {"stages": config.stages[: trains[:2][-1] + 1]})
    return in_every_stage(config, lambda config: shrunk(config) | changes)


def shrunk(config: ConfigDict) -> Changes:
    """What makes a config small."""
    found: Changes = {
        "train.global_batch": min(32, config.train.global_batch),
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
    for stream in config.streams:
        if "batch" in config.streams[stream]:
            found[f"streams.{stream}.batch"] = min(64, config.streams[stream].batch)
    for term in config.losses:
        if "threshold" in config.losses[term]:
            found[f"losses.{term}.threshold"] = 0.0  # that of no sample is reached in a few steps
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
        for path, network in named_sections(config.teachers, "teachers"):
            if network.get("norm") == "batch":
                changes[f"{path}.norm"] = "group" if path.endswith(".encoder") else "layer"
        return changes

    return in_every_stage(config, changes_of)


def smooth(name: str, **changes: object) -> ConfigDict:
    """The small config with views that compile fast, and plain gradient descent.

    Adam divides by the gradient's own size: where that is rounding, its step is rounding's sign.
    """
    descent: Changes = {
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 0.01,
        "optimizer.clip_norm": 1.0,
    }
    config = small(name, **descent | changes)
    return in_every_stage(config, plain_views)


def plain_views(config: ConfigDict) -> Changes:
    """Views of the same number and size with a little noise and nothing else."""
    kept = ("count", "of", "size", "turns", "tiles", "low_frequency")
    groups = {group: view.to_dict() for group, view in config.views.items()}
    plain = {group: {k: v for k, v in view.items() if k in kept} for group, view in groups.items()}
    return {"views": {group: view | dict(noise=dict(sigma=0.1)) for group, view in plain.items()}}


class Followed(NamedTuple):
    """A program, the stage that it is of, and what earlier stages left."""

    program: Program
    stage: stages.Stage
    left: Mapping[str, PyTree]

    def init(self) -> State:
        """The state that the stage begins with."""
        return stages.started(self.program.init(), self.stage, self.left)


def followed(config: ConfigDict, devices: int = 1) -> Followed:
    """The program of a config, on one device of this process or on the first few of all.

    Of a config with stages it is the last that trains.
    What earlier stages leave is what they began with, moved at random in place of training: a
    student that starts where its teacher is would have errors of rounding alone.
    """
    left: dict[str, PyTree] = {}
    here = jax.local_devices()[:1]
    every = plan(config)
    last = [stage for stage in every if stage.trains][-1]
    for stage in every[: every.index(last)]:
        if stage.evaluates_only:
            continue
        if stage.make:  # of the right shapes, all zeros
            left = {**left, stage.name: table_stages.table(stage, every, left)}
            continue
        program = Program(merged(stage.config, ONE_DEVICE), left, here)
        first = Followed(program, stage, left).init()
        of_any_device = jax.tree.map(jnp.asarray, jax.device_get(stages.artifact(first)))
        moved = moved_at_random(of_any_device["params"], len(left))
        left = {**left, stage.name: {**of_any_device, "params": moved}}
    where = here if devices == 1 else jax.devices()[:devices]
    return Followed(Program(last.config, left, where), last, left)


def moved_at_random(params: PyTree, seed: int) -> PyTree:
    """Params with a little noise, which depends on the seed alone."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + 0.05 * rng.standard_normal(x.shape, np.float32), params)


def in_microbatches(config: ConfigDict) -> ConfigDict:
    """The config in four microbatches; as it is where a batch norm is in the way."""
    if without_batch_norm(config) != config:
        return config
    return in_every_stage(config, lambda config: {"train.microbatches": 4})


def trajectory(
    program: Program, state: State, batches: Iterator[Mapping[str, jax.Array]], steps: int
) -> tuple[list[dict[str, float]], dict[str, np.ndarray]]:
    """(metrics of each step, last state), on the host."""
    log = []
    for _ in range(steps):
        state, metrics = program.step(state, next(batches))
        log.append({k: float(v) for k, v in metrics.items()})
    return log, on_host(state)


def on_host(state: State) -> dict[str, np.ndarray]:
    """Every leaf by its path, the key as its words."""
    raw = state.replace(key=jax.random.key_data(state.key))
    return {name: np.array(leaf) for name, leaf in named_leaves(raw).items()}
