"""Convolutions whose slow places on a CPU are matrix products.

XLA exchanges image and kernel where the kernel is the larger of the two. On a CPU that leaves the
fast code: a 3 x 3 convolution of a 3 x 2 map took twenty times as long as one of a 3 x 3 map. The
gradient of every kernel is such a convolution, with the map for a kernel: for 3 x 3 on maps of
32 x 32 x 64 it took sixteen times as long as the convolution itself, as a product 1.4 times (4.3
times without the large pages of `jaxssl.runtime`). Inside a loop (microbatches) XLA's takes twelve
times longer again, the product no longer.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

ROWS = 256  # of the left side of a product, at most, where one row of taps has fewer
# Multiplications under which a gradient is left to XLA: it takes tens of milliseconds then in any
# form, and the products take longer to compile.
WORTH = 2**26


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

    is a product with a matrix that holds each tap of W at every pair of places it joins. Elsewhere
    the gradient of W is a product on a CPU (`kernel_gradient`), unless it is small; forward-mode
    derivatives (`jax.jvp`) are not defined then.

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
    if dilated or grouped:
        return jax.lax.conv_general_dilated(
            lhs, rhs, window_strides, padding, precision=precision, **more
        )
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(spatial, window, window_strides, padding)
    if math.prod(spatial) >= math.prod(window):
        plain = Plain(tuple(window_strides), tuple((low, high) for low, high in padding), precision)
        return convolution(lhs, rhs, plain)
    after, joined = taps(spatial, window, window_strides, padding)
    channels, width = rhs.shape[-2:]
    # Taps are only put in their places: in the kernel's own type, and without rounding.
    places, kernel = jnp.asarray(joined, rhs.dtype), rhs.reshape(-1, channels, width)
    matrix = jnp.einsum("qpt,tio->qipo", places, kernel, precision="highest")
    rows = math.prod(spatial) * channels
    y = jnp.matmul(lhs.reshape(-1, rows), matrix.reshape(rows, -1), precision=precision)
    return y.reshape(-1, *after, width)


class Plain(NamedTuple):
    """What a convolution without dilation and groups is told beside its arrays."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    precision: Any = None


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolution(lhs: jax.Array, rhs: jax.Array, plain: Plain) -> jax.Array:
    """[B, *spatial, I], [*window, I, O] -> [B, *spatial', O]; see `conv_general_dilated`."""
    return _by_xla(lhs, rhs, plain)


def _by_xla(lhs: jax.Array, rhs: jax.Array, plain: Plain) -> jax.Array:
    last = lhs.ndim - 1
    image, kernel = (0, last, *range(1, last)), (last, last - 1, *range(last - 1))
    return jax.lax.conv_general_dilated(
        lhs,
        rhs,
        plain.strides,
        plain.padding,
        dimension_numbers=jax.lax.ConvDimensionNumbers(image, kernel, image),
        precision=plain.precision,
    )


def _forward(
    lhs: jax.Array, rhs: jax.Array, plain: Plain
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _by_xla(lhs, rhs, plain), (lhs, rhs)


def _backward(
    plain: Plain, kept: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    lhs, rhs = kept
    (of_image,) = jax.linear_transpose(lambda x: _by_xla(x, rhs, plain), lhs)(g)

    def as_convolution(lhs: jax.Array, g: jax.Array) -> jax.Array:
        (found,) = jax.linear_transpose(lambda w: _by_xla(lhs, w, plain), rhs)(g)
        return found

    def as_products(lhs: jax.Array, g: jax.Array) -> jax.Array:
        return kernel_gradient(lhs, g, rhs.shape[:-2], plain)

    if g.size * math.prod(rhs.shape[:-1]) < WORTH:
        return of_image, as_convolution(lhs, g)
    return of_image, jax.lax.platform_dependent(lhs, g, cpu=as_products, default=as_convolution)


convolution.defvjp(_forward, _backward)


def kernel_gradient(
    lhs: jax.Array, g: jax.Array, window: tuple[int, ...], plain: Plain
) -> jax.Array:
    """The gradient of a convolution's kernel as one product for each few rows of it.

      dW[t, i, o] = sum_{b, p} x[b, s p + t, i] g[b, p, o]

    Args:
      lhs: x, [B, *spatial, I].
      g: gradient of the convolution's output, [B, *spatial', O].
      window: sides of the kernel.
      plain: strides s and padding.

    Returns:
      [*window, I, O].
    """
    channels, width = lhs.shape[-1], g.shape[-1]
    after = g.shape[1:-1]
    # Channels first: both arrays are then read along their lines by the product.
    x = jnp.moveaxis(jnp.pad(lhs, ((0, 0), *plain.padding, (0, 0))), -1, 0)

    def seen(tap: tuple[int, ...]) -> jax.Array:
        """[I, B * P]: what the tap meets at every place after."""
        ends = [t + s * (n - 1) + 1 for t, s, n in zip(tap, plain.strides, after)]
        slices = map(slice, tap, ends, plain.strides)
        return x[:, :, *slices].reshape(channels, -1)

    every = list(itertools.product(*map(range, window)))
    step = window[-1] * max(1, ROWS // (window[-1] * channels))
    g = g.reshape(-1, width)
    products = [
        jnp.matmul(
            jnp.concatenate([seen(tap) for tap in every[i : i + step]]),
            g,
            precision=plain.precision,
        )
        for i in range(0, len(every), step)
    ]
    return jnp.concatenate(products).reshape(*window, channels, width)


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
