"""A small plain convolutional network: space to depth, then conv 3x3 - norm - ReLU, mean pool.

For small images: folding s x s pixels into channels first makes the early, largest feature maps
s^2 times cheaper, which is where a plain network spends its time.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jaxssl.config.by_name import check_choice, check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.encoders.convolution import Conv

NORMS = ("batch", "group", "none")


class ConvNet(nn.Module):
    """Plain convolutional network; `build` describes the fields."""

    widths: tuple[int, ...]
    strides: tuple[int, ...]
    space_to_depth: int
    norm: str
    dtype: Any = jnp.float32

    drop_depth = 0  # no residual blocks, so nothing for drop-path to drop
    captures = ("stages",)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool,
        keep: jax.Array | None = None,
        capture: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """x [B, H, W, C] -> pooled [B, D], tokens [B, h*w, D]; "stages" on request: every map."""
        check_convnet_call(x, keep, capture, self.drop_depth, self.space_to_depth)
        s = self.space_to_depth
        x = rearrange(x.astype(self.dtype), "b (h s) (w t) c -> b h w (s t c)", s=s, t=s)
        stages = []
        for i, (width, stride) in enumerate(zip(self.widths, self.strides, strict=True)):
            x = Conv(
                width,
                (3, 3),
                strides=stride,
                use_bias=self.norm == "none",
                kernel_init=nn.initializers.he_normal(),
                dtype=self.dtype,
                name=f"conv{i}",
            )(x)
            if self.norm == "batch":
                x = nn.BatchNorm(not train, momentum=0.9, dtype=self.dtype, name=f"norm{i}")(x)
            elif self.norm == "group":
                groups = math.gcd(32, width)
                x = nn.GroupNorm(groups, dtype=self.dtype, name=f"norm{i}")(x)
            x = nn.relu(x)
            stages.append(x)
        return convnet_outputs(x, x.mean((1, 2), dtype=jnp.float32), stages, capture, self.dtype)


def check_layers(widths: Sequence[int], strides: Sequence[int]) -> None:
    """Raise ConfigError where widths and strides are not those of the same layers."""
    check_positive("widths", widths)
    check_positive("strides", strides)
    if len(strides) != len(widths):
        raise ConfigError(f"strides: found {len(strides)} values, expected {len(widths)} as widths")


def check_convnet_call(
    x: jax.Array, keep: jax.Array | None, capture: tuple[str, ...], depth: int, divisor: int
) -> None:
    """Raise ConfigError for images, drop-path scales or captures that a convnet cannot take."""
    if x.ndim != 4 or x.shape[1] % divisor or x.shape[2] % divisor:
        raise ConfigError(
            f"encoder: found images of shape {x.shape}, expected [B, H, W, C] with H and W "
            f"divisible by {divisor}"
        )
    if keep is not None and keep.shape != (x.shape[0], depth):
        raise ConfigError(
            f"encoder: found drop-path scales of shape {keep.shape}, "
            f"expected {(x.shape[0], depth)}: batch x residual blocks"
        )
    for name in capture:
        check_choice("encoder: capture", name, ("stages",))


def convnet_outputs(
    x: jax.Array, pooled: jax.Array, stages: list[jax.Array], capture: tuple[str, ...], dtype: Any
) -> dict[str, Any]:
    """The dict that every convolutional encoder returns, from its last map x [B, h, w, D]."""
    out: dict[str, Any] = {
        "pooled": pooled.astype(dtype),
        "tokens": rearrange(x, "b h w d -> b (h w) d"),
    }
    if "stages" in capture:
        out["stages"] = tuple(stages)
    return out


def build(
    *,
    widths: tuple[int, ...] = (32, 32, 64, 64, 128),
    strides: tuple[int, ...] = (1, 1, 2, 1, 1),
    space_to_depth: int = 2,
    norm: str = "batch",
    dtype: Any = jnp.float32,
) -> ConvNet:
    """A plain convolutional network.

    Args:
      widths: channels of each 3x3 convolution; the last is D.
      strides: stride of each convolution.
      space_to_depth: side s of the pixel blocks folded into channels first; 1 folds nothing.
      norm: "batch", "group" (at most 32 groups; no statistics across samples, so it may be
        microbatched) or "none" (convolutions then have a bias).
      dtype: what it computes in; parameters are float32.

    >>> import jax
    >>> net, x = build(widths=(8, 16), strides=(1, 2)), jnp.zeros((4, 8, 8, 3))
    >>> init = lambda key: net.init_with_output(key, x, train=False)
    >>> out, variables = jax.eval_shape(init, jax.random.key(0))
    >>> out["pooled"].shape, out["tokens"].shape
    ((4, 16), (4, 4, 16))
    """
    check_layers(widths, strides)
    check_positive("space_to_depth", (space_to_depth,))
    check_choice("norm", norm, NORMS)
    return ConvNet(tuple(widths), tuple(strides), space_to_depth, norm, dtype)
