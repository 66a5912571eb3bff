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
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxssl import config as configs
from jaxssl.errors import ConfigError, near
from jaxssl.evals.features import to_host
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
        field = f"stages[{i}]"
        if not hasattr(entry, "items"):
            raise ConfigError(f"{field}: found {entry!r}, expected fields {', '.join(FIELDS)}")
        entry = dict(entry)
        for key in entry:
            if key not in FIELDS:
                raise ConfigError(f"{field}.{key}: unknown field{near(key, FIELDS)}")
        names = [stage.name for stage in stages]
        name, source = str(entry.get("name", "")), entry.get("init_from", "")
        if not re.fullmatch(r"[\w-]+", name) or name in names:  # it is a folder's name, too
            raise ConfigError(
                f"{field}.name: found {name!r}; expected letters, digits, _ or -, not yet used"
            )
        if source and source not in names:
            raise ConfigError(
                f"{field}.init_from: no earlier stage {source!r}{near(source, names)}"
            )
        take = entry.get("take", ("params",))
        if not isinstance(take, tuple | list):
            raise ConfigError(f"{field}.take: found {take!r}, expected a tuple of parts")
        for part in take:
            if part.split("/")[0] not in TAKEN:
                raise ConfigError(f"{field}.take: no part {part!r}{near(part, TAKEN)}")
        own = _changed(config, entry.get("changes", {}), field)
        stages.append(Stage(name, own, workdir / f"{i}-{name}", source, tuple(take)))
    return stages


def _changed(config: Any, changes: Any, field: str) -> Any:
    if not hasattr(changes, "items"):
        raise ConfigError(f"{field}.changes: found {changes!r}, expected keys and values")
    try:
        own = configs.merged(config, {**changes, "stages": ()})
        configs.validate(own)
    except ConfigError as error:
        raise ConfigError(f"{field}.changes: {error}") from None
    return own


def started(state: State, stage: Stage, artifacts: Mapping[str, PyTree]) -> State:
    """`state` with the parts that the stage takes from an earlier one, copied leaf by leaf.

    Raises:
      ConfigError: a part that is not there, or a leaf of another shape.
    """
    if not stage.init_from:
        return state
    check_start(state, stage, artifacts)
    source = artifacts[stage.init_from]
    for part in stage.take:
        top, *path = part.split("/")
        state = state.replace(**{top: _replaced(getattr(state, top), source[top], path)})
    return state


def check_start(state: State, stage: Stage, artifacts: Mapping[str, PyTree]) -> None:
    """Compares the parts that the stage takes with what there is; shapes are enough.

    Raises:
      ConfigError: a part that is not there, or a leaf of another shape.
    """
    shapes = lambda tree: {n: (x.shape, str(x.dtype)) for n, x in named_leaves(tree).items()}
    for part in stage.take if stage.init_from else ():
        top, *path = part.split("/")
        old, new = getattr(state, top), artifacts[stage.init_from][top]
        for name in path:
            if name not in old or name not in new:
                raise ConfigError(f"stages: take {part!r}: no {name!r}{near(name, old)}")
            old, new = old[name], new[name]
        here, there = shapes(old), shapes(new)
        for name in sorted(here.keys() | there.keys()):
            if here.get(name) != there.get(name):
                raise ConfigError(
                    f"stages: take {part!r}: {name or part} is {there.get(name, 'absent')} there, "
                    f"{here.get(name, 'absent')} here"
                )


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


def _replaced(old: PyTree, new: PyTree, path: list[str]) -> PyTree:
    if path:
        head, *rest = path
        return {**old, head: _replaced(old[head], new[head], rest)}
    # A copy: the new state is donated to its first step, and the old one stays an artifact.
    return jax.tree.map(lambda x, y: jax.device_put(to_host(y), x.sharding), old, new)
