"""A transformer decoder: kept tokens to a prediction for every patch, [B, M, D] to [B, T, P]."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_choice, check_positive
from jaxssl.encoders.transformer import Transformer, layer_norm
from jaxssl.heads.token_grid import (
    FIXED,
    check_blocks,
    check_grid,
    check_sinusoids,
    check_tokens,
    sinusoids,
    spread,
)

_token_init = nn.initializers.truncated_normal(0.02)


class Decoder(nn.Module):
    """Kept tokens and mask tokens through transformer blocks; `build` describes the fields."""

    width: int
    depth: int
    heads: int
    patch_values: int | None
    grid: tuple[int, ...]
    mlp_ratio: float
    class_token: bool
    posemb: str
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, tokens: jax.Array | None = None) -> jax.Array:
        """Predict every patch from the kept ones.

        Args:
          x: [B, M, D], the encoder's patch tokens.
          train: changes nothing here; every head takes it.
          tokens: [B, M] int, the patch that each token is of, row by row over the grid, in any
            order; None where x holds all T patches in order.

        Returns: [B, T, P], or [B, 1 + T, P] with the class token's first.

        Errors: ConfigError for tokens that do not fit the grid or their indices.
        """
        del train
        check_tokens("decoder", x, tokens, self.grid)
        values = self.patch_values or x.shape[-1]
        count = math.prod(self.grid)
        x = nn.Dense(self.width, dtype=self.dtype, name="embedding")(x.astype(self.dtype))
        blank = self.param("mask_token", _token_init, (self.width,))
        if tokens is not None:
            x = spread(x, tokens, count, blank)
        x = x + self._positions(count).astype(self.dtype)
        if self.class_token:
            query = self.param("class_query", _token_init, (1, self.width)).astype(self.dtype)
            x = jnp.concatenate([jnp.broadcast_to(query, (len(x), 1, self.width)), x], axis=1)
        x, _, _ = Transformer(
            self.depth,
            self.heads,
            mlp_ratio=self.mlp_ratio,
            dtype=self.dtype,
            name="transformer",
        )(x)
        x = layer_norm(self.dtype, "norm")(x)
        return nn.Dense(values, dtype=self.dtype, name="prediction")(x)

    def _positions(self, count: int) -> jax.Array:
        if self.posemb == "learned":
            return self.param("position_embedding", _token_init, (count, self.width))
        return sinusoids(self.width, self.grid)


def build(
    *,
    grid: int | tuple[int, ...],
    patch_values: int | None = None,
    width: int = 512,
    depth: int = 8,
    heads: int = 16,
    mlp_ratio: float = 4.0,
    class_token: bool = False,
    posemb: str | None = None,
    dtype: Any = jnp.float32,
) -> Decoder:
    """The decoder of a masked autoencoder.

    y = W_out norm(blocks(place(W_in x) + positions)), where `place` puts each kept token at its
    patch and one learned mask token everywhere else. He et al., 2022, "Masked autoencoders are
    scalable vision learners", arXiv 2111.06377.

    Args:
      grid: (h, w) or (t, h, w) in patches, T in all; an integer is the side of a square.
      patch_values: P, numbers predicted per patch (its pixels, or a teacher's width); None for D,
        that of the tokens.
      width, depth, heads, mlp_ratio: of the blocks; `heads` divides `width`.
      class_token: one more learned query in front, without position, whose output is the
        prediction for a teacher's class token (Liu et al., 2022, "Exploring target
        representations for masked autoencoders", arXiv 2209.03917).
      posemb: "learned"; or fixed, "sincos2d" for (h, w) and "sincos3d" for (t, h, w), the default.
      dtype: what it computes in and returns; parameters are float32.

    >>> head = build(patch_values=12, grid=2, width=8, depth=1, heads=2)
    >>> init = lambda key: head.init_with_output(key, jnp.zeros((3, 4, 16)), train=False)
    >>> jax.eval_shape(init, jax.random.key(0))[0].shape
    (3, 4, 12)
    """
    if patch_values is not None:
        check_positive("patch_values", (patch_values,))
    check_blocks(width, depth, heads)
    sides = check_grid(grid)
    fixed = FIXED[len(sides)]
    posemb = fixed if posemb is None else posemb
    check_choice("posemb", posemb, ("learned", fixed))
    if posemb == fixed:
        check_sinusoids(width, sides)
    return Decoder(width, depth, heads, patch_values, sides, mlp_ratio, class_token, posemb, dtype)
