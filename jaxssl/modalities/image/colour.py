"""What happens to the values of a view: jitter, grayscale, blur, solarisation, noise, normalising.

Every function works on the planes [c, h, w] of one image in float32 with values in [0, 1], and
c = 1 or 3. The formulas, and where values are clipped to [0, 1], are torchvision's.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxssl.modalities.image.alone import alone_or_many
from jaxssl.modalities.image.geometry import MATMUL, in_bands

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in a gray value (ITU-R 601)."""


def _clip(image: jax.Array) -> jax.Array:
    return jnp.clip(image, 0.0, 1.0)


def luma(image: jax.Array) -> jax.Array:
    """The gray value of each pixel, [c, h, w] -> [1, h, w]; the image itself where c = 1."""
    if len(image) == 1:
        return image
    red, green, blue = image[0:1], image[1:2], image[2:3]
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def to_grayscale(image: jax.Array) -> jax.Array:
    """Every channel becomes the gray value."""
    return jnp.broadcast_to(luma(image), image.shape)


def adjust_brightness(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """clip(factor · x)."""
    return _clip(factor * image)


def add_brightness(image: jax.Array, amount: jax.Array | float) -> jax.Array:
    """clip(x + amount)."""
    return _clip(image + amount)


def adjust_contrast(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """clip(factor · x + (1 - factor) · m), m the mean gray value of the image."""
    return _clip(factor * image + (1.0 - factor) * luma(image).mean())


def adjust_saturation(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """clip(factor · x + (1 - factor) · gray(x))."""
    return _clip(factor * image + (1.0 - factor) * luma(image))


def adjust_hue(image: jax.Array, turn: jax.Array | float) -> jax.Array:
    """Turn the hue of HSV by `turn`, a fraction of the full circle."""
    red, green, blue = image
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    over = 1.0 / jnp.where(chroma > 0, chroma, 1.0)
    # Not `value == red`: where the compiler rounds one of the two differently, it takes the wrong
    # branch. At ties of these comparisons the branches agree.
    sixths = jnp.where(
        (red >= green) & (red >= blue),
        (green - blue) * over,
        jnp.where(green >= blue, 2.0 + (blue - red) * over, 4.0 + (red - green) * over),
    )
    sixths = sixths + 6.0 * turn
    # Back without a table: channel n is v - v s max(0, min(k, 4 - k, 1)), k = (n + 6 h) mod 6.
    channels = []
    for n in (5.0, 3.0, 1.0):
        # Not `jnp.mod`, which a CPU computes one number at a time.
        k = n + sixths
        k = k - 6.0 * jnp.floor(k / 6.0)
        channels.append(value - chroma * jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0))
    return _clip(jnp.stack(channels))


LINEAR_OPS = ("brightness", "contrast", "saturation", "additive")
"""Jitter operations of the form clip(a x + b gray(x) + d mean(gray(x)) + e)."""


def jitter(
    image: jax.Array, amounts: dict[str, jax.Array], ranks: jax.Array | None = None
) -> jax.Array:
    """Apply several colour adjustments, each once, in a traced order.

    All but hue share one form, so a place in the order is a pick of coefficients and not a branch:
    under `jax.vmap` a branch would compute every operation at every place. Hue sits somewhere
    between the n others, so they run as n places before it and n after, one of each pair idle, and
    skipped where views are made one at a time.

    Args:
      image: [c, h, w].
      amounts: operation -> its amount; a subset of `LINEAR_OPS` and "hue".
      ranks: [len(amounts)] distinct numbers; the operations, in the order of `amounts`, run by
        ascending rank. None: in the order of `amounts`.
    """
    names = list(amounts)
    if ranks is None:
        for name in names:
            image = _ADJUST[name](image, amounts[name])
        return image
    linear = [n for n in names if n != "hue"]
    rank = {n: ranks[i] for i, n in enumerate(names)}

    def places(image: jax.Array, active: dict[str, jax.Array | bool]) -> jax.Array:
        for place in range(len(linear)):
            a, b, d, e = jnp.float32(1.0), jnp.float32(0.0), jnp.float32(0.0), jnp.float32(0.0)
            used = jnp.bool_(False)
            for name in linear:
                here = (
                    sum((rank[other] < rank[name]).astype(jnp.int32) for other in linear) == place
                )
                here = here & active[name]
                used = used | here
                amount = amounts[name]
                if name == "additive":
                    e = jnp.where(here, amount, e)
                    continue
                a = jnp.where(here, amount, a)
                if name == "saturation":
                    b = jnp.where(here, 1.0 - amount, b)
                elif name == "contrast":
                    d = jnp.where(here, 1.0 - amount, d)
            saturates, contrasts = "saturation" in linear, "contrast" in linear
            coefficients = (a, b if saturates else None, d if contrasts else None, e)
            image = _place(used, image, coefficients)
        return image

    if "hue" not in amounts:
        return places(image, dict.fromkeys(linear, True))
    image = places(image, {n: rank[n] < rank["hue"] for n in linear})
    image = adjust_hue(image, amounts["hue"])
    return places(image, {n: rank[n] > rank["hue"] for n in linear})


Coefficients = tuple[jax.Array, jax.Array | None, jax.Array | None, jax.Array]


def _linear(image: jax.Array, coefficients: Coefficients) -> jax.Array:
    """clip(a x + b gray(x) + d mean(gray(x)) + e); b and d may be absent."""
    a, b, d, e = coefficients
    out = a * image + e
    if b is not None:
        out = out + b * luma(image)
    if d is not None:
        out = out + d * luma(image).mean()
    return _clip(out)


# An idle place takes no time; of many images it is computed, too: a choice would keep XLA from
# fusing the places.
_place = alone_or_many(
    lambda used, image, c: lax.cond(used, _linear, lambda image, _: image, image, c),
    lambda used, image, c: _linear(image, c),
)


_ADJUST = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
    "additive": add_brightness,
}


def blur_weights(
    sigma: jax.Array | float,
    size: int,
    taps: int,
    out: tuple[int, int] | None = None,
    at: tuple[int, int] | None = None,
) -> jax.Array:
    """Weights [size, size] of a Gaussian blur along one axis, the border mirrored without repeat.

    k(d) = exp(-d² / 2σ²) for |d| <= taps // 2, normalised to sum 1; σ in pixels. A mirrored pixel
    adds its weight to the pixel that it mirrors, so rows sum to 1. `out` and `at` are ranges of
    rows and columns, where not all are asked for; those rows must have their weights in `at`.
    """
    half = taps // 2

    def kernel(offset: jax.Array) -> jax.Array:
        inside = jnp.abs(offset) <= half
        return jnp.where(inside, jnp.exp(-0.5 * jnp.square(offset / sigma)), 0.0)

    row = jnp.arange(*(out or (0, size)))[:, None]
    column = jnp.arange(*(at or (0, size)))[None, :]
    direct = kernel(row - column)
    before = jnp.where(column > 0, kernel(row + column), 0.0)
    after = jnp.where(column < size - 1, kernel(2 * (size - 1) - column - row), 0.0)
    weights = direct + before + after
    return weights / weights.sum(axis=1, keepdims=True)


def gaussian_blur(image: jax.Array, sigma: jax.Array | float, taps: int) -> jax.Array:
    """Gaussian blur of σ pixels with `taps` (odd) taps an axis, as matrix products.

    Of many images, under `jax.vmap`, as two with all weights; of a single one in bands.
    """
    _, height, width = image.shape

    def dense(image: jax.Array, sigma: jax.Array) -> jax.Array:
        rows = blur_weights(sigma, height, taps)
        columns = rows if height == width else blur_weights(sigma, width, taps)
        # A product for each plane: in one for all, an image would be copied to other places.
        rows = jnp.broadcast_to(rows, (len(image), *rows.shape))
        out = jnp.matmul(rows, image, precision=MATMUL)
        return jnp.matmul(out, columns.T, precision=MATMUL)

    def banded(image: jax.Array, sigma: jax.Array) -> jax.Array:
        for along in (-2, -1):
            size = image.shape[along]

            def band(first: int, stop: int, size: int = size) -> tuple[int, jax.Array]:
                at = max(0, first - taps // 2), min(size, stop + taps // 2)
                return at[0], blur_weights(sigma, size, taps, (first, stop), at)

            image = in_bands(image, size, along, band)
        return image

    return alone_or_many(banded, dense)(image, jnp.asarray(sigma))


def solarize(image: jax.Array, threshold: float) -> jax.Array:
    """1 - x where x >= threshold."""
    return jnp.where(image >= threshold, 1.0 - image, image)


def gaussian_noise(key: jax.Array, image: jax.Array, sigma: jax.Array | float) -> jax.Array:
    """clip(x + σ n), n ~ N(0, 1) at each value."""
    return _clip(image + sigma * jax.random.normal(key, image.shape, image.dtype))


def normalize(
    image: jax.Array, mean: float | Sequence[float], std: float | Sequence[float]
) -> jax.Array:
    """(x - mean) / std of [..., c, h, w], per channel or with one number for all."""
    shift, scale = (jnp.asarray(x, jnp.float32).reshape(-1, 1, 1) for x in (mean, std))
    return (image - shift) / scale


def to_float(image: jax.Array) -> jax.Array:
    """uint8 -> float32 in [0, 1]."""
    return lax.convert_element_type(image, jnp.float32) / 255.0
