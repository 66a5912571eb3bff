"""Transformer blocks over a map of tokens, then their mean; a further token may ask for a part."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.encoders import positions
from jaxssl.encoders.transformer import Transformer, layer_norm


class TransformerHead(nn.Module):
    """Tokens to one embedding by attention; `build` describes the fields."""

    width: int
    depth: int
    heads: int
    mlp_ratio: float
    grid: tuple[int, int]
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """The parts, named as their parameters are."""
        self.reduction = nn.Dense(self.width, dtype=self.dtype)
        self.position_embedding = self.param(
            "position_embedding",
            nn.initializers.truncated_normal(0.02),
            (self.grid[0] * self.grid[1], self.width),
        )
        self.transformer = Transformer(
            self.depth, self.heads, mlp_ratio=self.mlp_ratio, dtype=self.dtype
        )
        self.norm = layer_norm(self.dtype, "norm")

    def __call__(self, x: jax.Array, *, train: bool, query: jax.Array | None = None) -> jax.Array:
        """The mean over the tokens of norm(blocks(reduce(x) + positions)).

        Args:
          x: [B, T, D], a square map row by row; positions are interpolated where it is not `grid`.
          train: changes nothing here; every head takes it.
          query: [B, width], a token without position that attends with the others and that the
            mean leaves out; or None.

        Returns: [B, width].

        Errors: ConfigError for tokens that are no square map, or a query of another width.
        """
        del train
        side = math.isqrt(x.shape[1])
        size = self.grid if x.shape[1] == self.grid[0] * self.grid[1] else (side, side)
        if x.ndim != 3 or size[0] * size[1] != x.shape[1]:
            raise ConfigError(f"transformer_head: found tokens {x.shape}, expected a square map")
        if query is not None and query.shape != (x.shape[0], self.width):
            raise ConfigError(
                f"transformer_head: found a query of shape {query.shape}, expected "
                f"{(x.shape[0], self.width)}: batch x width"
            )
        x = self.reduce(x)
        x = x + positions.interpolate(self.position_embedding, self.grid, size).astype(self.dtype)
        if query is not None:
            x = jnp.concatenate([query[:, None].astype(self.dtype), x], axis=1)
        x = self.norm(self.transformer(x)[0])
        return x[:, int(query is not None) :].mean(1, dtype=jnp.float32).astype(self.dtype)

    def reduce(self, x: jax.Array) -> jax.Array:
        """[..., D] -> [..., width], by a linear layer where D differs.

        Of the mean of a map it is the mean of the reduced map: the query that another head gets.
        """
        return x.astype(self.dtype) if x.shape[-1] == self.width else self.reduction(x)


def build(
    *,
    width: int,
    depth: int = 3,
    heads: int = 6,
    mlp_ratio: float = 4.0,
    grid: int | tuple[int, int] = 7,
    dtype: Any = jnp.float32,
) -> TransformerHead:
    """A transformer head, the T-head of MOKD without its last linear layer.

    Song, Xie, Zhang, Luo, 2023, "Multi-mode online knowledge distillation for
    self-supervised visual representation learning", arXiv 2304.06461.

    Args:
      width: of its blocks and of what it returns; tokens of another width pass a linear layer.
      depth: number of blocks.
      heads: H, which divides the width.
      mlp_ratio: hidden width over width.
      grid: side, or (height, width), in tokens, of the map that positions are learned on.
      dtype: what it computes in and returns; parameters are float32.

    >>> head = build(width=8, depth=1, heads=2, grid=2)
    >>> init = lambda key: head.init_with_output(key, jnp.zeros((3, 4, 16)), train=False)
    >>> jax.eval_shape(init, jax.random.key(0))[0].shape
    (3, 8)
    """
    check_positive("width", (width,))
    check_positive("depth", (depth,))
    check_positive("heads", (heads,))
    sides = (grid, grid) if isinstance(grid, int) else tuple(grid)
    check_positive("grid", sides)
    if len(sides) != 2:
        raise ConfigError(f"grid: found {grid!r}, expected a side or (height, width)")
    if width % heads:
        raise ConfigError(f"heads: found {heads}, expected a divisor of {width}")
    return TransformerHead(width, depth, heads, mlp_ratio, sides, dtype)
