"""Convolutions whose slow places on a CPU are matrix products.

XLA exchanges image and kernel where the kernel is the larger of the two. On a CPU that leaves the
fast code: a 3 x 3 convolution of a 3 x 2 map took twenty times as long as one of a 3 x 3 map. The
gradient of every kernel is such a convolution, with the map for a kernel: for 3 x 3 on maps of
32 x 32 x 64 it took two to sixteen times as long as the convolution itself, by the machine, and
half of that or less as products. Inside a loop (microbatches) XLA's takes twelve times longer
again, the products no longer.
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

from jaxssl.devices.chunking import part_size
from jaxssl.devices.sharding import by_share
from jaxssl.encoders import winograd

NARROW = 64  # taps times channels of a kernel that is one row
PLACES = 2048  # of the maps after a convolution that one product of its kernel's gradient takes
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
    a CPU takes the products of `winograd` where they suit, and else makes the gradient of W of
    products (`kernel_gradient`), unless it is small; forward-mode derivatives (`jax.jvp`) are not
    defined there.

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
    by_xla = functools.partial(_by_xla, plain=plain)
    if not winograd.suits(lhs, rhs, plain.strides, plain.padding):
        return by_xla(lhs, rhs)

    def in_few_products(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        return winograd.convolution(lhs, rhs, plain.padding, plain.precision)

    return jax.lax.platform_dependent(lhs, rhs, cpu=in_few_products, default=by_xla)


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
    return convolution(lhs, rhs, plain), (lhs, rhs)


def _backward(
    plain: Plain, kept: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    lhs, rhs = kept

    def image_by_xla(lhs: jax.Array, rhs: jax.Array, g: jax.Array) -> jax.Array:
        (found,) = jax.linear_transpose(lambda x: _by_xla(x, rhs, plain), lhs)(g)
        return found

    def kernel_by_xla(lhs: jax.Array, rhs: jax.Array, g: jax.Array) -> jax.Array:
        (found,) = jax.linear_transpose(lambda w: _by_xla(lhs, w, plain), rhs)(g)
        return found

    def by_xla(*arrays: jax.Array) -> tuple[jax.Array, jax.Array]:
        return image_by_xla(*arrays), kernel_by_xla(*arrays)

    def in_products(lhs: jax.Array, rhs: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        return image_by_xla(lhs, rhs, g), kernel_gradient(lhs, g, rhs.shape[:-2], plain)

    def in_few_products(
        lhs: jax.Array, rhs: jax.Array, g: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return (
            winograd.input_gradient(g, rhs, plain.padding, plain.precision),
            winograd.kernel_gradient(lhs, g, plain.padding, plain.precision),
        )

    if winograd.suits(lhs, rhs, plain.strides, plain.padding):
        on_cpu = in_few_products
    elif g.size * math.prod(rhs.shape[:-1]) >= WORTH:
        on_cpu = in_products
    else:
        return by_xla(lhs, rhs, g)
    return jax.lax.platform_dependent(lhs, rhs, g, cpu=on_cpu, default=by_xla)


convolution.defvjp(_forward, _backward)


def kernel_gradient(
    lhs: jax.Array, g: jax.Array, window: tuple[int, ...], plain: Plain
) -> jax.Array:
    """The gradient of a convolution's kernel as a product for each row of it, some samples a time.

      dW[t, i, o] = sum_{b, p} x[b, s p + t, i] g[b, p, o]

    Few enough samples that what a tap meets stays in the cache. Each device adds up its own.

    Args:
      lhs: x, [B, *spatial, I].
      g: gradient of the convolution's output, [B, *spatial', O].
      window: sides of the kernel.
      plain: strides s and padding.

    Returns:
      [*window, I, O].
    """
    channels, width, after = lhs.shape[-1], g.shape[-1], g.shape[1:-1]
    # The taps of a row of the kernel stand side by side; of a narrow one, all of them.
    beside = len(window) if math.prod(window) * channels <= NARROW else 1
    rows, columns = window[:-beside], window[-beside:]
    width_of_row = math.prod(columns) * channels

    def met(taps: Sequence[int], first: int) -> tuple[slice, ...]:
        """What some taps meet at every place after, along the axes of the map from `first` on."""
        axes = zip(taps, plain.strides[first:], after[first:])
        return tuple(slice(t, t + stride * (n - 1) + 1, stride) for t, stride, n in axes)

    def add(total: jax.Array, part: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        x, g = part
        x = jnp.pad(x, ((0, 0), *plain.padding, (0, 0)))
        every = itertools.product(*map(range, columns))
        x = jnp.concatenate([x[..., *met(taps, len(rows)), :] for taps in every], -1)
        turned = g.reshape(-1, width).T  # the smaller of the two
        products = [
            jnp.matmul(
                turned,
                x[:, *met(taps, 0)].reshape(-1, width_of_row),
                precision=plain.precision,
                preferred_element_type=jnp.float32,
            )
            for taps in itertools.product(*map(range, rows))
        ]
        return total + jnp.stack(products), None

    def of_samples(x: jax.Array, g: jax.Array) -> jax.Array:
        none = jnp.zeros((math.prod(rows), width, width_of_row), jnp.float32)
        count = part_size(len(x), PLACES // math.prod(after))
        parts = (a.reshape(-1, count, *a.shape[1:]) for a in (x, g))
        return jax.lax.scan(add, none, tuple(parts))[0]

    total = by_share(of_samples, lhs, g).sum(0)
    found = total.reshape(*rows, width, *columns, channels)
    return jnp.moveaxis(found, len(rows), -1).astype(g.dtype)


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
