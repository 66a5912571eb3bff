"""Input alone: batches a second from the host, and how long a step waits for its batch."""

import time

import jax

from jaxssl.bench.measure import Measure, in_turn, ratios
from jaxssl.bench.workload import Workload

AHEAD = 16  # more than are made ahead: what is drained before the clock starts


def run(workload: Workload, repeats: int) -> list[Measure]:
    """Batches read and placed, against the bare steps that would use them; then both together.

    The first epoch decodes; a source that fits in memory is faster afterwards.
    """
    stream = workload.program.batches(0)
    counted = workload.steps - 1
    waits: list[float] = []

    def input_seconds() -> float:
        for _ in range(AHEAD):
            jax.block_until_ready(next(stream))
        began = time.perf_counter()
        for _ in range(counted):
            jax.block_until_ready(next(stream))
        return time.perf_counter() - began

    def together_seconds() -> float:
        fed = workload.fed(stream)
        waits.append(fed.data / fed.seconds)
        return fed.seconds

    sides = {
        "input": input_seconds,
        "step": workload.bare_seconds,
        "together": together_seconds,
    }
    found = in_turn(sides, repeats)
    return [
        Measure("input over step, in batches/s", ratios(found["step"], found["input"])),
        Measure("batches/s", [counted / s for s in found["input"]]),
        Measure("host waits for data, part of the time", waits[-repeats:]),
    ]
