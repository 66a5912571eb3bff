"""Logits of classes, [..., D] to [..., K], through hidden layers or none."""

from typing import Any

import jax.numpy as jnp

from jaxssl.config.by_name import check_positive
from jaxssl.heads import mlp


def build(
    *,
    width: int,
    hidden: tuple[int, ...] = (),
    norm: str = "batch",
    bias: bool = True,
    dtype: Any = jnp.float32,
) -> mlp.MLP:
    """An `mlp` whose last width stands alone, so that the data may decide it.

    Args:
      width: K; in a config also "num_classes" or "num_samples".
      hidden: widths of the hidden layers, with ReLU.
      norm: of the hidden layers: "batch", "layer" or "none".
      bias: of the last layer.
      dtype: what it computes in and returns; parameters are float32.

    >>> build(width=10, hidden=(32,)).widths
    (32, 10)
    """
    check_positive("width", (width,))
    return mlp.build(widths=(*hidden, width), norm=norm, last_bias=bias, dtype=dtype)
