"""Histograms of oriented gradients of each patch."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange, reduce

from jaxssl.config.by_name import check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.targets import Target

EPSILON = 1e-5
"""Histograms shorter than this are not stretched to unit length: they are rounding errors."""


def build(*, mean: Any, std: Any, patch: int = 16, cell: int = 8, bins: int = 9) -> Target:
    """How much the image changes in each direction, in cells of each patch, for each channel.

    h[cell, c, k] = sum over the cell's pixels of |g| max(0, 1 - |bins angle(g) / pi - 1/2 - k|),
    around the circle, divided by its length over k; g is half of the difference of the two
    neighbours, with mirrored borders, and its angle is modulo pi. Dalal and Triggs, 2005,
    "Histograms of oriented gradients for human detection", as the target of Wei et al., 2022,
    "Masked feature prediction for self-supervised visual pre-training", arXiv 2112.09133.

    A patch of 16 pixels and 3 channels gives 2 * 2 * 3 * 9 = 108 numbers. A flat cell gives zeros.

    Args:
      mean, std: unused.
      patch: side of a patch, a multiple of `cell`.
      cell: side of a cell.
      bins: directions, of pi / bins each.

    Errors: ConfigError for numbers that are not positive, or cells that do not tile the patch.
    """
    del mean, std
    for name, value in (("patch", patch), ("cell", cell), ("bins", bins)):
        check_positive(name, (value,))
    if patch % cell:
        raise ConfigError(f"cell: found {cell}, expected a divisor of the patch's side {patch}")

    def fn(images: jax.Array) -> jax.Array:
        if images.ndim != 4 or images.shape[1] % patch or images.shape[2] % patch:
            raise ConfigError(
                f"patch: found images of shape {images.shape}, expected [B, h, w, C] with h and w "
                f"divisible by {patch}"
            )
        cells = histograms(jax.lax.stop_gradient(images), cell, bins)
        side = patch // cell
        return rearrange(cells, "b (h p) (w q) c k -> b (h w) (p q c k)", p=side, q=side)

    return Target(fn)


def histograms(images: jax.Array, cell: int, bins: int) -> jax.Array:
    """Histograms of unit length of the cells, as `build` defines them.

    Args:
      images: [B, h, w, C], with h and w at least 2 and divisible by `cell`.
      cell, bins: as in `build`.

    Returns:
      [B, h / cell, w / cell, C, bins], float32.

    >>> ramp = jnp.broadcast_to(jnp.arange(8.0)[:, None], (8, 8))[None, ..., None]
    >>> histograms(ramp, 8, 9)[0, 0, 0, 0].round(3).tolist()  # downwards: the middle bin
    [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    x = jnp.pad(images.astype(jnp.float32), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    down = (x[:, 2:, 1:-1] - x[:, :-2, 1:-1]) / 2
    right = (x[:, 1:-1, 2:] - x[:, 1:-1, :-2]) / 2
    place = jnp.arctan2(down, right) * (bins / math.pi) - 0.5
    # Distance to each bin around the circle, where directions and their opposites are the same.
    offset = (place[..., None] - jnp.arange(bins)) / bins
    distance = bins * jnp.abs(offset - jnp.round(offset))
    votes = jnp.hypot(down, right)[..., None] * jnp.maximum(0.0, 1.0 - distance)
    cells = reduce(votes, "b (h p) (w q) c k -> b h w c k", "sum", p=cell, q=cell)
    squared = jnp.square(cells).sum(-1, keepdims=True)
    return cells * jax.lax.rsqrt(jnp.maximum(squared, EPSILON**2))
