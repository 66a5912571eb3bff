"""Positions on a grid of patches: interpolation of learned ones, and fixed 2-D sinusoids."""

import jax
import numpy as np
from einops import rearrange


def interpolate(table: jax.Array, grid: tuple[int, int], size: tuple[int, int]) -> jax.Array:
    """Positions [h * w, D] of `grid` = (h, w), resized bicubically to `size`.

    Where the two are equal, it is the identity.

    >>> interpolate(jax.numpy.ones((16, 8)), (4, 4), (2, 3)).shape
    (6, 8)
    """
    if grid == size:
        return table
    image = rearrange(table, "(h w) d -> h w d", h=grid[0])
    resized = jax.image.resize(image, (*size, table.shape[-1]), "bicubic")
    return rearrange(resized, "h w d -> (h w) d")


def sincos2d(width: int, grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Fixed sinusoids [h * w, D] of `size` = (h, w) places spread over the extent of `grid`.

    For column x and row y, with f_i = 10000^(-4 i / D), i < D / 4:
    [sin(x f), cos(x f), sin(y f), cos(y f)]; D is a multiple of 4. Where `size` is `grid`, x and y
    are 0, 1, 2, ...; otherwise cell centres are aligned as image interpolation does.

    He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners", arXiv:2111.06377, and Chen,
    Xie, He 2021, arXiv:2104.02057.

    >>> sincos2d(8, (2, 2), (2, 2)).shape
    (4, 8)
    """
    frequencies = 10000.0 ** (-4 * np.arange(width // 4) / width)
    rows, columns = ((np.arange(n) + 0.5) * g / n - 0.5 for n, g in zip(size, grid, strict=True))
    y, x = np.meshgrid(rows, columns, indexing="ij")
    angles = [np.outer(places.ravel(), frequencies) for places in (x, y)]
    waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=1).astype(np.float32)
