"""Checkpoints of the whole state: written beside and renamed, restored onto any device count."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from jaxssl.errors import ConfigError
from jaxssl.naming import named_leaves
from jaxssl.state import State

v1 = ocp.v1


class Checkpoints:
    """The checkpoints under one folder.

    Args:
      folder: where they live; made on the first save.
      keep: how many of the newest stay.

    Saving does not hold up the loop: arrays are copied, then written in the background under a
    temporary name and renamed, so that a kill at any moment leaves the older ones whole.
    """

    def __init__(self, folder: str | pathlib.Path, keep: int = 2):
        self.folder = pathlib.Path(folder).resolve()
        self._checkpointer = v1.training.Checkpointer(
            self.folder,
            preservation_policy=v1.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    def latest(self) -> int | None:
        """The step of the newest whole checkpoint."""
        newest = self._checkpointer.latest
        return None if newest is None else int(newest.step)

    def steps(self) -> list[int]:
        """The steps of all whole checkpoints, ascending."""
        return sorted(int(found.step) for found in self._checkpointer.checkpoints)

    def save(self, state: State, *, wait: bool = False) -> None:
        """Writes `state` under its own step, unless that step is there already."""
        step = int(state.step)
        if self.latest() != step:
            # Without `force` a save is skipped, without a word, while another is being written.
            self._checkpointer.save_async(step, _storable(state), force=True)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Returns when nothing is being written."""
        self._checkpointer.wait()

    def restore(self, shapes: State, shardings: State, step: int | None = None) -> State:
        """The state of `step` (the newest), placed as `shardings` say.

        Raises:
          ConfigError: none there, or a leaf of another name, shape or dtype than `shapes`.
        """
        step = self.latest() if step is None else step
        if step is None:
            raise ConfigError(f"{self.folder}: no checkpoint there")
        self._compare(shapes, step)
        # Keys are saved as their raw words; both trees must agree on that.
        target = jax.tree.map(
            lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
            jax.eval_shape(_storable, shapes),
            shardings,
        )
        raw = self._checkpointer.load(step, target)
        return raw.replace(key=jax.random.wrap_key_data(raw.key))

    def close(self) -> None:
        """Waits for the last write and lets go of the folder."""
        self._checkpointer.close()

    def _compare(self, shapes: State, step: int) -> None:
        """Names the first leaf that differs: a dtype would otherwise be cast without a word."""
        saved = named_leaves(self._checkpointer.metadata(step).metadata)
        wanted = named_leaves(jax.eval_shape(_storable, shapes))
        for name in sorted(saved.keys() | wanted.keys()):
            there, here = saved.get(name), wanted.get(name)
            if there is None or here is None:
                found, expected = ("no leaf", "one") if there is None else ("a leaf", "none")
                raise ConfigError(f"{self.folder}/{step}: {found} {name}, expected {expected}")
            if tuple(there.shape) != here.shape or jnp.dtype(there.dtype) != here.dtype:
                raise ConfigError(
                    f"{self.folder}/{step}: {name} is {jnp.dtype(there.dtype)}{tuple(there.shape)},"
                    f" expected {here.dtype}{here.shape}"
                )


def _storable(state: State) -> Any:
    return state.replace(key=jax.random.key_data(state.key))
