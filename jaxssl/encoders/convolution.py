"""Convolutions of maps that are smaller than the kernel, as one matrix product.

XLA exchanges image and kernel where the kernel is the larger of the two. On a CPU that leaves the
fast code: a 3 x 3 convolution of a 3 x 2 map took twenty times as long as one of a 3 x 3 map.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    precision: Any = None,
    **more: Any,
) -> jax.Array:
    """`jax.lax.conv_general_dilated` as flax calls it, for `Conv`.

    Where a map [*spatial] has fewer places than the kernel and nothing is dilated or grouped,

      y[b, p, o] = sum_{q, i} x[b, q, i] W[q - p, i, o]

    is a product with a matrix that holds each tap of W at every pair of places it joins.

    Args:
      lhs: [B, *spatial, I].
      rhs: [*window, I, O].
      window_strides, padding: as of `jax.lax`.
      precision: of the product.
      more: the other arguments of `jax.lax`.

    Returns:
      [B, *spatial', O].
    """
    spatial, window = lhs.shape[1:-1], rhs.shape[:-2]
    dilated = {*(more.get("lhs_dilation") or (1,)), *(more.get("rhs_dilation") or (1,))} != {1}
    grouped = more.get("feature_group_count", 1) != 1
    if dilated or grouped or math.prod(spatial) >= math.prod(window):
        return jax.lax.conv_general_dilated(
            lhs, rhs, window_strides, padding, precision=precision, **more
        )
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(spatial, window, window_strides, padding)
    after, joined = taps(spatial, window, window_strides, padding)
    channels, width = rhs.shape[-2:]
    # Taps are only put in their places: in the kernel's own type, and without rounding.
    places, kernel = jnp.asarray(joined, rhs.dtype), rhs.reshape(-1, channels, width)
    matrix = jnp.einsum("qpt,tio->qipo", places, kernel, precision="highest")
    rows = math.prod(spatial) * channels
    y = jnp.matmul(lhs.reshape(-1, rows), matrix.reshape(rows, -1), precision=precision)
    return y.reshape(-1, *after, width)


def taps(
    spatial: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
) -> tuple[tuple[int, ...], NDArray[np.float32]]:
    """The places after a convolution, and which tap joins each place before with each after.

    Args:
      spatial: sides of the map before.
      window: sides of the kernel.
      strides: steps between the places after.
      pads: places added before and behind on every side.

    Returns:
      Sides of the map after; [Q, P, T] of 0 and 1, with places and taps in row-major order.

    >>> taps((2,), (3,), (1,), ((1, 1),))[1].argmax(-1)
    array([[1, 0],
           [2, 1]])
    """
    sides = zip(spatial, window, strides, pads)
    after = tuple((n + sum(pad) - k) // stride + 1 for n, k, stride, pad in sides)
    joined = np.zeros((math.prod(spatial), math.prod(after), math.prod(window)), np.float32)
    places = lambda shape: enumerate(itertools.product(*map(range, shape)))
    for (q, before), (p, behind) in itertools.product(places(spatial), places(after)):
        at = [b - s * stride + pad[0] for b, s, stride, pad in zip(before, behind, strides, pads)]
        if all(0 <= i < k for i, k in zip(at, window)):
            joined[q, p, np.ravel_multi_index(at, window)] = 1
    return after, joined


# `flax.linen.Conv`, for encoders and heads whose maps may become small.
Conv = functools.partial(nn.Conv, conv_general_dilated=conv_general_dilated)
