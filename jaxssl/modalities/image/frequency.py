"""The low-frequency crop: band-limited shrinking of a view, exact for what it keeps.

Of the 2-D Fourier transform of a view only the block of the lowest B x B frequencies stays; its
inverse transform is a view of B x B pixels. A Fourier transform of a batch cut into shards is
gathered by the compiler first, so that the two transforms are one product with dense weights here.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def weights(source: int, size: int) -> np.ndarray:
    """A [size, source], complex: Fourier transform of an axis, crop and inverse transform as one.

    A[p, n] = 1 / source Σ_k exp(2πi k (p / size - n / source)), k = -size / 2, ..., size / 2 - 1.

    The imaginary part comes from k = -size / 2 alone, which has no partner of the other sign.
    """
    k = np.arange(-(size // 2), size // 2)
    place = np.arange(size)[:, None] / size - np.arange(source) / source
    found: np.ndarray = np.exp(2j * np.pi * k * place[..., None]).sum(-1) / source
    return found


def low_frequency_crop(x: jax.Array, size: int) -> jax.Array:
    """[..., h, w] -> [..., B, B] with B = `size`: the lowest frequencies of both axes.

    y = Re F_B^-1( B^2 / (h w) crop( F_hw(x) ) ), the crop to the indices 0, ..., B/2 - 1 and
    -B/2, ..., -1 of each axis. The mean stays the same, and B = h = w gives `x` itself. Reference:
    Wang et al. 2023, "EfficientTrain: Exploring Generalized Curriculum Learning for Training Visual
    Backbones", arXiv:2211.09703.

    Args:
      x: pixels, any float dtype; the work is in float32.
      size: B, even and no more than h and w.

    >>> low_frequency_crop(jnp.full((8, 8), 0.5), 2).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    rows, columns = weights(x.shape[-2], size), weights(x.shape[-1], size)
    x = x.astype(jnp.float32)

    def product(rows: np.ndarray, columns: np.ndarray) -> jax.Array:
        return jnp.einsum(
            "ph,...hw,qw->...pq",
            jnp.asarray(rows, jnp.float32),
            x,
            jnp.asarray(columns, jnp.float32),
            precision=jax.lax.Precision.HIGHEST,
        )

    return product(rows.real, columns.real) - product(rows.imag, columns.imag)


def side(group: Any) -> int:
    """Pixels of a side of the views that a group's config makes, after its low-frequency crop.

    >>> side({"size": 32}), side({"size": 32, "low_frequency": {"size": 24}})
    (32, 24)
    """
    return int((group.get("low_frequency") or group)["size"])
