"""A run as a list of stages; each starts from what earlier ones left, by name.

    config.stages = (
        dict(name="teacher"),
        dict(name="student", init_from="teacher", take=("params/encoder",),
             changes={"train.seed": 1}),
    )

Each stage is the run's config with its `changes`, in a folder of its own. `init_from` names an
earlier stage and `take` the parts of its last state that the new one starts with ("params",
"params/encoder", "extra", ...); all else is initialised anew, the optimizer too. A frozen teacher
may start from any earlier stage. A config without stages is one stage, in the workdir itself.
"""

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxssl import config as configs
from jaxssl.errors import ConfigError, near
from jaxssl.naming import named_leaves
from jaxssl.state import State

PyTree = Any
FIELDS = ("name", "init_from", "take", "changes")
TAKEN = ("params", "teachers", "extra", "optimizer")


class Stage(NamedTuple):
    """One stage, resolved: its own config and folder, and what it starts from."""

    name: str
    config: Any
    folder: pathlib.Path
    init_from: str
    take: tuple[str, ...]


def resolve(config: Any, workdir: pathlib.Path) -> list[Stage]:
    """The stages of a config, checked.

    Raises:
      ConfigError: an unknown field, a name used twice, or a start from no earlier stage.
    """
    if not config.stages:
        return [Stage("", config, workdir, "", ())]
    stages: list[Stage] = []
    for i, entry in enumerate(config.stages):
        field, entry = f"stages[{i}]", dict(entry)
        for key in entry:
            if key not in FIELDS:
                raise ConfigError(f"{field}.{key}: unknown field{near(key, FIELDS)}")
        names = [stage.name for stage in stages]
        name, source = entry.get("name", ""), entry.get("init_from", "")
        if not name or name in names:
            raise ConfigError(f"{field}.name: found {name!r}; expected a name not yet used")
        if source and source not in names:
            raise ConfigError(
                f"{field}.init_from: no earlier stage {source!r}{near(source, names)}"
            )
        take = tuple(entry.get("take", ("params",)))
        for part in take:
            if part.split("/")[0] not in TAKEN:
                raise ConfigError(f"{field}.take: no part {part!r}{near(part, TAKEN)}")
        own = configs.merged(config, {**entry.get("changes", {}), "stages": ()})
        stages.append(Stage(name, own, workdir / f"{i}-{name}", source, take))
    return stages


def started(state: State, stage: Stage, artifacts: Mapping[str, PyTree]) -> State:
    """`state` with the parts that the stage takes from an earlier one, copied leaf by leaf.

    Raises:
      ConfigError: a part that is not there, or a leaf of another shape.
    """
    if not stage.init_from:
        return state
    source = artifacts[stage.init_from]
    for part in stage.take:
        top, *path = part.split("/")
        new = _replaced(getattr(state, top), source[top], path, part)
        state = state.replace(**{top: new})
    return state


def artifact(state: State) -> dict[str, PyTree]:
    """What a finished stage leaves to later ones."""
    return {name: getattr(state, name) for name in TAKEN}


def content_hash(tree: PyTree) -> str:
    """Twelve hexadecimal digits of the leaves' names and bytes; every process gathers nothing.

    >>> content_hash({"a": np.ones(2)}) == content_hash({"a": np.ones(2)})
    True
    """
    digest = hashlib.sha256()
    for name, leaf in sorted(named_leaves(tree).items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:12]


def _replaced(old: PyTree, new: PyTree, path: list[str], part: str) -> PyTree:
    if path:
        head, *rest = path
        if head not in old or head not in new:
            raise ConfigError(f"stages: take {part!r}: no {head!r}{near(head, old)}")
        return {**old, head: _replaced(old[head], new[head], rest, part)}
    shapes = lambda tree: {n: (x.shape, x.dtype) for n, x in named_leaves(tree).items()}
    a, b = shapes(old), shapes(new)
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name):
            raise ConfigError(
                f"stages: take {part!r}: {name} is {b.get(name, 'absent')} there, "
                f"{a.get(name, 'absent')} here"
            )
    # A copy: the new state is donated to its first step, and the old one stays an artifact.
    return jax.tree.map(lambda x, y: jax.device_put(np.asarray(y), x.sharding), old, new)
