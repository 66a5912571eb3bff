"""Memories: what a term of the loss remembers across steps; each module exposes `build`.

An argument of a loss may be a memory, as in `queue=dict(memory="queue", size=4096)`. Its arrays
live in `extra["memory"]`, keyed by term and argument: sharded, checkpointed, of static shape, and
without gradient. A loss sees what earlier steps left; what this step adds, the next one sees.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from jaxssl.config.by_name import build_by_name
from jaxssl.method import Batch, Info, PyTree


class MemoryInput(NamedTuple):
    """What a memory may look at in a step.

    Attributes:
      stack: the output that it remembers, [V, B, P] float32, without gradient.
      batch: the batch, for `index`.
      key: the step's key for this memory, the same on all devices.
      step: of the state.
    """

    stack: jax.Array
    batch: Batch
    key: jax.Array
    step: jax.Array


class Memory(NamedTuple):
    """Arrays across steps, as pure functions.

    Attributes:
      init: (key, shape [V, B, P] of the stack) -> state.
      read: (state, seen) -> what the loss gets.
      update: (state, seen) -> the next state.
    """

    init: Callable[[jax.Array, tuple[int, ...]], PyTree]
    read: Callable[[PyTree, MemoryInput], Any]
    update: Callable[[PyTree, MemoryInput], PyTree]


def build(config: Mapping[str, Any], *, views: int, info: Info, field: str) -> Memory:
    """The memory that `config` names.

    Args:
      config: `{"memory": ..., **fields}`.
      views: V of the stack that it will see.
      info: N, B and the steps of an epoch.
      field: where in the config it stands; error messages begin with it.

    Errors: ConfigError for an unknown name, field or value.
    """
    return build_by_name(sys.modules[__name__], config, field, by="memory", views=views, info=info)
