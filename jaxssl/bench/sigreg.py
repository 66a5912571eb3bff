"""SIGReg, value and gradient: the library's, against its plain form through [N, S, T]."""

import functools
from typing import Any

import jax

from jaxssl.bench.measure import Measure, in_turn, ratios, relative_gap, seconds, temporary_bytes
from jaxssl.bench.workload import Workload
from jaxssl.losses import half_line_knots, random_directions, sigreg
from jaxssl.losses.reference import sigreg_plain
from jaxssl.report import human

GOAL = 3.0
# N samples, P projection width, S slices, T knots: the published scale, whatever the config.
SIZES = (2048, 128, 1024, 17)


def run(
    workload: Workload, repeats: int, sizes: tuple[int, int, int, int] = SIZES
) -> list[Measure]:
    """Time, temporary memory (at most three arrays of [N, S]) and agreement, on one device."""
    del workload
    n, p, s, t = sizes
    z = jax.random.normal(jax.random.key(0), (n, p))
    directions = random_directions(jax.random.key(1), p, s)
    knots, weights = half_line_knots(t)
    losses = {
        "fast": lambda z, a: sigreg(z, a, num_knots=t),
        "plain": lambda z, a: sigreg_plain(z, a, knots, weights),
    }
    fns: dict[str, Any] = {
        name: jax.jit(jax.value_and_grad(loss)).lower(z, directions).compile()
        for name, loss in losses.items()
    }
    (value, grad), (plain_value, plain_grad) = (fns[name](z, directions) for name in fns)
    sides = {name: functools.partial(seconds, fn, z, directions) for name, fn in fns.items()}
    found = in_turn(sides, repeats)
    memory = {name: temporary_bytes(fn) for name, fn in fns.items()}
    bound = 3.0 * n * s * 4
    return [
        Measure("plain over fast", ratios(found["plain"], found["fast"]), goal=(">=", GOAL)),
        Measure("fast seconds", found["fast"], human.duration),
        Measure("plain seconds", found["plain"], human.duration),
        Measure("fast temporary bytes", [memory["fast"]], human.size, ("<=", bound)),
        Measure("plain temporary bytes", [memory["plain"]], human.size),
        Measure("value relative gap", [relative_gap(value, plain_value)]),
        Measure("gradient relative gap", [relative_gap(grad, plain_grad)]),
    ]
