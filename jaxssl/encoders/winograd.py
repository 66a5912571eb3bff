"""3 x 3 convolutions in fewer multiplications, for CPUs: minimal filtering in two dimensions.

A tile of m x m places takes n x n products for each pair of channels, n = m + 2, where the sum over
taps takes 9 m^2: for m = 2 four ninths as many, for m = 4 a quarter. With * by element,

  Y = A [(G W G^T) * (C X C^T)] A^T        X [n, n] of the map, W [3, 3], Y [m, m], channels summed
  dW = G^T [(A^T dY A) * (C X C^T)] G      tiles summed

The products of all tiles are n^2 products of matrices, which is what a CPU does best. Winograd
1980, "Arithmetic complexity of computations"; Lavin, Gray 2015, "Fast algorithms for convolutional
neural networks", arXiv:1509.09308.
"""

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxssl.devices.chunking import part_size
from jaxssl.devices.sharding import by_share

TAPS = 3
# m -> where its polynomials are evaluated, beside infinity. Of those tried for m = 4 these round
# least: 6e-7 of the result's deviation, where 0, 1, -1, 2, -2 give 1.3e-6, m = 2 gives 2e-7 and the
# sum over taps 1e-7.
POINTS = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2)),
}
# m of each use. For maps, 4 saves no more time than 2: its transforms take what its products save.
OF_MAPS, OF_KERNELS = 2, 4
CHANNELS = 32  # on each side; with 16 the transforms take longer than the products save
WORTH = 2**23  # multiplications of a sample; with half of them little was gained
IN_CACHE = 2**19  # numbers of a map that are transformed at a time

Padding = Sequence[tuple[int, int]]


class Transforms(NamedTuple):
    """Matrices of a tile: C [n, n] of its input, G [n, 3] of the kernel, A [m, n] of the output."""

    inputs: NDArray[Any]
    kernel: NDArray[Any]
    output: NDArray[Any]


@functools.cache
def transforms(side: int) -> Transforms:
    """Those of Toom and Cook for tiles of m = `side`.

    >>> c, g, a = transforms(2)
    >>> x, w = np.array([1.0, 2.0, 4.0, 8.0]), np.array([1.0, 0.0, -1.0])
    >>> a @ ((g @ w) * (c @ x))  # x[0] - x[2] and x[1] - x[3]
    array([-3., -6.])
    """
    points = POINTS[side]
    inputs, kernel = [], []
    for point in points:
        others = [p for p in points if p != point]
        scale = math.prod(point - p for p in others)
        inputs.append([*_polynomial(others), Fraction(0)])
        kernel.append([point**k / scale for k in range(TAPS)])
    inputs.append(_polynomial(points))
    kernel.append([Fraction(k == TAPS - 1) for k in range(TAPS)])
    output = [[*(p**k for p in points), Fraction(k == side - 1)] for k in range(side)]
    return Transforms(*(np.array(matrix, np.float64) for matrix in (inputs, kernel, output)))


