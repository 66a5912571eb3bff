"""Where the pixels of a view come from: crops, resizing, flips, affine and elastic warps.

Every function works on the planes [c, h, w] of one image in float32: with channels last a CPU takes
1.6 times as long for all views. Boxes and coordinates may be traced, shapes are static, so that
`jax.vmap` over samples and views and `jax.jit` over a mesh apply, without any communication where
the batch is sharded. Crops and resizing are products with separable weights: antialiased and exact
for whole-pixel moves. Of many images, under `jax.vmap`, they are dense, which is fast on matrix
units; of a single one a CPU takes bands of them (`in_bands`). Only a warp gathers.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxssl.modalities.image.alone import alone_or_many

CROP_TRIES = 10
"""Candidate boxes of a random resized crop before the centre fallback."""

MATMUL = lax.Precision.HIGH
"""Precision of products with pixels."""

BAND = 24
"""Places of the result that one product of a band makes."""


def _hat(x: jax.Array) -> jax.Array:
    """The linear interpolation kernel, max(0, 1 - |x|)."""
    return jnp.maximum(0.0, 1.0 - jnp.abs(x))


def _cubic(x: jax.Array) -> jax.Array:
    """Keys' cubic interpolation kernel with a = -1/2, zero outside [-2, 2]."""
    x = jnp.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return jnp.where(x < 1.0, near, jnp.where(x < 2.0, far, 0.0))


KERNELS = {"bilinear": _hat, "bicubic": _cubic}
"""Resampling method -> interpolation kernel."""

REACH = {"bilinear": 1.0, "bicubic": 2.0}
"""Resampling method -> where its kernel ends."""


def resize_weights(
    start: jax.Array | float,
    extent: jax.Array | float,
    source: int,
    size: int,
    method: str = "bilinear",
) -> jax.Array:
    """Weights [size, source] that resample the pixels [start, start + extent) of one axis.

    Row o is k((i + 1/2 - c_o) / max(1, s)) over the pixels i inside the box, normalised to sum 1,
    with s = extent / size and c_o = start + (o + 1/2) s. Widening the kernel by s where it shrinks
    is the antialiasing of PIL, `jax.image.resize` and torchvision; pixels outside the box get no
    weight, as if the box had been cut out first.

    >>> (7 * resize_weights(0, 4, 4, 2)).round().tolist()
    [[3.0, 3.0, 1.0, 0.0], [0.0, 1.0, 3.0, 3.0]]
    """
    return _weights(_Axis(start, extent), jnp.arange(source), jnp.arange(size), size, method)


class _Axis(NamedTuple):
    """What a crop keeps of one axis, and whether it turns it around."""

    start: jax.Array | float
    extent: jax.Array | float
    mirrored: jax.Array | bool = False

    def centres(self, out: jax.Array, size: int) -> jax.Array:
        """Where the pixels `out` of `size` lie in the image."""
        out = jnp.where(self.mirrored, size - 1 - out, out)
        return self.start + (out + 0.5) * (jnp.asarray(self.extent, jnp.float32) / size)


