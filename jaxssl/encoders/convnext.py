"""ConvNeXt, versions 1 and 2.

Liu et al. 2022, "A ConvNet for the 2020s", arXiv:2201.03545; Woo et al. 2023, "ConvNeXt V2",
arXiv:2301.00808, which replaces layer scale by global response normalisation.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_choice, check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.encoders.activations import gelu
from jaxssl.encoders.convnet import check_convnet_call, convnet_outputs

# size -> (blocks of each stage, width of the first; each stage doubles it)
SIZES = {
    "atto": ((2, 2, 6, 2), 40),
    "femto": ((2, 2, 6, 2), 48),
    "pico": ((2, 2, 6, 2), 64),
    "nano": ((2, 2, 8, 2), 80),
    "tiny": ((3, 3, 9, 3), 96),
    "small": ((3, 3, 27, 3), 96),
    "base": ((3, 3, 27, 3), 128),
    "large": ((3, 3, 27, 3), 192),
    "xlarge": ((3, 3, 27, 3), 256),
    "huge": ((3, 3, 27, 3), 352),
}

_kernel_init = nn.initializers.truncated_normal(0.02)


class ConvNeXt(nn.Module):
    """ConvNeXt; `build` describes the fields."""

    blocks: tuple[int, ...]
    width: int
    version: int
    patch: int
    layer_scale: float
    dtype: Any = jnp.float32

    captures = ("stages",)

    @property
    def drop_depth(self) -> int:
        """How many blocks drop-path scales [B, drop_depth] are for."""
        return sum(self.blocks)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool,
        keep: jax.Array | None = None,
        capture: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """x [B, H, W, C] -> pooled [B, D], tokens [B, h*w, D]; "stages" on request: every map.

        The final norm is on `pooled` alone; tokens and stages are the raw maps.
        """
        del train
        check_convnet_call(x, keep, capture, self.drop_depth, self.patch)
        x = _patches(self.width, self.patch, self.dtype, "stem_conv")(x.astype(self.dtype))
        x = _layer_norm(self.dtype, "stem_norm")(x)
        stages, index = [], 0
        for stage, count in enumerate(self.blocks):
            if stage:
                x = _layer_norm(self.dtype, f"downsample{stage}_norm")(x)
                width = self.width * 2**stage
                x = _patches(width, 2, self.dtype, f"downsample{stage}_conv")(x)
            for i in range(count):
                name = f"stage{stage}_block{i}"
                block = ConvNeXtBlock(self.version, self.layer_scale, self.dtype, name=name)
                x = block(x, None if keep is None else keep[:, index])
                index += 1
            stages.append(x)
        pooled = _layer_norm(self.dtype, "norm")(x.mean((1, 2), dtype=jnp.float32))
        return convnet_outputs(x, pooled, stages, capture, self.dtype)


class ConvNeXtBlock(nn.Module):
    """x + keep * scale * W2 grn(gelu(W1 norm(depthwise7x7(x)))); grn in version 2 alone."""

    version: int
    layer_scale: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, keep: jax.Array | None) -> jax.Array:
        """x [B, h, w, c], keep [B] or None -> [B, h, w, c]."""
        width = x.shape[-1]
        y = nn.Conv(
            width,
            (7, 7),
            feature_group_count=width,
            kernel_init=_kernel_init,
            dtype=self.dtype,
            name="depthwise",
        )(x)
        y = _layer_norm(self.dtype, "norm")(y)
        y = nn.Dense(4 * width, kernel_init=_kernel_init, dtype=self.dtype, name="up")(y)
        y = gelu(y)
        if self.version == 2:
            y = GlobalResponseNorm(self.dtype, name="grn")(y)
        y = nn.Dense(width, kernel_init=_kernel_init, dtype=self.dtype, name="down")(y)
        if self.layer_scale:
            scale = self.param("scale", nn.initializers.constant(self.layer_scale), (width,))
            y = y * scale.astype(self.dtype)
        if keep is not None:
            y = y * keep[:, None, None, None].astype(self.dtype)
        return x + y


class GlobalResponseNorm(nn.Module):
    """y = x + scale * x * g / mean_c(g) + bias, g_c the L2 norm of channel c over the places."""

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, h, w, c] -> [B, h, w, c]; computed in float32."""
        scale = self.param("scale", nn.initializers.zeros, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        wide = x.astype(jnp.float32)
        # sqrt has no gradient at 0, which a channel of zeros would reach.
        g = jnp.sqrt(jnp.sum(wide**2, axis=(1, 2), keepdims=True) + 1e-12)
        response = g / (g.mean(-1, keepdims=True) + 1e-6)
        return (wide + scale * wide * response + bias).astype(self.dtype)


def _patches(width: int, side: int, dtype: Any, name: str) -> nn.Conv:
    """A convolution over patches that do not overlap."""
    return nn.Conv(
        width,
        (side, side),
        strides=side,
        padding="VALID",
        kernel_init=_kernel_init,
        dtype=dtype,
        name=name,
    )


def _layer_norm(dtype: Any, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-6, dtype=dtype, name=name)


def build(
    *,
    version: int = 2,
    size: str = "tiny",
    blocks: tuple[int, ...] | None = None,
    width: int | None = None,
    patch: int = 4,
    layer_scale: float | None = None,
    dtype: Any = jnp.float32,
) -> ConvNeXt:
    """A ConvNeXt.

    Args:
      version: 1 (layer scale) or 2 (global response normalisation).
      size: "atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "xlarge" or "huge".
      blocks, width: blocks of each stage and width of the first, each overriding that of `size`.
      patch: side of the stem's patches; each later stage halves the map.
      layer_scale: its initial value, 0 for none; by default 1e-6 in version 1, none in version 2.
      dtype: what it computes in; parameters are float32.

    >>> net = build(version=2, blocks=(1, 1), width=8, patch=2)
    >>> init = lambda key: net.init_with_output(key, jnp.zeros((2, 8, 8, 3)), train=False)
    >>> out, variables = jax.eval_shape(init, jax.random.key(0))
    >>> out["pooled"].shape, out["tokens"].shape
    ((2, 16), (2, 4, 16))
    """
    check_choice("version", version, (1, 2))
    check_choice("size", size, SIZES)
    chosen_blocks = SIZES[size][0] if blocks is None else tuple(blocks)
    chosen_width = SIZES[size][1] if width is None else width
    check_positive("blocks", chosen_blocks)
    check_positive("width", (chosen_width,))
    check_positive("patch", (patch,))
    if layer_scale is None:
        layer_scale = 1e-6 if version == 1 else 0.0
    if layer_scale < 0:
        raise ConfigError(f"layer_scale: found {layer_scale}, expected 0 or more")
    return ConvNeXt(chosen_blocks, chosen_width, version, patch, layer_scale, dtype)
