"""Going back to an earlier checkpoint, and on from there with other random numbers.

A run is a function of its state, so it would only fail again in the same way. The root key of a
state that was gone back to is therefore folded with how often that was: what follows is the same
whether or not the run is killed in between.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxssl.config.naming import fold_name
from jaxssl.report.writers import read_json
from jaxssl.state import State


class Rewind(Exception):
    """Asks the loop to go back.

    Attributes:
      cause: the section of the config that asks: "alarms" or "nonfinite".
      newest: the latest step that is good to go back to.
      reason: one line.
    """

    def __init__(self, cause: str, newest: int, reason: str):
        super().__init__(reason)
        self.cause, self.newest, self.reason = cause, newest, reason


class Entry(NamedTuple):
    """One time that a run went back, `from_step` to `to_step`."""

    cause: str
    from_step: int
    to_step: int
    reason: str


def before(workdir: pathlib.Path) -> list[Entry]:
    """Those of a run before it was interrupted, from its `summary.json`."""
    path = workdir / "summary.json"
    summary: Mapping[str, Any] = read_json(path) if path.exists() else {}
    return [Entry(**entry) for entry in summary.get("rewinds", ())]


def attempt(entries: Sequence[Entry], step: int) -> int:
    """How often the run went back to `step` since that was last reached anew.

    >>> a, b = Entry("alarms", 90, 50, ""), Entry("alarms", 80, 20, "")
    >>> attempt([a, a], 50), attempt([a, b], 50), attempt([a, b], 20)
    (2, 0, 1)
    """
    later = next((i for i, e in reversed(list(enumerate(entries))) if e.to_step < step), -1) + 1
    return sum(e.to_step == step for e in entries[later:])


def other_numbers(state: State, attempts: int) -> State:
    """`state` with the root key of that attempt; that of the first (0) is its own."""
    return state.replace(key=fold_name(state.key, f"rewind/{attempts}")) if attempts else state
