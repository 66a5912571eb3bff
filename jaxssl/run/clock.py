"""How long a run trained, and how fast."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Training time, without evaluations and checkpoints, and examples a second."""

    def __init__(self, before: float):
        self._before = before
        self._began = self._window_began = time.perf_counter()
        self._paused = 0.0
        self._steps = self._window_steps = 0

    def step(self) -> None:
        """A step is done."""
        if self._steps == 0:  # the first step also waits for the first batch
            self._began = self._window_began = time.perf_counter()
            self._paused = 0.0
        self._steps += 1
        self._window_steps += 1

    def total(self) -> float:
        """Seconds of training, those before an interruption too."""
        return self._before + time.perf_counter() - self._began - self._paused

    def rate(self, batch: int) -> float | None:
        """Examples a second since the start, None before the second step."""
        spent = time.perf_counter() - self._began - self._paused
        return (self._steps - 1) * batch / spent if self._steps > 1 else None

    def window_rate(self, batch: int) -> float | None:
        """Examples a second since the last call."""
        now = time.perf_counter()
        spent = now - self._window_began
        # The clock starts with the first step's end: no window to speak of yet.
        rate = self._window_steps * batch / spent if self._steps > 1 and spent > 0 else None
        self._window_began, self._window_steps = now, 0
        return rate

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is done meanwhile is no training."""
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            self._paused += spent
            self._window_began += spent
