"""Residual networks, with the stem for ImageNet or the one for small images.

He et al. 2016, "Deep Residual Learning for Image Recognition", arXiv:1512.03385; the stride of a
bottleneck is in its 3x3 convolution, as in Goyal et al. 2017, arXiv:1706.02677, from which the zero
initial scale of each block's last norm comes too.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_choice, check_positive
from jaxssl.encoders.convnet import check_convnet_call, convnet_outputs
from jaxssl.encoders.convolution import Conv

# depth -> (blocks of each stage, whether blocks are bottlenecks)
DEPTHS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
}
STEMS = ("imagenet", "cifar")
EXPANSION = 4


class ResNet(nn.Module):
    """Residual network; `build` describes the fields."""

    blocks: tuple[int, ...]
    bottleneck: bool
    stem: str
    width: int
    zero_init_last: bool
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
        """x [B, H, W, C] -> pooled [B, D], tokens [B, h*w, D]; "stages" on request: four maps."""
        check_convnet_call(x, keep, capture, self.drop_depth, divisor=1)
        x = x.astype(self.dtype)
        imagenet = self.stem == "imagenet"
        kernel, stride = (7, 2) if imagenet else (3, 1)
        x = _conv(self.width, kernel, stride, self.dtype, "stem_conv")(x)
        x = nn.relu(_norm(train, self.dtype, "stem_norm")(x))
        if imagenet:
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        stages, index = [], 0
        for stage, count in enumerate(self.blocks):
            for i in range(count):
                block = ResBlock(
                    self.width * 2**stage,
                    2 if stage and not i else 1,
                    self.bottleneck,
                    self.zero_init_last,
                    self.dtype,
                    name=f"stage{stage}_block{i}",
                )
                x = block(x, train, None if keep is None else keep[:, index])
                index += 1
            stages.append(x)
        return convnet_outputs(x, x.mean((1, 2), dtype=jnp.float32), stages, capture, self.dtype)


class ResBlock(nn.Module):
    """relu(shortcut(x) + keep * f(x)); f is 3x3, 3x3, or as a bottleneck 1x1, 3x3, 1x1."""

    width: int
    stride: int
    bottleneck: bool
    zero_init_last: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, keep: jax.Array | None) -> jax.Array:
        """x [B, h, w, c], keep [B] or None -> [B, h', w', c']."""
        conv = partial(_conv, dtype=self.dtype)
        norm = partial(_norm, train, self.dtype)
        out = self.width * (EXPANSION if self.bottleneck else 1)
        last_norm = norm("norm_last", zero_init=self.zero_init_last)
        if self.bottleneck:
            y = nn.relu(norm("norm0")(conv(self.width, 1, 1, name="conv0")(x)))
            y = nn.relu(norm("norm1")(conv(self.width, 3, self.stride, name="conv1")(y)))
            y = last_norm(conv(out, 1, 1, name="conv_last")(y))
        else:
            y = nn.relu(norm("norm0")(conv(self.width, 3, self.stride, name="conv0")(x)))
            y = last_norm(conv(out, 3, 1, name="conv_last")(y))
        if x.shape != y.shape:
            x = norm("norm_shortcut")(conv(out, 1, self.stride, name="conv_shortcut")(x))
        if keep is not None:
            y = y * keep[:, None, None, None].astype(self.dtype)
        return nn.relu(x + y)


def _conv(width: int, kernel: int, stride: int, dtype: Any, name: str) -> nn.Conv:
    # Symmetric padding: "SAME" pads strided convolutions on one side only.
    return Conv(
        width,
        (kernel, kernel),
        strides=stride,
        padding=kernel // 2,
        use_bias=False,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        dtype=dtype,
        name=name,
    )


def _norm(train: bool, dtype: Any, name: str, zero_init: bool = False) -> nn.BatchNorm:
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        scale_init=nn.initializers.zeros if zero_init else nn.initializers.ones,
        dtype=dtype,
        name=name,
    )


def build(
    *,
    depth: int = 50,
    stem: str = "imagenet",
    width_multiplier: int = 1,
    zero_init_last: bool = True,
    dtype: Any = jnp.float32,
) -> ResNet:
    """A residual network with batch norm (momentum 0.9, epsilon 1e-5).

    Args:
      depth: 18, 34, 50 or 101.
      stem: "imagenet" (7x7 stride 2, max pool) or "cifar" (3x3 stride 1, no pool).
      width_multiplier: multiplies every width.
      zero_init_last: start each block as the identity, by a zero scale in its last norm.
      dtype: what it computes in; parameters are float32.

    >>> net = build(depth=18, stem="cifar")
    >>> init = lambda key: net.init_with_output(key, jnp.zeros((2, 8, 8, 3)), train=False)
    >>> out, variables = jax.eval_shape(init, jax.random.key(0))
    >>> out["pooled"].shape, out["tokens"].shape
    ((2, 512), (2, 1, 512))
    """
    check_choice("depth", depth, DEPTHS)
    check_choice("stem", stem, STEMS)
    check_positive("width_multiplier", (width_multiplier,))
    blocks, bottleneck = DEPTHS[depth]
    return ResNet(blocks, bottleneck, stem, 64 * width_multiplier, zero_init_last, dtype)
