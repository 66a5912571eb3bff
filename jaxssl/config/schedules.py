"""Schedules: pure functions of the step, made from a number or a plain tuple.

Every field that takes a number (a learning rate, a decay, a temperature, a loss weight, ...) also
takes one of these tuples; `steps` is the length of the run and t = step / steps, at most 1.

| spec | value at `step` |
|---|---|
| `3.0` or `("constant", v)` | v |
| `("linear", a, b)` | a + (b - a) t |
| `("cosine", a, b)` | b + (a - b) (1 + cos πt) / 2 |
| `("exponential", a, b)` | a (b / a)^t, both positive |
| `("polynomial", a, power)` | a (1 - t)^power |
| `("warmup_cosine", peak, warmup, end=0)` | peak (step + 1) / warmup, then a cosine to `end` |
| `("warmup_linear", peak, warmup, end=0)` | the same warm-up, then a line to `end` |
| `("warmup_cap", cap)` | min(1 - 1 / (step + 1), cap) |
| `("piecewise", v0, (step1, v1), ...)` | v0 before step1, v1 from step1 on, ... |
| `("infinite", peak, constant, end, warmup, cooldown, hold)` | see `infinite` |
| `("part", first, total, spec)` | `spec` of a run of `total` steps, at `step + first` |

A warm-up is counted in steps and its step 0 is already positive, so that no step is wasted. It may
be longer than the run, which then ends before the peak.

Each stage of a run counts its own steps from 0; with "part" all of them read one schedule, e.g.
`("part", 600, 1000, ("warmup_cosine", 1e-3, 50))` in the stage that follows the first 600 steps.
"""

import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError, near

Schedule = Callable[[Any], jax.Array]


def constant(steps: int, value: float) -> Schedule:
    """The same value at every step."""
    return lambda step: jnp.full((), value, jnp.float32)


def linear(steps: int, start: float, end: float) -> Schedule:
    """A line from `start` at step 0 to `end` at step `steps`."""
    return lambda step: start + (end - start) * _fraction(step, 0, steps)


def cosine(steps: int, start: float, end: float) -> Schedule:
    """Half a cosine from `start` to `end` (Loshchilov & Hutter 2017, arXiv:1608.03983)."""
    return lambda step: _half_cosine(start, end, _fraction(step, 0, steps))


def exponential(steps: int, start: float, end: float) -> Schedule:
    """A geometric path from `start` to `end`, both positive."""
    _positive(start=start, end=end)
    return lambda step: start * (end / start) ** _fraction(step, 0, steps)


def polynomial(steps: int, start: float, power: float) -> Schedule:
    """start (1 - t)^power, zero at step `steps`; 0.9 is the custom of segmentation."""
    _positive(power=power)
    return lambda step: start * (1 - _fraction(step, 0, steps)) ** power


def warmup_cosine(steps: int, peak: float, warmup: int, end: float = 0.0) -> Schedule:
    """Linear warm-up over `warmup` steps to `peak`, then half a cosine to `end` at step `steps`."""
    return _warmed(peak, warmup, lambda s: _half_cosine(peak, end, _fraction(s, warmup, steps)))


def warmup_linear(steps: int, peak: float, warmup: int, end: float = 0.0) -> Schedule:
    """Linear warm-up over `warmup` steps to `peak`, then a line to `end` at step `steps`."""
    return _warmed(peak, warmup, lambda s: peak + (end - peak) * _fraction(s, warmup, steps))


def warmup_cap(steps: int, cap: float) -> Schedule:
    """min(1 - 1 / (step + 1), cap), the decay that makes an average out of an exponential one.

    0 at step 0 (the average is overwritten), then the plain mean of everything seen, then the cap.
    """
    return lambda step: jnp.minimum(1.0 - 1.0 / (_float(step) + 1.0), cap)


def piecewise(steps: int, first: float, *changes: tuple[int, float]) -> Schedule:
    """Constant pieces: `first`, then each `(step, value)` from its step on; steps increase."""
    starts = [start for start, _ in changes]
    if starts != sorted(set(starts)) or any(start <= 0 for start in starts):
        raise ValueError(f"steps {tuple(starts)}, expected positive and increasing")

    def schedule(step: Any) -> jax.Array:
        value = jnp.full((), first, jnp.float32)
        for start, after in changes:
            value = jnp.where(jnp.asarray(step) >= start, after, value)
        return value

    return schedule


def infinite(
    steps: int,
    peak: float,
    constant: float,
    end: float,
    warmup: float,
    cooldown: float,
    hold: float,
) -> Schedule:
    """Warm-up, cool-down, a constant phase of any length, annealing.

    With t = step / steps, and warmup <= cooldown <= hold the *ends* of the phases as fractions of
    the run: peak t / warmup; then half a cosine from peak to constant; then constant; after `hold`,
    constant (end / constant)^((t - hold) / (1 - hold)). Reference: "Beyond Cosine Decay: On the
    effectiveness of Infinite Learning Rate Schedule for Continual Pre-training", 2025.

    A later task has no warm-up, `("infinite", constant, constant, end, 0, 0, hold)`, and starts
    from the parameters saved at the end of the constant phase.
    """
    if not 0 <= warmup <= cooldown <= hold <= 1:
        raise ValueError(
            f"warmup, cooldown, hold are {warmup}, {cooldown}, {hold}, expected to rise in [0, 1]"
        )
    _positive(constant=constant, end=end)

    def schedule(step: Any) -> jax.Array:
        t = _fraction(step, 0, steps)
        value = _half_cosine(peak, constant, _ramp(t, warmup, cooldown))
        value = jnp.where(t < warmup, peak * _ramp(t, 0.0, warmup), value)
        return jnp.where(t > hold, constant * (end / constant) ** _ramp(t, hold, 1.0), value)

    return schedule


