"""What a benchmark measures, and how two things are timed against each other."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxssl.report import human

GOALS: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda value, bound: value >= bound,
    "<=": lambda value, bound: value <= bound,
    "<": lambda value, bound: value < bound,
}


class Measure(NamedTuple):
    """A quantity, once for each repeat.

    Attributes:
      name: what it is, with its unit.
      values: one a repeat; a single one where repeating changes nothing.
      show: a number as people read it.
      goal: ("<", bound), ("<=", bound) or (">=", bound) on the median, where there is one.
    """

    name: str
    values: Sequence[float]
    show: Callable[[float], str] = human.value
    goal: tuple[str, float] | None = None

    @property
    def median(self) -> float:
        """The middle value."""
        return float(np.median(self.values))

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles, between which the middle half of the repeats lies."""
        low, high = np.quantile(self.values, (0.25, 0.75))
        return float(low), float(high)

    @property
    def met(self) -> bool | None:
        """Whether the median meets the goal; None without one."""
        return None if self.goal is None else GOALS[self.goal[0]](self.median, self.goal[1])

    def record(self) -> dict[str, Any]:
        """For JSON.

        >>> Measure("x", (3.0, 1.0, 2.0)).record()
        {'median': 2.0, 'low': 1.5, 'high': 2.5, 'repeats': 3}
        """
        low, high = self.spread
        found: dict[str, Any] = {"median": self.median, "low": low, "high": high}
        found["repeats"] = len(self.values)
        if self.goal is not None:
            found |= {"goal": f"{self.goal[0]} {self.goal[1]:g}", "met": self.met}
        return found

    def text(self) -> str:
        """For a table.

        >>> Measure("x", (3.0, 1.0, 2.0), goal=(">=", 2)).text()
        '2 (1.5 to 2.5), goal >= 2: met'
        """
        text = self.show(self.median)
        if len(self.values) > 1:
            text += f" ({' to '.join(map(self.show, self.spread))})"
        if self.goal is not None:
            sign, bound = self.goal
            text += f", goal {sign} {self.show(bound)}: {'met' if self.met else 'missed'}"
        return text


def in_turn(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """The seconds that each side says it took, `repeats` times, the sides taking turns.

    A first round is not counted, and every other round goes backwards, so that neither warming up
    nor a slow drift of the machine favours a side.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    for name in sides:
        sides[name]()
    for i in range(repeats):
        for name in list(sides)[:: -1 if i % 2 else 1]:
            found[name].append(sides[name]())
    return found


def seconds(fn: Callable[..., Any], *args: Any) -> float:
    """The time that `fn(*args)` takes until its result is there."""
    began = time.perf_counter()
    jax.block_until_ready(fn(*args))
    return time.perf_counter() - began


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Repeat by repeat.

    >>> ratios([4.0, 9.0], [2.0, 3.0])
    [2.0, 3.0]
    """
    return [a / b for a, b in zip(above, below, strict=True)]


def temporary_bytes(compiled: Any) -> float:
    """Temporary memory of a compiled function on one device; NaN where the backend says nothing."""
    memory = compiled.memory_analysis()
    return float("nan") if memory is None else float(memory.temp_size_in_bytes)


def relative_gap(found: Any, expected: Any) -> float:
    """The largest difference of two pytrees, over the largest entry of the second."""
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True))
    gap = max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)
    return gap / max(float(np.abs(np.asarray(b)).max()) for _, b in pairs)
