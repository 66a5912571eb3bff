"""Positions on a grid of patches: interpolation of learned ones, and fixed sinusoids."""

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
    y, x = _places(grid, size)
    return _waves((x, y), frequencies)


def sincos3d(width: int, grid: tuple[int, ...], size: tuple[int, ...]) -> np.ndarray:
    """Fixed sinusoids [t * h * w, D] of `size` = (t, h, w) places spread over the extent of `grid`.

    As `sincos2d`, each axis with a third of the width: with n = D // 6 and f_i = 10000^(-i / n),
    i < n, for column x, row y and time or depth z: [sin(x f), cos(x f), sin(y f), cos(y f),
    sin(z f), cos(z f), 0, ...], zeros up to D, which is at least 6.

    >>> sincos3d(16, (2, 2, 2), (2, 2, 2)).shape
    (8, 16)
    """
    count = width // 6
    z, y, x = _places(grid, size)
    waves = _waves((x, y, z), 10000.0 ** (-np.arange(count) / count))
    return np.pad(waves, ((0, 0), (0, width - 6 * count)))


def _places(grid: tuple[int, ...], size: tuple[int, ...]) -> list[np.ndarray]:
    """For each axis, the coordinate on `grid` of every place of `size`, cell centres aligned."""
    axes = ((np.arange(n) + 0.5) * g / n - 0.5 for n, g in zip(size, grid, strict=True))
    return [places.ravel() for places in np.meshgrid(*axes, indexing="ij")]


def _waves(places: tuple[np.ndarray, ...], frequencies: np.ndarray) -> np.ndarray:
    """Per axis the sines, then the cosines: [T, 2 * axes * frequencies], float32."""
    angles = [np.outer(place, frequencies) for place in places]
    waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=1).astype(np.float32)
