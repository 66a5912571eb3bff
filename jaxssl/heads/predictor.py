"""A transformer that predicts blocks of tokens from context tokens: [B, M, D] to [B, K, M, P]."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jaxssl.config.by_name import check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.encoders.transformer import Transformer, layer_norm
from jaxssl.heads.token_grid import (
    check_blocks,
    check_grid,
    check_sinusoids,
    check_tokens,
    sinusoids,
)

_kernel_init = nn.initializers.truncated_normal(0.02)


class Predictor(nn.Module):
    """Context and target positions through transformer blocks; `build` describes the fields."""

    width: int
    depth: int
    heads: int
    target_width: int | None
    grid: tuple[int, ...]
    noise: float
    tied: bool
    mlp_ratio: float
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """The parts, named as their parameters are."""
        self.embedding = nn.Dense(self.width, kernel_init=_kernel_init, dtype=self.dtype)
        if not self.noise:
            self.mask_token = self.param("mask_token", _kernel_init, (self.width,))
        elif not self.tied:
            self.noise_embedding = nn.Dense(
                self.width, use_bias=False, kernel_init=_kernel_init, dtype=self.dtype
            )
        self.transformer = Transformer(
            self.depth, self.heads, mlp_ratio=self.mlp_ratio, dtype=self.dtype
        )
        self.norm = layer_norm(self.dtype, "norm")

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool,
        tokens: jax.Array | None = None,
        targets: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Predict each block of targets, in a pass of its own.

        Args:
          x: [B, M', D], context tokens.
          train: positions are noisy only where it is true.
          tokens: [B, M'] int, the patch that each context token is of; None where x holds all T
            patches in order.
          targets: [B, K, M] int, the patches to predict, K blocks of M; None for one block of all
            T patches.
          key: [B, 2] uint32, the data of one PRNG key per sample.

        Returns: [B, K, M, P].

        Errors: ConfigError for shapes that do not fit, or noise to draw without a key.
        """
        check_tokens("predictor", x, tokens, self.grid)
        count = math.prod(self.grid)
        if targets is None:
            targets = jnp.broadcast_to(jnp.arange(count), (len(x), 1, count))
        if targets.ndim != 3 or len(targets) != len(x):
            raise ConfigError(
                f"predictor: found targets of shape {targets.shape}, expected [{len(x)}, K, M]"
            )
        context, asked = self.inputs(x, train=train, tokens=tokens, targets=targets, key=key)
        blocks = asked.shape[1]
        context = jnp.broadcast_to(context[:, None], (len(x), blocks, *context.shape[1:]))
        both = rearrange(jnp.concatenate([context, asked], axis=2), "b k t d -> (b k) t d")
        y = self.transformer(both)[0][:, context.shape[2] :]
        y = rearrange(self.norm(y), "(b k) m d -> b k m d", k=blocks)
        return nn.Dense(
            self.target_width or x.shape[-1],
            kernel_init=_kernel_init,
            dtype=self.dtype,
            name="prediction",
        )(y)

    def inputs(
        self,
        x: jax.Array,
        *,
        train: bool,
        tokens: jax.Array | None,
        targets: jax.Array,
        key: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array]:
        """What the first block sees of context [B, M', width] and of targets [B, K, M, width]."""
        table = sinusoids(self.width, self.grid).astype(self.dtype)
        context = self.embedding(x.astype(self.dtype))
        context = context + (table if tokens is None else table[tokens])
        if not self.noise:
            return context, table[targets] + self.mask_token.astype(self.dtype)
        shape = (*targets.shape[1:], x.shape[-1])
        noise = jnp.zeros((len(x), *shape), self.dtype)
        if train and key is None:
            raise ConfigError("predictor: found noise without `key`, expected one key per sample")
        if train:
            # Per sample, so that a sample's noise is the same in any batch, chunk or device.
            draw = jax.vmap(lambda k: jax.random.normal(jax.random.wrap_key_data(k), shape))
            noise = (self.noise * draw(key)).astype(self.dtype)
        if self.tied:
            return context, table[targets] + self.embedding(noise)
        bias = self.embedding(jnp.zeros((1, 1, 1, x.shape[-1]), self.dtype))
        return context, table[targets] + self.noise_embedding(noise) + bias


def build(
    *,
    grid: int | tuple[int, ...],
    target_width: int | None = None,
    width: int = 384,
    depth: int = 6,
    heads: int = 12,
    noise: float = 0.0,
    tied: bool = True,
    mlp_ratio: float = 4.0,
    dtype: Any = jnp.float32,
) -> Predictor:
    """The predictor of I-JEPA, and of StoP, whose targets have noisy positions.

    A context token s_i enters as B s_i + b + psi_i, with fixed sinusoids psi. A target enters as
    m + psi_j with a learned mask token m (Assran et al., 2023, "Self-supervised learning from
    images with a joint-embedding predictive architecture", arXiv 2301.08243). With noise it
    enters as psi_j + B n_j + b with n_j ~ N(0, noise^2 I_D), fresh for each token, block and step,
    and there is no mask token (Bar et al., 2024, "Stochastic positional embeddings improve masked
    image modeling", arXiv 2308.00566). As B also carries the context, shrinking the noise costs
    content; with a free matrix A in place of B, it costs nothing, and the noise dies out.

    Args:
      grid: (h, w) or (t, h, w) in patches, T in all; an integer is the side of a square.
      target_width: P, the teacher's width; None for D, that of the context tokens.
      width, depth, heads, mlp_ratio: of the blocks; `heads` divides `width`.
      noise: standard deviation (not variance) of n; 0 for I-JEPA.
      tied: noise passes B; False for a free A, the control.
      dtype: what it computes in and returns; parameters are float32.

    >>> head = build(grid=2, width=8, depth=1, heads=2)
    >>> init = lambda key: head.init_with_output(key, jnp.zeros((3, 4, 16)), train=False)
    >>> jax.eval_shape(init, jax.random.key(0))[0].shape
    (3, 1, 4, 16)
    """
    if target_width is not None:
        check_positive("target_width", (target_width,))
    check_blocks(width, depth, heads)
    sides = check_grid(grid)
    check_sinusoids(width, sides)
    if noise < 0:
        raise ConfigError(f"noise: found {noise}, expected a standard deviation of 0 or more")
    return Predictor(width, depth, heads, target_width, sides, noise, tied, mlp_ratio, dtype)
