"""What decoders and predictors share: the grid that tokens lie on, and places on it."""

import math

import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.encoders import positions

FIXED = {2: "sincos2d", 3: "sincos3d"}


def check_blocks(width: int, depth: int, heads: int) -> None:
    """Raise ConfigError unless a transformer of these sizes can be built."""
    check_positive("width", (width,))
    check_positive("depth", (depth,))
    check_positive("heads", (heads,))
    if width % heads:
        raise ConfigError(f"heads: found {heads}, expected a divisor of width = {width}")


def check_grid(grid: int | tuple[int, ...]) -> tuple[int, ...]:
    """The sides of a grid of tokens: (h, w) or (t, h, w); an integer is the side of a square.

    >>> check_grid(4)
    (4, 4)
    """
    sides = (grid, grid) if isinstance(grid, int) else tuple(grid)
    check_positive("grid", sides)
    if len(sides) not in FIXED:
        raise ConfigError(f"grid: found {grid!r}, expected a side, (h, w) or (t, h, w)")
    return sides


def check_sinusoids(width: int, grid: tuple[int, ...]) -> None:
    """Raise ConfigError where the width has no room for the sines of each axis of the grid."""
    if len(grid) == 2 and width % 4:
        raise ConfigError(f"width: found {width}, expected a multiple of 4 for sincos2d")
    if len(grid) == 3 and width < 6:
        raise ConfigError(f"width: found {width}, expected at least 6 for sincos3d")


def sinusoids(width: int, grid: tuple[int, ...]) -> jax.Array:
    """Fixed positions [T, width] of the T places of `grid`, row by row; float32."""
    if len(grid) == 3:
        return jnp.asarray(positions.sincos3d(width, grid, grid))
    height, columns = grid
    return jnp.asarray(positions.sincos2d(width, (height, columns), (height, columns)))


def check_tokens(name: str, x: jax.Array, tokens: jax.Array | None, grid: tuple[int, ...]) -> None:
    """Raise ConfigError unless x [B, M, D] has its indices [B, M], or is the whole grid."""
    count = math.prod(grid)
    if x.ndim != 3 or (tokens is None and x.shape[1] != count):
        raise ConfigError(
            f"{name}: found tokens {x.shape} without their indices, "
            f"expected [B, {count}, D], the whole grid {grid}"
        )
    if tokens is not None and tokens.shape != x.shape[:2]:
        raise ConfigError(
            f"{name}: found indices of shape {tokens.shape}, expected {x.shape[:2]} as the tokens"
        )


def spread(x: jax.Array, tokens: jax.Array, count: int, blank: jax.Array) -> jax.Array:
    """Tokens at their places in a row of `count`, and `blank` at the places that have none.

    Args:
      x: [B, M, D].
      tokens: [B, M] int, the place of each, all different within a row, in any order.
      count: T.
      blank: [D].

    Returns: [B, T, D].

    >>> x, places = jnp.array([[[1.0], [2.0]]]), jnp.array([[2, 0]])
    >>> spread(x, places, 4, jnp.array([9.0])).ravel().tolist()
    [2.0, 9.0, 1.0, 9.0]
    """
    # The inverse of the indices by comparison: a gather along the tokens of one sample, which is
    # local to its device whatever the batch is sharded over; a scatter need not be.
    hits = tokens[:, None, :] == jnp.arange(count)[None, :, None]
    found = jnp.take_along_axis(x, hits.argmax(-1)[..., None], axis=1)
    return jnp.where(hits.any(-1)[..., None], found, blank.astype(x.dtype))