def _polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of prod(x - root), the constant first."""
    found = [Fraction(1)]
    for root in roots:
        pairs = zip([Fraction(0), *found], [*found, Fraction(0)])
        found = [lower - root * same for lower, same in pairs]
    return found


def suits(lhs: jax.Array, rhs: jax.Array, strides: Sequence[int], padding: Padding) -> bool:
    """Whether a convolution of lhs [B, H, W, I] with rhs [kh, kw, I, O] is worth these products.

    It does not depend on B, so that a sample's numbers do not; but an open batch size, as exported
    programs have, cannot be cut into parts.
    """
    known = isinstance(lhs.shape[0], int)
    if not known or rhs.shape[:-2] != (TAPS, TAPS) or tuple(strides) != (1, 1):
        return False
    single = lhs.dtype == rhs.dtype == jnp.float32
    inside = all(0 <= pad < TAPS for pads in padding for pad in pads)
    worth = math.prod(lhs.shape[1:3]) * math.prod(rhs.shape) >= WORTH
    return single and inside and worth and min(rhs.shape[-2:]) >= CHANNELS


def convolution(x: jax.Array, w: jax.Array, padding: Padding, precision: Any = None) -> jax.Array:
    """x [B, H, W, I] with w [3, 3, I, O], stride 1 -> [B, H', W', O]."""
    kernel = _transformed(w, transforms(OF_MAPS).kernel)
    return _convolved(x, kernel, padding, precision)


def input_gradient(
    g: jax.Array, w: jax.Array, padding: Padding, precision: Any = None
) -> jax.Array:
    """The gradient of x, of a convolution's output's g [B, H', W', O] -> [B, H, W, I]."""
    flipped = transforms(OF_MAPS).kernel[:, ::-1]
    kernel = _transformed(w, flipped).transpose(0, 2, 1)
    return _convolved(g, kernel, [(TAPS - 1 - a, TAPS - 1 - b) for a, b in padding], precision)


def kernel_gradient(
    x: jax.Array, g: jax.Array, padding: Padding, precision: Any = None
) -> jax.Array:
    """The gradient of w -> [3, 3, I, O]; each device adds up its own samples."""
    inputs, kernel, output = transforms(OF_KERNELS)
    counts = _counts(g.shape[1:3], OF_KERNELS)

    def add(total: jax.Array, part: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        x, g = part
        seen = _of_tiles(x, inputs, OF_KERNELS, counts, padding)
        asked = _of_tiles(g, output.T, OF_KERNELS, counts, ((0, 0), (0, 0)))
        products = jnp.einsum("kpi,kpo->kio", seen, asked, precision=precision)
        return total + products, None

    def of_samples(x: jax.Array, g: jax.Array) -> jax.Array:
        total = jnp.zeros((len(inputs) ** 2, x.shape[-1], g.shape[-1]), jnp.float32)
        count = _at_a_time(x, total.size)
        parts = (a.reshape(-1, count, *a.shape[1:]) for a in (x, g))
        total, _ = jax.lax.scan(add, total, tuple(parts))
        return _product(np.kron(kernel, kernel).T, total)

    total = by_share(of_samples, x, g).sum(0)
    return total.reshape(TAPS, TAPS, *total.shape[1:])


def _convolved(x: jax.Array, kernel: jax.Array, padding: Padding, precision: Any) -> jax.Array:
    """x [B, H, W, I] with a transformed kernel [n^2, I, O]."""
    inputs, _, output = transforms(OF_MAPS)
    after = [n + sum(pad) - TAPS + 1 for n, pad in zip(x.shape[1:3], padding)]
    counts = _counts(after, OF_MAPS)
    width = kernel.shape[-1]

    def of_part(x: jax.Array) -> jax.Array:
        seen = _of_tiles(x, inputs, OF_MAPS, counts, padding)
        products = jnp.matmul(seen, kernel, precision=precision)
        y = products.reshape(*inputs.shape, -1, *counts, width)
        y = _mixed(output, list(y), 0)
        y = _mixed(output, list(jnp.moveaxis(y, 1, 0)), 1)
        y = y.transpose(2, 3, 0, 4, 1, 5).reshape(len(x), *(OF_MAPS * n for n in counts), width)
        return y[:, : after[0], : after[1]]

    def of_samples(x: jax.Array) -> jax.Array:
        parts = x.reshape(-1, _at_a_time(x, kernel.size), *x.shape[1:])
        return jax.lax.map(of_part, parts).reshape(len(x), *after, width)

    return by_share(of_samples, x).reshape(len(x), *after, width)


def _at_a_time(x: jax.Array, kernel: int) -> int:
    """How many samples of x [B, H, W, I] to transform at a time: as many as stay in the cache.

    More where `kernel`, the numbers of the transformed kernel, does not stay there itself: each
    part reads it anew.
    """
    return part_size(len(x), max(IN_CACHE, kernel // 2) // math.prod(x.shape[1:]))


def _transformed(w: jax.Array, matrix: NDArray[Any]) -> jax.Array:
    """[3, 3, I, O] -> [n^2, I, O]."""
    return _product(np.kron(matrix, matrix), w.reshape(TAPS**2, *w.shape[2:]))


def _product(matrix: NDArray[Any], x: jax.Array) -> jax.Array:
    """[a, b], [b, ...] -> [a, ...]."""
    y = jnp.matmul(matrix.astype(np.float32), x.reshape(len(x), -1), precision="highest")
    return y.reshape(-1, *x.shape[1:])


def _counts(after: Sequence[int], side: int) -> tuple[int, int]:
    """How many tiles lie along each side of a map; the last ones may reach beyond it."""
    rows, columns = after
    return -(-rows // side), -(-columns // side)


def _of_tiles(
    x: jax.Array,
    matrix: NDArray[Any],
    step: int,
    counts: tuple[int, int],
    padding: Padding,
) -> jax.Array:
    """matrix @ tile @ matrix^T of tiles `step` apart: for each element of it, [tiles, C]."""
    side = matrix.shape[1]
    reach = [step * (count - 1) + side for count in counts]
    pads = [(low, n - low - size, 0) for n, (low, _), size in zip(reach, padding, x.shape[1:3])]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    rows, columns = (step * (count - 1) + 1 for count in counts)
    x = _mixed(matrix, [x[:, i : i + rows : step] for i in range(side)], 0)
    x = _mixed(matrix, [x[:, :, :, j : j + columns : step] for j in range(side)], 1)
    return x.reshape(len(matrix) ** 2, -1, x.shape[-1])


def _mixed(matrix: NDArray[Any], parts: Sequence[jax.Array], axis: int) -> jax.Array:
    """matrix @ parts along a new axis, without what is multiplied by 0."""
    rows = []
    for row in matrix:
        terms = [part if f == 1 else part * np.float32(f) for f, part in zip(row, parts) if f]
        rows.append(functools.reduce(jnp.add, terms))
    return jnp.stack(rows, axis)
