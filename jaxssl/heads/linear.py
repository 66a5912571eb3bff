"""One linear layer, [..., D] to [..., width]."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_positive


class Linear(nn.Module):
    """y = W x + b; `build` describes the fields."""

    width: int | None
    bias: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """x [..., D] -> [..., width]; `train` changes nothing."""
        del train
        return nn.Dense(
            self.width or x.shape[-1], use_bias=self.bias, dtype=self.dtype, name="linear"
        )(x)


def build(*, width: int | None = None, bias: bool = True, dtype: Any = jnp.float32) -> Linear:
    """One linear layer.

    Args:
      width: outputs; None for as many as inputs.
      bias: whether it has a bias.
      dtype: what it computes in and returns; parameters are float32.
    """
    if width is not None:
        check_positive("width", (width,))
    return Linear(width, bias, dtype)
