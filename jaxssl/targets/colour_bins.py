"""Which colours a patch has: a distribution over bins of the plane ab of CIE Lab."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from einops import reduce

from jaxssl.config.by_name import check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.targets import Target

XYZ_OF_RGB = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ],
    np.float32,
)
"""Linear sRGB to CIE XYZ under the white point D65."""
SPACING = 10.0
"""Of the grid of bins, in units of Lab."""
LEVELS = 52
"""Of each of red, green and blue, where bins are looked for."""


def build(
    *,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    patch: int,
    spacing: float = SPACING,
    neighbors: int = 5,
    sigma: float = 5.0,
) -> Target:
    """z[k] = exp(-|ab - c_k|^2 / (2 sigma^2)) over the nearest bins c_k, divided by its sum.

    ab is the mean of the patch. The bins are those of a square grid that some sRGB colour falls
    into. Zhang et al., 2016, "Colorful image colorization", arXiv 1603.08511, whose list has 313
    bins of spacing 10 where this has 260. It has 5 neighbours; how many there are is how hard the
    task is in Goyal et al., 2019, "Scaling and benchmarking self-supervised visual representation
    learning", arXiv 1905.01235.

    Args:
      mean, std: what the views were normalised with, in units of [0, 1].
      patch: side of a patch, in pixels.
      spacing: of the grid, in units of Lab.
      neighbors: how many bins share a patch; 1 gives one-hot targets.
      sigma: of the Gaussian, in units of Lab.

    Errors: ConfigError for numbers that are not positive, more neighbours than bins, or images
      without three channels.
    """
    for name, count in (("patch", patch), ("neighbors", neighbors)):
        check_positive(name, (count,))
    for name, value in (("spacing", spacing), ("sigma", sigma)):
        if value <= 0:
            raise ConfigError(f"{name}: found {value}, expected a positive number")
    bins = gamut(spacing)
    if neighbors > len(bins):
        raise ConfigError(f"neighbors: found {neighbors}, expected at most the {len(bins)} bins")

    def fn(images: jax.Array) -> jax.Array:
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ConfigError(
                f"target: found images of shape {images.shape}, expected [B, h, w, 3] in colour"
            )
        if images.shape[1] % patch or images.shape[2] % patch:
            raise ConfigError(
                f"patch: found {patch}, expected a divisor of the image's sides {images.shape[1:3]}"
            )
        clean = jax.lax.stop_gradient(images).astype(jnp.float32)
        rgb = clean * jnp.asarray(std, jnp.float32) + jnp.asarray(mean, jnp.float32)
        ab = lab(jnp.clip(rgb, 0.0, 1.0))[..., 1:]
        colours = reduce(ab, "b (h p) (w q) c -> b (h w) c", "mean", p=patch, q=patch)
        return encode(colours, bins, neighbors, sigma)

    return Target(fn, width=len(bins))


def lab(rgb: jax.Array) -> jax.Array:
    """CIE Lab of sRGB colours, under the white point D65.

    Args:
      rgb: [..., 3], from 0 to 1.

    Returns:
      [..., 3], float32: L from 0 to 100, a and b within about ±110, and 0 for grays.

    >>> [round(float(x), 1) for x in lab(jnp.array([1.0, 0.0, 0.0]))]
    [53.2, 80.1, 67.2]
    """
    rgb = rgb.astype(jnp.float32)
    linear = jnp.where(
        rgb <= 0.04045, rgb / 12.92, ((jnp.maximum(rgb, 0.04045) + 0.055) / 1.055) ** 2.4
    )
    white = XYZ_OF_RGB.sum(1)
    # White has XYZ = 1 1 1 up to one rounding, so that grays keep a = b = 0.
    ratios = jnp.einsum(
        "...c,dc->...d", linear, XYZ_OF_RGB / white[:, None], precision=jax.lax.Precision.HIGHEST
    )
    edge = 6 / 29
    f = jnp.where(ratios > edge**3, jnp.cbrt(ratios), ratios / (3 * edge**2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def rgb(lab: jax.Array) -> jax.Array:
    """sRGB of CIE Lab colours, the inverse of `lab`; what sRGB does not have is clipped.

    Args:
      lab: [..., 3].

    Returns:
      [..., 3], float32, from 0 to 1.

    >>> [round(float(x), 2) for x in rgb(jnp.array([53.24, 80.09, 67.2]))]
    [1.0, 0.0, 0.0]
    """
    y = (lab[..., 0] + 16) / 116
    f = jnp.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    edge = 6 / 29
    ratios = jnp.where(f > edge, f**3, 3 * edge**2 * (f - 4 / 29))
    inverse = np.linalg.inv(XYZ_OF_RGB / XYZ_OF_RGB.sum(1)[:, None])
    linear = jnp.einsum("...c,dc->...d", ratios, inverse, precision=jax.lax.Precision.HIGHEST)
    linear = jnp.clip(linear, 0.0, 1.0)
    bright = 1.055 * jnp.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return jnp.where(linear <= 0.0031308, 12.92 * linear, bright)


def gamut(spacing: float) -> np.ndarray:
    """Centres [K, 2] of the bins of the grid that some sRGB colour falls into, sorted.

    >>> gamut(10.0).shape[1]
    2
    """
    levels = np.linspace(0, 1, LEVELS, dtype=np.float32)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    with jax.ensure_compile_time_eval():  # numbers, also within a traced function
        ab = np.asarray(lab(jnp.asarray(cube)))[:, 1:]
    return (np.unique(np.round(ab / spacing).astype(np.int32), axis=0) * spacing).astype(np.float32)


def encode(
    colours: jax.Array, bins: jax.Array | np.ndarray, neighbors: int, sigma: float
) -> jax.Array:
    """Distribution of each colour over its nearest bins, as `build` defines it.

    Args:
      colours: ab [B, T, 2].
      bins: c [K, 2].
      neighbors, sigma: as in `build`.

    Returns:
      [B, T, K], float32: rows sum to 1.

    >>> encode(jnp.array([[[1.0, 0.0]]]), np.array([[0.0, 0.0], [10.0, 0.0]]), 1, 5.0).tolist()
    [[[1.0, 0.0]]]
    """
    squared = jnp.square(colours[..., None, :] - jnp.asarray(bins, jnp.float32)).sum(-1)
    score, places = jax.lax.top_k(-squared, neighbors)
    weights = jax.nn.softmax(score / (2 * sigma**2))
    return (jax.nn.one_hot(places, len(bins)) * weights[..., None]).sum(-2)
