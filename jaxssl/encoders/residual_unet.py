"""The encoder half of a residual U-Net, for images or volumes of which blocks may be hidden.

Residual stages with instance normalisation and leaky ReLU: Isensee et al., 2024, "nnU-Net
revisited", arXiv 2404.09556. Hidden blocks as in Tian et al., 2023, "Designing BERT for
convolutional networks: sparse and hierarchical masked modeling", arXiv 2301.03580, and, for
volumes, Wald et al., 2024, "Revisiting MAE pre-training for 3D medical image segmentation",
arXiv 2410.23132.
"""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jaxssl.config.by_name import check_choice, check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.encoders.convolution import Conv

EPSILON = 1e-5
leaky_relu = partial(nn.leaky_relu, negative_slope=0.01)


def visibility(
    mask: jax.Array | None, grid: tuple[int, ...], size: tuple[int, ...]
) -> jax.Array | None:
    """Where a map of `size` is visible, [B, *size, 1] bool; None where all of it is.

    Every cell of the mask's grid is repeated over the places of the map that it covers. A map
    coarser than the grid is visible everywhere, as each of its places sees several cells.

    Args:
      mask: [B, T] bool, true where a cell of `grid` is hidden, row by row; or None.
      grid: cells along each axis, T in all.
      size: of the map; a multiple of the grid, or coarser.

    >>> visibility(jnp.array([[True, False]]), (1, 2), (1, 4)).ravel().tolist()
    [False, False, True, True]
    """
    if mask is None or not hideable(grid, size):
        return None
    seen = (~mask.astype(bool)).reshape(len(mask), *grid)
    for axis, (cells, places) in enumerate(zip(grid, size, strict=True), start=1):
        seen = jnp.repeat(seen, places // cells, axis=axis)
    return seen[..., None]


def hideable(grid: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Whether a map of `size` is at least as fine as the mask's grid, so that places can hide."""
    return all(places >= cells for cells, places in zip(grid, size, strict=True))


def show(x: jax.Array, seen: jax.Array | None) -> jax.Array:
    """x, with exact zeros wherever it is hidden."""
    return x if seen is None else x * seen.astype(x.dtype)


def visible_mean(x: jax.Array, seen: jax.Array | None) -> jax.Array:
    """Mean of x [B, ..., C] over its visible places, [B, 1, ..., C] float32; 0 where none is."""
    axes = tuple(range(1, x.ndim - 1))
    x = x.astype(jnp.float32)
    if seen is None:
        return x.sum(axes, keepdims=True) / math.prod(x.shape[1:-1])
    weight = seen.astype(jnp.float32)
    return (x * weight).sum(axes, keepdims=True) / weight.sum(axes, keepdims=True).clip(1)


class InstanceNorm(nn.Module):
    """y = (scale (x - mean) / sqrt(var + 1e-5) + bias) m, statistics over the visible places m.

    mean = sum x m / sum m and var = sum m (x - mean)^2 / sum m, per sample and channel, float32.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, seen: jax.Array | None = None) -> jax.Array:
        """x [B, ..., C], seen [B, ..., 1] bool or None -> [B, ..., C], 0 where not seen."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x = x.astype(jnp.float32)
        centred = x - visible_mean(x, seen)
        spread = jax.lax.rsqrt(visible_mean(jnp.square(centred), seen) + EPSILON)
        return show((centred * spread * scale + bias).astype(self.dtype), seen)


class ResidualUNet(nn.Module):
    """Residual stages at falling resolution; `build` describes the fields."""

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    dims: int
    unit: int
    sparse: bool
    dtype: Any = jnp.float32

    drop_depth = 0  # it was published without drop-path
    captures = ("stages",)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool,
        keep: jax.Array | None = None,
        mask: jax.Array | None = None,
        capture: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """Encode images or volumes.

        Args:
          x: [B, H, W, C], or [B, T, H, W, C] for volumes, float.
          train: changes nothing here; every encoder takes it.
          keep: drop-path scales [B, 0], or None.
          mask: [B, T] bool, true where a cell of `unit` pixels a side is hidden, row by row; None
            hides nothing.
          capture: "stages" for the tuple of every stage's map [B, ..., C], the finest first.

        Returns: "pooled" [B, D], the mean of the last map over its visible places, and "tokens"
          [B, T', D], that map row by row.

        Errors: ConfigError for shapes that do not fit, or an unknown capture.
        """
        del train
        grid = self._check(x, keep, mask, capture)
        x = show(x.astype(self.dtype), visibility(mask, grid, x.shape[1:-1]))
        # The dense form hides pixels only; from here on it knows of no mask.
        hidden = mask if self.sparse else None
        x = leaky_relu(self._conv(x, grid, hidden, self.widths[0], 1, 3, "stem"))
        stages = []
        for stage, (width, depth) in enumerate(zip(self.widths, self.blocks, strict=True)):
            for block in range(depth):
                stride = 2 if stage and not block else 1
                name = f"stage{stage}_block{block}"
                conv = partial(self._conv, grid=grid, mask=hidden, width=width)
                y = leaky_relu(conv(x, stride=stride, kernel=3, name=f"{name}_0"))
                y = conv(y, stride=1, kernel=3, name=f"{name}_1")
                if stride != 1 or x.shape[-1] != width:
                    x = conv(x, stride=stride, kernel=1, name=f"{name}_skip")
                x = leaky_relu(x + y)
            stages.append(x)
        seen = visibility(mask, grid, x.shape[1:-1])
        out: dict[str, Any] = {
            "pooled": visible_mean(x, seen).reshape(len(x), -1).astype(self.dtype),
            "tokens": rearrange(x, "b ... d -> b (...) d"),
        }
        if "stages" in capture:
            out["stages"] = tuple(stages)
        return out

    def _conv(
        self,
        x: jax.Array,
        grid: tuple[int, ...],
        mask: jax.Array | None,
        width: int,
        stride: int,
        kernel: int,
        name: str,
    ) -> jax.Array:
        """Convolution without bias, then instance norm, which makes hidden places zero again."""
        x = Conv(
            width,
            (kernel,) * self.dims,
            strides=stride,
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            dtype=self.dtype,
            name=f"{name}_conv",
        )(x)
        seen = visibility(mask, grid, x.shape[1:-1])
        return InstanceNorm(self.dtype, name=f"{name}_norm")(x, seen)

    def _check(
        self,
        x: jax.Array,
        keep: jax.Array | None,
        mask: jax.Array | None,
        capture: tuple[str, ...],
    ) -> tuple[int, ...]:
        """The grid of the mask, once the arguments are known to fit."""
        step = math.lcm(self.unit, 2 ** (len(self.widths) - 1))
        if x.ndim != self.dims + 2 or any(side % step for side in x.shape[1:-1]):
            axes = "[B, H, W, C]" if self.dims == 2 else "[B, T, H, W, C]"
            raise ConfigError(
                f"encoder: found input of shape {x.shape}, expected {axes} with sides divisible "
                f"by {step} (encoder.unit and the strides)"
            )
        if keep is not None and keep.shape != (len(x), self.drop_depth):
            raise ConfigError(
                f"encoder: found drop-path scales of shape {keep.shape}, "
                f"expected {(len(x), self.drop_depth)}: this encoder drops no paths"
            )
        grid = tuple(side // self.unit for side in x.shape[1:-1])
        check_mask("encoder", mask, len(x), grid)
        for name in capture:
            check_choice("encoder: capture", name, self.captures)
        return grid


def check_mask(field: str, mask: jax.Array | None, batch: int, grid: tuple[int, ...]) -> None:
    """Raise ConfigError unless `mask` is None or [B, T] on `grid`."""
    if mask is not None and mask.shape != (batch, math.prod(grid)):
        raise ConfigError(
            f"{field}: found a mask of shape {mask.shape}, "
            f"expected {(batch, math.prod(grid))}: batch x cells of {grid}"
        )


def build(
    *,
    widths: tuple[int, ...] = (32, 64, 128, 256, 320, 320),
    blocks: tuple[int, ...] = (1, 3, 4, 6, 6, 6),
    dims: int = 3,
    unit: int = 16,
    sparse: bool = True,
    dtype: Any = jnp.float32,
) -> ResidualUNet:
    """The encoder half of a residual U-Net; each stage after the first halves the resolution.

    x + norm(conv(act(norm(conv(x))))), then act, where a block that changes the shape has a strided
    1 x 1 convolution and a norm on its shortcut (published: mean pooling before that convolution).

    Args:
      widths: channels of each stage; the last is D.
      blocks: residual blocks of each stage.
      dims: 2 for images, 3 for volumes.
      unit: side, in pixels or voxels, of the cells that a mask hides; each stage's stride that is
        not larger divides it.
      sparse: hidden places are zero again after every convolution with its norm, whose statistics
        leave them out; False puts zeros into the input only.
      dtype: what it computes in; parameters are float32.

    >>> net, x = build(widths=(4, 8), blocks=(1, 1), dims=2, unit=4), jnp.zeros((3, 8, 8, 1))
    >>> init = lambda key: net.init_with_output(key, x, train=False)
    >>> out, variables = jax.eval_shape(init, jax.random.key(0))
    >>> out["pooled"].shape, out["tokens"].shape
    ((3, 8), (3, 16, 8))
    """
    check_positive("widths", widths)
    check_positive("blocks", blocks)
    check_positive("unit", (unit,))
    check_choice("dims", dims, (2, 3))
    if len(blocks) != len(widths):
        raise ConfigError(f"blocks: found {len(blocks)} values, expected {len(widths)} as widths")
    strides = [2**stage for stage in range(len(widths)) if 2**stage <= unit]
    if unit % strides[-1]:
        raise ConfigError(f"unit: found {unit}, expected a multiple of the stride {strides[-1]}")
    return ResidualUNet(tuple(widths), tuple(blocks), dims, unit, sparse, dtype)
