"""The pixels of each patch, and back."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange

from jaxssl.config.by_name import check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.targets import Target

Patch = int | Sequence[int]


def build(*, mean: Any, std: Any, patch: Patch) -> Target:
    """The pixels of each patch as they are: `patchify`.

    Standardising them patch by patch is the loss's affair: `losses.mae`.

    Args:
      mean, std: unused.
      patch: a side, (p, q) for images, or (u, p, q) for videos and volumes.

    Errors: ConfigError for sides that are not positive, or more than three.
    """
    del mean, std
    check_patch(patch)

    def fn(images: jax.Array) -> jax.Array:
        return patchify(jax.lax.stop_gradient(images).astype(jnp.float32), patch)

    return Target(fn)


def patchify(images: jax.Array, patch: Patch) -> jax.Array:
    """Cut images into patches, row by row, each with its pixels row by row.

    "b (h p) (w q) c -> b (h w) (p q c)", or "b (t u) (h p) (w q) c -> b (t h w) (u p q c)".

    Args:
      images: [B, h, w, C], or videos and volumes [B, t, h, w, C].
      patch: a side for all axes, or one for each.

    Returns:
      [B, T, P], P numbers a patch.

    Raises:
      ConfigError: sides that do not divide the image's, or another number of sides than axes.

    >>> patchify(jnp.arange(8.0).reshape(1, 2, 4, 1), 2).tolist()
    [[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]
    """
    sides = _sides(patch, images.shape[1:])
    if len(sides) == 2:
        p, q = sides
        return rearrange(images, "b (h p) (w q) c -> b (h w) (p q c)", p=p, q=q)
    u, p, q = sides
    return rearrange(images, "b (t u) (h p) (w q) c -> b (t h w) (u p q c)", u=u, p=p, q=q)


def unpatchify(tokens: jax.Array, patch: Patch, shape: Sequence[int]) -> jax.Array:
    """Put patches together again: the inverse of `patchify`.

    Args:
      tokens: [B, T, P].
      patch: as it was cut.
      shape: (h, w, C) or (t, h, w, C), of one image.

    Returns:
      [B, *shape].

    Raises:
      ConfigError: sides that do not divide the image's, or tokens of another number or width.

    >>> images = jnp.arange(8.0).reshape(1, 2, 4, 1)
    >>> bool((unpatchify(patchify(images, 2), 2, (2, 4, 1)) == images).all())
    True
    """
    sides = _sides(patch, shape)
    grid = [size // side for size, side in zip(shape, sides)]
    expected = (len(tokens), math.prod(grid), math.prod(sides) * shape[-1])
    if tokens.shape != expected:
        raise ConfigError(f"tokens: found shape {tokens.shape}, expected {expected}")
    if len(sides) == 2:
        (h, w), (p, q) = grid, sides
        return rearrange(tokens, "b (h w) (p q c) -> b (h p) (w q) c", h=h, w=w, p=p, q=q)
    (t, h, w), (u, p, q) = grid, sides
    return rearrange(
        tokens, "b (t h w) (u p q c) -> b (t u) (h p) (w q) c", t=t, h=h, w=w, u=u, p=p, q=q
    )


def check_patch(patch: Patch) -> None:
    """Raise ConfigError where `patch` is not a side or two or three of them."""
    sides = (patch,) if isinstance(patch, int) else tuple(patch)
    check_positive("patch", sides)
    if not isinstance(patch, int) and len(sides) not in (2, 3):
        raise ConfigError(f"patch: found {len(sides)} sides, expected one number, 2 or 3 sides")


def _sides(patch: Patch, shape: Sequence[int]) -> tuple[int, ...]:
    """A side for each axis of an image of shape (..., C), once they are known to fit."""
    check_patch(patch)
    axes = tuple(shape[:-1])
    if len(axes) not in (2, 3):
        raise ConfigError(f"images: found axes {axes} and channels, expected 2 or 3 axes")
    sides = (patch,) * len(axes) if isinstance(patch, int) else tuple(patch)
    if len(sides) != len(axes):
        raise ConfigError(f"patch: found {len(sides)} sides, expected {len(axes)}, the image's")
    if any(size % side for size, side in zip(axes, sides)):
        raise ConfigError(f"patch: found {sides}, expected divisors of the image's sides {axes}")
    return sides
