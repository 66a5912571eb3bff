"""A config cut down to what is timed: a few steps, no evaluations, no checkpoints on the way."""

import functools
import itertools
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from jaxssl.config import load as configs
from jaxssl.evals import settings
from jaxssl.program import Program

PLACED = 8  # batches kept on the devices, and used in turn

CUT = {
    "train.epochs": 0,
    "train.examples": 0,
    "evals.every_steps": 0,
    "checkpoint.every_steps": 0,
    "stages": (),
}


class Fed(NamedTuple):
    """The seconds of a loop that draws its batches, and of what the host waits for in it.

    Attributes:
      seconds: of all steps.
      data: until the batches were there.
      device: until the metrics of the step before were there.
    """

    seconds: float
    data: float
    device: float


class Workload:
    """A config's program, compiled once for all benchmarks, and its step without the loop.

    Args:
      config: from `jaxssl.config.load`.
      steps: of one repeat, at least 2: the first one warms up.

    Attributes:
      config: with all that is not timed taken out.
      compile_seconds: building the program and compiling its step; None before `program` is read.
    """

    def __init__(self, config: Any, steps: int = 60):
        evals = {f"evals.{name}": None for name in settings(config.evals)}
        self.config = configs.merged(config, {**CUT, **evals, "train.steps": steps})
        self.steps = steps
        self.compile_seconds: float | None = None
        self._state: Any = None

    @functools.cached_property
    def program(self) -> Program:
        """The program, with its step compiled."""
        began = time.perf_counter()
        program = Program(self.config)
        _ = program.step
        self.compile_seconds = time.perf_counter() - began
        return program

    @functools.cached_property
    def batches(self) -> list[Any]:
        """Batches that lie on the devices."""
        return list(itertools.islice(self.program.batches(0), min(PLACED, self.steps)))

    def first(self) -> None:
        """One step, done: the state that `advance` moves is there and warm."""
        if self._state is None:
            self._state = self.program.init()
        self.advance(self.batches[0])
        jax.block_until_ready(self._state)

    def advance(self, batch: Any) -> Any:
        """Dispatches one step and returns its metrics."""
        self._state, metrics = self.program.step(self._state, batch)
        return metrics

    def bare_seconds(self) -> float:
        """`steps - 1` compiled steps on placed batches, dispatched one after another."""
        self.first()
        began = time.perf_counter()
        for batch in itertools.islice(itertools.cycle(self.batches), self.steps - 1):
            self.advance(batch)
        jax.block_until_ready(self._state)
        return time.perf_counter() - began

    def fed(self, stream: Iterator[Any]) -> Fed:
        """`steps - 1` steps on batches of the stream, as the loop of training takes them."""
        self.first()
        data, device, pending = 0.0, 0.0, None
        began = time.perf_counter()
        for _ in range(self.steps - 1):
            asked = time.perf_counter()
            batch = next(stream)
            data += time.perf_counter() - asked
            metrics = self.advance(batch)
            # As the loop does: the metrics of the step before, while this one is under way.
            dispatched = time.perf_counter()
            jax.block_until_ready(pending)
            device += time.perf_counter() - dispatched
            pending = metrics
        dispatched = time.perf_counter()
        jax.block_until_ready(pending)
        ended = time.perf_counter()
        return Fed(ended - began, data, device + ended - dispatched)