def part(steps: int, first: int, total: int, spec: Any) -> Schedule:
    """A window onto a longer run: the schedule `spec` of `total` steps, read at step + `first`."""
    for name, value in (("first", first), ("total", total)):
        if not _is_number(value) or value != int(value):
            raise ValueError(f"{name} is {value!r}, expected a whole number of steps")
    if not 0 <= first < total:
        raise ValueError(f"first is {first}, expected from 0 to below total, {total}")
    whole = make(spec, total, "spec")
    return lambda step: whole(jnp.asarray(step) + int(first))


KINDS: Mapping[str, Callable[..., Schedule]] = {
    fn.__name__: fn
    for fn in (
        constant,
        linear,
        cosine,
        exponential,
        polynomial,
        warmup_cosine,
        warmup_linear,
        warmup_cap,
        piecewise,
        infinite,
        part,
    )
}


def make(spec: Any, steps: int, field: str = "schedule") -> Schedule:
    """`spec`, a number, a tuple of the table above or a callable, as a function of the step.

    Args:
      spec: what the config holds.
      steps: length of the run, in steps.
      field: the config field, for the error message.

    Returns:
      step (int or int32 array) -> float32 scalar; can be traced.

    Raises:
      ConfigError: unknown kind, wrong number of values, or values out of range.

    >>> round(float(make(("warmup_cosine", 1.0, 10, 0.0), 110)(60)), 6)
    0.5
    """
    if _is_number(spec):
        spec = ("constant", spec)
    if callable(spec):
        fn = spec
    elif isinstance(spec, (tuple, list)) and spec and isinstance(spec[0], str):
        fn = _build(spec, steps, field)
    else:
        raise ConfigError(f"{field} is {spec!r}, expected a finite number or (kind, value, ...)")
    return lambda step: jnp.asarray(fn(step), jnp.float32)


def is_spec(value: Any) -> bool:
    """Whether a config value is a schedule by its form: a tuple that begins with a name.

    >>> is_spec(("cosine", 0.99, 1.0)), is_spec((0.3, 1.0)), is_spec(0.99)
    (True, False, False)
    >>> is_spec(("part", 0, 100, ("cosine", 0.99, 1.0)))
    True
    """
    return isinstance(value, tuple) and bool(value) and isinstance(value[0], str)


def half_life(decay: float) -> float:
    """Steps after which an exponential average has forgotten half: log(1/2) / log(decay).

    0 where the decay is 0 or less, infinite where it is 1 or more.

    >>> round(half_life(0.996))
    173
    """
    if decay <= 0:
        return 0.0
    return math.inf if decay >= 1 else math.log(0.5) / math.log(decay)


def _build(spec: tuple[Any, ...] | list[Any], steps: int, field: str) -> Schedule:
    name, values = spec[0], spec[1:]
    if name not in KINDS:
        raise ConfigError(f"{field} has the unknown schedule {name!r}{near(name, KINDS)}")
    parameters = list(inspect.signature(KINDS[name]).parameters.values())[1:]
    usage = ", ".join([repr(name), *(str(p).split(":")[0] for p in parameters)])
    wrong = ConfigError(f"{field} is {tuple(spec)!r}, expected ({usage}) with numbers")
    if name == "piecewise":
        changes = values[1:]
        if not all(isinstance(c, (tuple, list)) and len(c) == 2 for c in changes):
            raise ConfigError(
                f"{field} is {tuple(spec)!r}, expected ('piecewise', first, (step, value), ...)"
            )
        flat = [*values[:1], *(v for change in changes for v in change)]
        least, most = 1, math.inf
    else:
        flat = list(values[:2] if name == "part" else values)  # the third is a schedule itself
        least, most = sum(p.default is p.empty for p in parameters), len(parameters)
    if not (least <= len(values) <= most and all(_is_number(v) for v in flat)):
        raise wrong
    try:
        return KINDS[name](steps, *values)
    except ValueError as error:
        raise ConfigError(f"{field} ({name}): {error}") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{name} is {value}, expected a positive number")


def _float(step: Any) -> jax.Array:
    return jnp.asarray(step, jnp.float32)


def _ramp(x: Any, start: float, stop: float) -> jax.Array:
    """0 up to `start`, 1 from `stop`, a line between; a step at `stop` where the two are equal."""
    if stop <= start:
        return jnp.where(x >= stop, 1.0, 0.0)
    return jnp.clip((x - start) / (stop - start), 0.0, 1.0)


def _fraction(step: Any, start: int, stop: int) -> jax.Array:
    return _ramp(_float(step), start, stop)


def _half_cosine(start: float, end: float, t: jax.Array) -> jax.Array:
    return end + (start - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * t))


def _warmed(peak: float, warmup: int, after: Schedule) -> Schedule:
    if warmup != int(warmup) or warmup < 0:
        raise ValueError(f"warmup is {warmup}, expected a whole number of steps")

    def schedule(step: Any) -> jax.Array:
        rise = peak * (_float(step) + 1.0) / max(warmup, 1)
        return jnp.where(jnp.asarray(step) < warmup, rise, after(step))

    return schedule
