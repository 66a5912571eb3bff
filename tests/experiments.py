"""Every experiment in its small form, from the package, and what only tests do with one."""

import runpy

from ml_collections import ConfigDict

from jaxssl.bench.small import (
    FOLDER,
    NAMES,
    in_every_stage,
    load,
    plan,
    small,
    without_batch_norm,
)
from jaxssl.config.load import merged

__all__ = [
    "FOLDER",
    "NAMES",
    "in_every_stage",
    "load",
    "merged",
    "plan",
    "presets",
    "small",
    "with_changes",
    "without_batch_norm",
]

# The package `experiments.prove` is beside the experiments, not beside this module.
__path__ = [str(FOLDER)]


def presets(name: str) -> tuple[str, ...]:
    """The presets that an experiment names."""
    return tuple(runpy.run_path(str(FOLDER / f"{name}.py"))["PRESETS"])


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
