"""Checkpoints of the whole state: written beside and renamed, sealed, verified when they are read.

What lies under the folder, for a step 20:

- `20`: a checkpoint. Orbax renames it into place when all processes have written all of it; then
  process 0 seals it with `manifest.json`, the size and digest of every file. A kill between the two
  leaves one without a manifest: it is whole, and used; what can be read of it is verified.
- `20.orbax-checkpoint-tmp`: one that is being written, or was when the run was killed.
- `20.damaged`: one that was found damaged, set aside by `recover`. Nothing here deletes it.
- `20.discarded`: one that the run went back behind. The next `discard_after` deletes it.
"""

import contextlib
import os
import pathlib
import re
import shutil
import threading
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import named_leaves
from jaxssl.devices.agreement import first_text, on_first
from jaxssl.report import human
from jaxssl.run import manifest
from jaxssl.state import State

v1 = ocp.v1


class CheckpointNotWritten(RuntimeError):
    """A save that failed: folder, step, the reason, the room that is left and what to do.

    The older checkpoints are whole, nothing of this one is left, and the next save is tried.

    Attributes:
      step: of the checkpoint.
    """

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


class Recovered(NamedTuple):
    """What a run goes on from.

    Attributes:
      state: of the newest checkpoint that is good.
      step: its step.
      notes: a line for the user about each newer one that is damaged.
    """

    state: State
    step: int
    notes: tuple[str, ...]


