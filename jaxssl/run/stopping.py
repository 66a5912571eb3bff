"""Requests to stop: SIGTERM on one machine, preemption on many."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """Whether the run was asked to stop."""

    requested = False

    def reached(self, step: int) -> bool:
        """Whether to stop after `step`: the same answer on all processes, whichever was asked.

        With several, JAX's runtime takes the signal and agrees on a step, in the background.
        """
        if jax.process_count() > 1:
            return bool(multihost_utils.reached_preemption_sync_point(step))
        return self.requested


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """SIGTERM asks for a checkpoint after the step under way; a second one ends at once."""
    request = StopRequest()
    mine = threading.current_thread() is threading.main_thread() and jax.process_count() == 1
    if not mine:
        yield request
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if request.requested:
            sys.exit(128 + number)
        request.requested = True

    old = signal.signal(signal.SIGTERM, ask)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, old)