def _weights(axis: _Axis, pixels: jax.Array, out: jax.Array, size: int, method: str) -> jax.Array:
    """The weights of `resize_weights` for some pixels of both sides, [out, pixels]."""
    scale = jnp.asarray(axis.extent, jnp.float32) / size
    pixel = pixels + 0.5
    distance = pixel - axis.centres(out, size)[:, None]
    weights = KERNELS[method](distance / jnp.maximum(scale, 1.0))
    inside = (pixel > axis.start) & (pixel < axis.start + axis.extent)
    weights = jnp.where(inside, weights, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def separable(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Apply weights along both axes: [a, h], [b, w] on planes [c, h, w] -> [c, a, b].

    For many views of one image: under `jax.vmap` over weights alone the first is one large product.
    """
    out = jnp.einsum("ah,chw->acw", rows, image, precision=MATMUL)
    out = jnp.einsum("acw,bw->acb", out, columns, precision=MATMUL)
    return jnp.moveaxis(out, 1, 0)


def resize(image: jax.Array, size: int, method: str = "bilinear") -> jax.Array:
    """Antialiased resize of a whole image to [c, size, size]; the image itself where it fits."""
    _, height, width = image.shape
    if (height, width) == (size, size):
        return image
    return resized_crop(image, (0, 0, height, width), size, method)


def resized_crop(
    image: jax.Array,
    box: tuple[jax.Array | int, ...],
    size: int,
    method: str = "bilinear",
    *,
    most: tuple[int, ...] = (),
    mirrored: tuple[jax.Array | bool, ...] = (False, False),
) -> jax.Array:
    """Cut out `box` = (top, left, height, width), then resize it, antialiased, to [c, size, size].

    Bicubic weights overshoot, so its result is clipped to [0, 1].

    Args:
      image: [c, h, w].
      box: in pixels.
      size: of the result.
      method: of `KERNELS`.
      most: (height, width) that no box exceeds; default the image's.
      mirrored: whether the result is turned upside down, and left to right.
    """
    _, *sides = image.shape
    most = most or tuple(sides)

    def axes(box: jax.Array, mirrored: jax.Array) -> list[_Axis]:
        return [_Axis(box[i], box[2 + i], mirrored[i]) for i in range(2)]

    def dense(image: jax.Array, box: jax.Array, mirrored: jax.Array) -> jax.Array:
        rows, columns = (
            _weights(axis, jnp.arange(side), jnp.arange(size), size, method)
            for axis, side in zip(axes(box, mirrored), sides, strict=True)
        )
        return separable(image, rows, columns)

    def banded(image: jax.Array, box: jax.Array, mirrored: jax.Array) -> jax.Array:
        # No more of the image than a box may hold.
        kept = [min(pair) for pair in zip(sides, most, strict=True)]
        first = [jnp.clip(box[i], 0, sides[i] - kept[i]) for i in range(2)]
        image = lax.dynamic_slice(image, (0, *first), (len(image), *kept))
        for i, axis in enumerate(axes(box, mirrored)):
            axis = axis._replace(start=axis.start - first[i])
            image = _resampled(image, axis, i - 2, size, method, most[i])
        return image

    out = alone_or_many(banded, dense)(image, jnp.stack(box), jnp.stack(mirrored))
    return jnp.clip(out, 0.0, 1.0) if method == "bicubic" else out


def _resampled(
    image: jax.Array, axis: _Axis, along: int, size: int, method: str, most: int
) -> jax.Array:
    """One axis of [c, h, w], -2 or -1, resampled to `size`; `most` is the largest extent."""
    source = image.shape[along]
    largest = max(1.0, most / size)
    reach = REACH[method] * largest

    def band(first: int, stop: int) -> tuple[jax.Array, jax.Array]:
        out = jnp.arange(first, stop)
        ends = axis.centres(jnp.array([first, stop - 1]), size)
        width = min(source, math.ceil((stop - first) * largest + 2 * reach) + 2)
        begin = jnp.floor(ends.min() - reach - 0.5).astype(jnp.int32)
        begin = jnp.clip(begin, 0, source - width)
        return begin, _weights(axis, begin + jnp.arange(width), out, size, method)

    return in_bands(image, size, along, band)


def in_bands(
    image: jax.Array,
    size: int,
    along: int,
    band: Callable[[int, int], tuple[jax.Array | int, jax.Array]],
) -> jax.Array:
    """Products along one axis of [c, h, w], -2 or -1, with weights that are zero but in a band.

    Args:
      image: the planes.
      size: of the axis afterwards.
      along: the axis.
      band: the first and the last but one of some places of the result -> the first pixel that
        they read, and their weights [places, pixels].
    """
    parts = []
    for first in range(0, size, BAND):
        begin, weights = band(first, min(first + BAND, size))
        window = lax.dynamic_slice_in_dim(image, begin, weights.shape[1], along)
        if along == -2:
            # A product for each plane: in one for all, an image would be copied to other places.
            planes = jnp.broadcast_to(weights, (len(image), *weights.shape))
            parts.append(jnp.matmul(planes, window, precision=MATMUL))
        else:
            parts.append(jnp.matmul(window, weights.T, precision=MATMUL))
    return jnp.concatenate(parts, along)


def largest_crop(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int]:
    """The (height, width) that no box of `sample_crop_box` exceeds.

    >>> largest_crop(256, 256, (0.05, 0.3), (3 / 4, 4 / 3))
    (162, 162)
    """
    area = scale[1] * height * width
    tall, wide = math.sqrt(area / ratio[0]), math.sqrt(area * ratio[1])
    if tall > height or wide > width:  # a candidate may not fit, and then the box is another one
        return height, width
    return min(height, math.ceil(tall)), min(width, math.ceil(wide))


def sample_crop_box(
    key: jax.Array,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The integer box (top, left, height, width) of a random resized crop.

    A candidate has area a ~ U(scale) times the image's and aspect r with log r ~ U(log ratio):
    w = round(sqrt(a r)), h = round(sqrt(a / r)), at a uniform place. The first of `CROP_TRIES`
    candidates that fits is taken; else the largest centred box whose aspect is within `ratio`.
    (Szegedy et al. 2015, arXiv:1409.4842; the semantics are torchvision's.)
    """
    draws = jax.random.uniform(key, (2 * CROP_TRIES + 2,))
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[:CROP_TRIES])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = jnp.exp(low + (high - low) * draws[CROP_TRIES : 2 * CROP_TRIES])
    widths = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
    heights = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits & (jnp.cumsum(fits) == 1)
    found = fits.any()

    aspect_now = width / height
    fallback_width, fallback_height = width, height
    if aspect_now < ratio[0]:
        fallback_height = min(height, round(width / ratio[0]))
    elif aspect_now > ratio[1]:
        fallback_width = min(width, round(height * ratio[1]))
    # A sum over a one-hot mask selects without a gather.
    h = jnp.where(found, jnp.sum(heights * first), fallback_height)
    w = jnp.where(found, jnp.sum(widths * first), fallback_width)
    top = jnp.floor(draws[-2] * (height - h + 1)).astype(jnp.int32)
    left = jnp.floor(draws[-1] * (width - w + 1)).astype(jnp.int32)
    top = jnp.where(found, jnp.minimum(top, height - h), (height - h) // 2)
    left = jnp.where(found, jnp.minimum(left, width - w), (width - w) // 2)
    return top, left, h, w


def shifted_crop(
    image: jax.Array, top: jax.Array | int, left: jax.Array | int, size: int, fill: str = "zero"
) -> jax.Array:
    """The [c, size, size] window whose corner is at (top, left), which may lie outside the image.

    Outside there are zeros, the nearest pixel (`fill="edge"`) or the mirror image without a
    repeated border (`fill="reflect"`).
    """

    def select(start: jax.Array | int, source: int) -> jax.Array:
        place = start + jnp.arange(size)
        if fill == "edge":
            place = jnp.clip(place, 0, source - 1)
        elif fill == "reflect":
            place = (source - 1) - jnp.abs((source - 1) - jnp.abs(place))
        return (place[:, None] == jnp.arange(source)).astype(image.dtype)

    return separable(image, select(top, image.shape[1]), select(left, image.shape[2]))


def flip_horizontal(image: jax.Array) -> jax.Array:
    """Left becomes right."""
    return image[..., ::-1]


def flip_vertical(image: jax.Array) -> jax.Array:
    """Up becomes down."""
    return image[..., ::-1, :]


def affine_inverse(
    rotation: jax.Array | float = 0.0,
    log_scale: jax.Array | float = 0.0,
    log_aspect: jax.Array | float = 0.0,
    shear: jax.Array | float = 0.0,
) -> jax.Array:
    """The 2 x 2 matrix from places in the view to places in the image, both (x, y) from the centre.

    The content is first scaled by exp(log_scale ± log_aspect / 2) along x (+) and y (-), then
    sheared by x += shear · y, then rotated by `rotation` degrees; this is the inverse of that.
    """
    angle = jnp.deg2rad(jnp.asarray(rotation, jnp.float32))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # Undo the rotation, then the shear; y points down, so positive degrees turn counter-clockwise.
    first = jnp.stack([cos - shear * sin, -sin - shear * cos])
    second = jnp.stack([sin, cos])
    x_scale = jnp.exp(-(log_scale + 0.5 * jnp.asarray(log_aspect, jnp.float32)))
    y_scale = jnp.exp(-(log_scale - 0.5 * jnp.asarray(log_aspect, jnp.float32)))
    return jnp.stack([first * x_scale, second * y_scale])


def elastic_displacement(nodes: jax.Array, size: int) -> jax.Array:
    """Displacements [2, grid, grid] at coarse nodes, upsampled bicubically to [2, size, size].

    (Simard, Steinkraus, Platt 2003, "Best practices for convolutional neural networks".)
    """
    up = resize_weights(0, nodes.shape[1], nodes.shape[1], size, "bicubic")
    return jnp.einsum("ag,dgk,bk->dab", up, nodes, up, precision=MATMUL)


def warp(
    image: jax.Array,
    inverse: jax.Array | None = None,
    shift: jax.Array | None = None,
    displacement: jax.Array | None = None,
    fill: str = "zero",
) -> jax.Array:
    """Resample an image [c, h, w] once, bilinearly, at inverse · (place - shift) + displacement.

    Args:
      image: [c, h, w].
      inverse: [2, 2], as from `affine_inverse`; None is the identity.
      shift: how far the content moves, (x, y), as fractions of the width and height.
      displacement: [2, h, w], (x, y) in pixels, as from `elastic_displacement`.
      fill: outside the image, "zero" or the nearest pixel, "edge".
    """
    _, height, width = image.shape
    y, x = jnp.meshgrid(
        jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij"
    )
    if shift is not None:
        x, y = x - shift[0] * width, y - shift[1] * height
    if inverse is not None:
        x, y = inverse[0, 0] * x + inverse[0, 1] * y, inverse[1, 0] * x + inverse[1, 1] * y
    if displacement is not None:
        x, y = x + displacement[0], y + displacement[1]
    return bilinear_at(image, y + (height - 1) / 2, x + (width - 1) / 2, fill)


def bilinear_at(image: jax.Array, y: jax.Array, x: jax.Array, fill: str = "zero") -> jax.Array:
    """Bilinear values of an image [c, h, w] at pixel places y, x [a, b] -> [c, a, b].

    The four neighbours are gathered: measured 4 times faster on a CPU at 16 pixels than contracting
    dense weights, which cost the square of the number of pixels. Under `jax.vmap` over a sharded
    batch the gather stays on its device.
    """
    channels, height, width = image.shape
    if fill == "edge":
        y, x = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)
    top, left = jnp.floor(y), jnp.floor(x)
    out = jnp.zeros((channels, *y.shape), image.dtype)
    for row in (top, top + 1):
        for column in (left, left + 1):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = jnp.where(inside, _hat(y - row) * _hat(x - column), 0.0)
            i = jnp.clip(row, 0, height - 1).astype(jnp.int32)
            j = jnp.clip(column, 0, width - 1).astype(jnp.int32)
            out = out + weight * image[:, i, j]
    return out
