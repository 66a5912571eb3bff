"""The decoder half of a U-Net: maps of falling resolution to the image, [B, T, P] per cell."""

from itertools import pairwise
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jaxssl.config.by_name import check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.encoders.convolution import Conv
from jaxssl.encoders.residual_unet import (
    InstanceNorm,
    check_mask,
    hideable,
    leaky_relu,
    visibility,
)
from jaxssl.heads.upsampling import ConvTranspose

_token_init = nn.initializers.truncated_normal(0.02)


class UNetDecoder(nn.Module):
    """Skips made dense, then upsampling and convolution; `build` describes the fields."""

    channels: int
    unit: int
    densify: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: tuple[jax.Array, ...], *, train: bool, mask: jax.Array | None = None
    ) -> jax.Array:
        """Rebuild the image from an encoder's "stages".

        Args:
          x: maps [B, ..., C_i], the finest first, at the image's own resolution; each side a
            multiple of the next map's.
          train: changes nothing here; every head takes it.
          mask: [B, T] bool, true where a cell of `unit` pixels a side was hidden; None hides
            nothing.

        Returns: [B, T, P], the cells row by row, P = unit^d channels.

        Errors: ConfigError for maps or a mask that do not fit.
        """
        del train
        grid = self._check(x, mask)
        skips = [self._dense(y, mask, grid, i) for i, y in enumerate(x)]
        y = skips[-1]
        for i, skip in reversed(list(enumerate(skips[:-1]))):
            y = self._up(y, skip.shape, f"up{i}")
            y = self._conv(jnp.concatenate([y, skip], axis=-1), skip.shape[-1], f"conv{i}")
            y = leaky_relu(InstanceNorm(self.dtype, name=f"norm{i}")(y))
        y = nn.Dense(self.channels, dtype=self.dtype, name="image")(y)
        sides = dict(zip("pqu", (self.unit,) * 3))
        if len(grid) == 2:
            return rearrange(y, "b (h p) (w q) c -> b (h w) (p q c)", p=sides["p"], q=sides["q"])
        return rearrange(y, "b (t u) (h p) (w q) c -> b (t h w) (u p q c)", **sides)

    def _dense(
        self, x: jax.Array, mask: jax.Array | None, grid: tuple[int, ...], level: int
    ) -> jax.Array:
        """Norm over visible places, a learned token at the others; then all but the finest mix."""
        if not self.densify:
            return x.astype(self.dtype)
        seen = visibility(mask, grid, x.shape[1:-1])
        x = InstanceNorm(self.dtype, name=f"skip_norm{level}")(x, seen)
        if hideable(grid, x.shape[1:-1]):
            token = self.param(f"mask_token{level}", _token_init, (x.shape[-1],))
            x = x if seen is None else jnp.where(seen, x, token.astype(self.dtype))
        return self._conv(x, x.shape[-1], f"skip_conv{level}", bias=True) if level else x

    def _up(self, x: jax.Array, target: tuple[int, ...], name: str) -> jax.Array:
        factors = tuple(b // a for a, b in zip(x.shape[1:-1], target[1:-1], strict=True))
        return ConvTranspose(target[-1], factors, strides=factors, dtype=self.dtype, name=name)(x)

    def _conv(self, x: jax.Array, width: int, name: str, bias: bool = False) -> jax.Array:
        return Conv(
            width,
            (3,) * (x.ndim - 2),
            use_bias=bias,
            kernel_init=nn.initializers.he_normal(),
            dtype=self.dtype,
            name=name,
        )(x)

    def _check(self, x: tuple[jax.Array, ...], mask: jax.Array | None) -> tuple[int, ...]:
        """The grid of the mask, once the maps are known to fit."""
        shapes = [y.shape[1:-1] for y in x] if isinstance(x, tuple) else []
        falls = all(
            len(a) == len(b) and all(m % n == 0 for m, n in zip(a, b)) for a, b in pairwise(shapes)
        )
        if not shapes or not falls or len(shapes[0]) not in (2, 3):
            raise ConfigError(
                f"unet_decoder: found maps {shapes}, expected the tuple 'stages' of an encoder, "
                "each side a multiple of the next map's"
            )
        if any(side % self.unit for side in shapes[0]):
            raise ConfigError(
                f"unet_decoder.unit: found {self.unit}, expected a divisor of {shapes[0]}"
            )
        grid = tuple(side // self.unit for side in shapes[0])
        check_mask("unet_decoder", mask, len(x[0]), grid)
        return grid


def build(
    *, channels: int, unit: int = 16, densify: bool = True, dtype: Any = jnp.float32
) -> UNetDecoder:
    """The decoder half of a U-Net, for maps with hidden places.

    Every skip is made dense: instance norm over its visible places, one learned token per level at
    the hidden ones, a 3 x 3 (x 3) convolution at every level but the finest. From the coarsest up:
    transposed convolution, join with the skip, 3 x 3 (x 3) convolution, norm, leaky ReLU. Tian et
    al., 2023, "Designing BERT for convolutional networks", arXiv 2301.03580; Wald et al., 2024,
    "Revisiting MAE pre-training for 3D medical image segmentation", arXiv 2410.23132.

    Args:
      channels: of the image.
      unit: side of the cells of a mask, as the encoder's.
      densify: False joins the skips as they are, for an encoder that is not sparse.
      dtype: what it computes in and returns; parameters are float32.

    >>> head, x = build(channels=1, unit=4), (jnp.zeros((3, 8, 8, 4)), jnp.zeros((3, 4, 4, 8)))
    >>> init = lambda key: head.init_with_output(key, x, train=False)
    >>> jax.eval_shape(init, jax.random.key(0))[0].shape
    (3, 4, 16)
    """
    check_positive("channels", (channels,))
    check_positive("unit", (unit,))
    return UNetDecoder(channels, unit, densify, dtype)
