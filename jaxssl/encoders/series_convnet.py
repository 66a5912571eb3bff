"""A residual convolutional network of time series, dilated where it does not stride."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_choice, check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.encoders.convnet import check_layers

NORMS = ("batch", "group")


class SeriesConvNet(nn.Module):
    """[B, T, C] -> {"pooled": [B, 2 D], "tokens": [B, T', D]}; pooled is the mean and the maximum.

    Each block is x + ReLU(norm(conv(ReLU(norm(conv(x)))))), its convolutions of the same dilation;
    where the width or the stride changes, x passes a convolution of one step.
    """

    widths: tuple[int, ...]
    strides: tuple[int, ...]
    kernel: int
    norm: str
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool,
        keep: jax.Array | None = None,
        capture: tuple[str, ...] = (),
    ) -> dict[str, jax.Array]:
        """See the class; there is nothing to capture, and no drop path."""
        if x.ndim != 3:
            raise ConfigError(f"encoder: found series of shape {x.shape}, expected [B, T, C]")
        if keep is not None or capture:
            raise ConfigError("encoder: 'series_convnet' has no drop path and captures nothing")
        x = x.astype(self.dtype)
        for i, (width, stride) in enumerate(zip(self.widths, self.strides)):
            change = width != x.shape[-1] or stride > 1
            skip = self._conv(x, width, 1, stride, 1, f"skip{i}") if change else x
            for j in range(2):
                x = self._conv(x, width, self.kernel, stride if j == 0 else 1, 2**i, f"conv{i}_{j}")
                x = nn.relu(self._norm(x, train, f"norm{i}_{j}"))
            x = x + skip
        pooled = jnp.concatenate([x.mean(1, dtype=jnp.float32), x.max(1)], -1)
        return {"pooled": pooled.astype(self.dtype), "tokens": x}

    def _conv(
        self, x: jax.Array, width: int, kernel: int, stride: int, dilation: int, name: str
    ) -> jax.Array:
        return nn.Conv(
            width,
            (kernel,),
            strides=(stride,),
            kernel_dilation=(dilation if stride == 1 else 1,),
            use_bias=False,
            dtype=self.dtype,
            name=name,
        )(x)

    def _norm(self, x: jax.Array, train: bool, name: str) -> jax.Array:
        if self.norm == "group":
            return nn.GroupNorm(1, dtype=self.dtype, name=name)(x)
        return nn.BatchNorm(not train, momentum=0.9, dtype=self.dtype, name=name)(x)


def build(
    *,
    widths: tuple[int, ...] = (32, 64, 64),
    strides: tuple[int, ...] = (1, 2, 2),
    kernel: int = 5,
    norm: str = "batch",
    dtype: Any = jnp.float32,
) -> SeriesConvNet:
    """A residual network of two convolutions a block.

    Args:
      widths: channels of each block; twice the last is the width of the pooled output.
      strides: of the first convolution of each block.
      kernel: steps of a convolution; block i is dilated by 2^i where its stride is 1.
      norm: "batch", or "group" (one group; may be microbatched).
      dtype: what it computes in; parameters are float32.

    >>> net, x = build(widths=(8,), strides=(2,)), jnp.zeros((4, 10, 3))
    >>> init = lambda key: net.init_with_output(key, x, train=False)
    >>> out, variables = jax.eval_shape(init, jax.random.key(0))
    >>> out["pooled"].shape, out["tokens"].shape
    ((4, 16), (4, 5, 8))
    """
    check_layers(widths, strides)
    check_positive("kernel", (kernel,))
    check_choice("norm", norm, NORMS)
    return SeriesConvNet(tuple(widths), tuple(strides), kernel, norm, dtype)