class Checkpoints:
    """The checkpoints under one folder.

    With several processes, all of them make every call, with the same arguments.

    Args:
      folder: where they live; made on the first save.
      keep: how many of the newest stay.
      cleanup: whether to remove what a killed run left under temporary names. Not for a reader:
        the files may be those of a run that is writing them.

    Saving does not hold up the loop: arrays are copied, then written in the background under a
    temporary name, renamed and sealed, so that a kill at any moment leaves the older ones whole.
    """

    def __init__(self, folder: str | pathlib.Path, keep: int = 2, *, cleanup: bool = True):
        self.folder = pathlib.Path(folder).resolve()
        self._checkpointer = v1.training.Checkpointer(
            self.folder,
            preservation_policy=v1.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=cleanup,
        )
        self._writing: _Writing | None = None

    def latest(self) -> int | None:
        """The step of the newest checkpoint, which may still be in the writing."""
        return max(self.steps(), default=None)

    def steps(self) -> list[int]:
        """The steps of all checkpoints, ascending; the last may still be in the writing."""
        return sorted(int(found.step) for found in self._checkpointer.checkpoints)

    # ------------------------------------------------------------------ writing
    def save(self, state: State, *, wait: bool = False) -> None:
        """Writes `state` under its own step, unless that step is there already.

        Raises:
          CheckpointNotWritten: this save failed, as far as is known yet, or the one before; where
            it was the one before, this one is under way (with `wait`: written) nevertheless.
        """
        failure = self._settled()
        step = int(state.step)
        if step not in self.steps():
            failure = self._started(step, state) or failure
        if wait:
            failure = self._settled() or failure
        if failure is not None:
            raise failure

    def wait(self) -> None:
        """Returns when nothing is being written.

        Raises:
          CheckpointNotWritten: the save that was under way failed.
        """
        failure = self._settled()
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Waits for the last write and lets go of the folder.

        Unlike the other calls, it waits for no other process: one that failed can always end.

        Raises:
          CheckpointNotWritten: the save that was under way failed.
        """
        writing, error = self._joined()
        self._checkpointer.close()
        if writing is not None and error is not None:
            if jax.process_index() == 0:
                self._clear(writing.step)
            raise self._not_written(writing.step, _reason(error)) from error

    def discard_after(self, step: int) -> None:
        """Sets the checkpoints newer than `step` aside: a run that goes back writes them anew.

        They stay as `<step>.discarded` until the next call deletes them.

        Raises:
          CheckpointNotWritten: the save that was under way failed, and was not of a newer step.
        """
        failure = self._settled()
        newer = [other for other in self.steps() if other > step]

        def set_aside() -> None:
            for path in self.folder.glob("*.discarded*"):
                shutil.rmtree(path)
            for other in newer:
                self._aside(other, "discarded")

        if newer:
            on_first(set_aside)
            self._checkpointer.reload()
        if failure is not None and failure.step <= step:
            raise failure

    # ------------------------------------------------------------------ reading
    def recover(self, shapes: State, shardings: State, *, strict: bool = False) -> Recovered | None:
        """The newest checkpoint that is good, placed as `shardings` say; None if there is none yet.

        Newer ones that are damaged are set aside as `<step>.damaged`, so that they are no longer
        the newest and their steps can be written anew. Only the run that owns the folder calls it.

        Args:
          shapes, shardings: of the state.
          strict: whether a damaged one is an error.

        Raises:
          ConfigError: the newest is damaged and `strict`; all are damaged; or a leaf of the good
            one has another name, shape or dtype than `shapes` (which is never passed over).
        """
        self.wait()
        found: tuple[int | None, list[str]] = on_first(lambda: self._newest_good(strict))
        step, notes = found
        self._checkpointer.reload()
        return (
            None
            if step is None
            else Recovered(self._read(shapes, shardings, step), step, tuple(notes))
        )

    def restore(self, shapes: State, shardings: State, step: int | None = None) -> State:
        """The state of `step` (the newest), placed as `shardings` say. Nothing is set aside.

        Raises:
          ConfigError: none there, a damaged one, or a leaf of another name, shape or dtype than
            `shapes`.
        """
        self.wait()
        step = self.latest() if step is None else step
        if step is None:
            raise ConfigError(f"{self.folder}: no checkpoint there")
        damage = on_first(lambda: manifest.damage(self.folder / str(step)))
        if damage:
            others = ", ".join(str(other) for other in self.steps() if other != step)
            raise ConfigError(f"damaged checkpoint: {damage}; other steps: {others or 'none'}")
        return self._read(shapes, shardings, step)

    def _newest_good(self, strict: bool) -> tuple[int | None, list[str]]:
        """Its step, and a line about each newer one, which is set aside; on process 0."""
        # From the folder itself: one whose marks are gone is none to Orbax, and yet in the way.
        numbered = (path for path in self.folder.glob("*") if path.name.isdecimal())
        steps = sorted((int(path.name) for path in numbered if path.is_dir()), reverse=True)
        whole, damaged = None, {}
        for step in steps:
            damage = manifest.damage(self.folder / str(step))
            if not damage and step not in self.steps():
                damage = f"{self.folder / str(step)}: found a folder, expected a whole checkpoint"
            if not damage:
                whole = step
                break
            damaged[step] = damage
        fresh = f"to start anew, move {self.folder} away"
        if damaged and whole is None:
            raise ConfigError(
                f"every checkpoint is damaged: {'; '.join(damaged.values())}; {fresh}"
            )
        if damaged and strict:
            before = f"to go on from step {whole}, move the damaged away"
            raise ConfigError(f"damaged checkpoint: {'; '.join(damaged.values())}; {before}")
        notes = []
        for step, damage in damaged.items():
            aside = self._aside(step, "damaged")
            notes.append(
                f"damaged checkpoint: {damage}; set aside as {aside.name}; "
                f"going on from step {whole}"
            )
        return whole, notes

    def _read(self, shapes: State, shardings: State, step: int) -> State:
        self._compare(shapes, step)
        # Keys are saved as their raw words; both trees must agree on that.
        target = jax.tree.map(
            lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
            jax.eval_shape(_storable, shapes),
            shardings,
        )
        raw = self._checkpointer.load(step, target)
        return raw.replace(key=jax.random.wrap_key_data(raw.key))

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

    # ------------------------------------------------------------------ a save, and how it ends
    def _started(self, step: int, state: State) -> CheckpointNotWritten | None:
        """Begins to write; the failure, if that is known at once."""
        error: Exception | None = None
        try:
            # Without `force` a save is skipped, without a word, while another is being written.
            response = self._checkpointer.save_async(step, _storable(state), force=True)
            self._writing = _Writing(step, response, self.folder / str(step))
            self._writing.start()
        except Exception as caught:  # whatever it is, older checkpoints and the run are whole
            error = caught
        return self._failure(step, error)

    def _settled(self) -> CheckpointNotWritten | None:
        """Waits for the save under way; its failure on any process, the same on all."""
        writing, error = self._joined()
        return None if writing is None else self._failure(writing.step, error)

    def _joined(self) -> tuple["_Writing | None", Exception | None]:
        """Waits for the save under way, and for its seal; what went wrong on this process."""
        writing, self._writing = self._writing, None
        if writing is None:
            return None, None
        writing.join()
        if writing.error is not None:
            # It raises once in every thread that asks; so not again, at the next save.
            with contextlib.suppress(Exception):
                self._checkpointer.wait()
        return writing, writing.error

    def _failure(self, step: int, error: Exception | None) -> CheckpointNotWritten | None:
        reason = first_text("" if error is None else _reason(error))
        if not reason:
            return None
        on_first(lambda: self._clear(step))  # no process writes to it any more
        self._checkpointer.reload()
        failure = self._not_written(step, reason)
        failure.__cause__ = error
        return failure

    def _clear(self, step: int) -> None:
        """Removes what a failed save has left."""
        for path in self.folder.glob(f"{step}.orbax-checkpoint-tmp*"):
            # One array's failure ends a save, while others may still be in the writing.
            for _ in range(20):
                shutil.rmtree(path, ignore_errors=True)
                if not path.exists():
                    break
                time.sleep(0.1)

    def _not_written(self, step: int, reason: str) -> CheckpointNotWritten:
        there = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        free = human.size(shutil.disk_usage(there).free)
        return CheckpointNotWritten(
            f"{self.folder}: the checkpoint of step {step} was not written: {reason}; {free} free; "
            "make room or lower --config.checkpoint.keep, then run the same command to go on",
            step,
        )

    def _aside(self, step: int, word: str) -> pathlib.Path:
        """Renames a checkpoint to `<step>.<word>`, or with a number where that is taken."""
        path, number = self.folder / f"{step}.{word}", 1
        while path.exists():
            number += 1
            path = self.folder / f"{step}.{word}.{number}"
        return (self.folder / str(step)).rename(path)


class _Writing(threading.Thread):
    """Waits for a save to be renamed into place, then seals it; apart from the loop.

    Attributes:
      step: of the save.
      error: why it failed, once it has.
    """

    def __init__(self, step: int, response: Any, folder: pathlib.Path):
        super().__init__(name=f"seal-checkpoint-{step}")
        self.step = step
        self.error: Exception | None = None
        self._response, self._folder = response, folder

    def run(self) -> None:
        try:
            self._response.result()
        except Exception as error:
            self.error = error
            return
        if jax.process_index() == 0:
            # A checkpoint that could not be sealed (no room, or moved away) is still a whole one.
            with contextlib.suppress(OSError):
                manifest.seal(self._folder)


def _reason(error: Exception) -> str:
    """Why a write failed, in the system's words where it has some."""
    number = error.errno if isinstance(error, OSError) else None
    told = re.search(r"os_error_code='(\d+)'", str(error))  # as the array store reports it
    if number is None and told:
        number = int(told[1])
    if number is not None:
        return os.strerror(number)
    return " ".join(str(error).split())[:300] or type(error).__name__


def _storable(state: State) -> Any:
    return state.replace(key=jax.random.key_data(state.key))
