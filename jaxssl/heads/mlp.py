"""A multi-layer perceptron on embeddings: projector and predictor of joint embedding."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_choice, check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.encoders.activations import gelu

NORMS = ("batch", "layer", "none")
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "gelu": gelu,
    "leaky_relu": partial(nn.leaky_relu, negative_slope=0.01),
}


class MLP(nn.Module):
    """Linear - norm - activation, repeated, and a last linear; `build` describes the fields."""

    widths: tuple[int, ...]
    norm: str
    activation: str
    last_norm: bool
    last_affine: bool
    last_bias: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """x [..., D] -> [..., P]; batch statistics are over every axis but the last."""
        last = len(self.widths) - 1
        for i, width in enumerate(self.widths):
            normed = self.norm != "none" and (i < last or self.last_norm)
            # A bias before batch normalisation has a gradient of pure rounding noise, which Adam
            # would amplify.
            bias = (i < last or self.last_bias) and not (normed and self.norm == "batch")
            x = nn.Dense(width, use_bias=bias, dtype=self.dtype, name=f"linear{i}")(x)
            if normed:
                affine = i < last or self.last_affine
                x = self._normalise(x, affine, train, f"norm{i}")
            if i < last:
                x = ACTIVATIONS[self.activation](x)
        return x

    def _normalise(self, x: jax.Array, affine: bool, train: bool, name: str) -> jax.Array:
        kwargs: dict[str, Any] = {
            "use_scale": affine,
            "use_bias": affine,
            "epsilon": 1e-5,
            "dtype": self.dtype,
            "name": name,
        }
        if self.norm == "batch":
            return nn.BatchNorm(not train, momentum=0.9, **kwargs)(x)
        return nn.LayerNorm(**kwargs)(x)


def build(
    *,
    widths: tuple[int, ...],
    norm: str = "batch",
    activation: str = "relu",
    last_norm: bool = False,
    last_affine: bool = True,
    last_bias: bool = True,
    dtype: Any = jnp.float32,
) -> MLP:
    """A multi-layer perceptron: every width but the last is a hidden layer.

    Args:
      widths: outputs of each linear layer; the last is P.
      norm: "batch", "layer" or "none", after each hidden linear layer.
      activation: "relu", "gelu" or "leaky_relu" (slope 0.01), after each hidden norm.
      last_norm: normalise the output too.
      last_affine: whether that last norm has a scale and a bias.
      last_bias: bias of the last linear layer; without effect before a batch norm, where
        no linear layer has one.
      dtype: what it computes in and returns; parameters are float32.

    >>> import jax
    >>> head, x = build(widths=(32, 8)), jnp.ones((4, 16))
    >>> variables = head.init(jax.random.key(0), x, train=False)
    >>> head.apply(variables, x, train=False).shape
    (4, 8)
    """
    check_positive("widths", widths)
    check_choice("norm", norm, NORMS)
    check_choice("activation", activation, ACTIVATIONS)
    if last_norm and norm == "none":
        raise ConfigError("last_norm: found True with norm 'none', expected a norm to apply")
    return MLP(tuple(widths), norm, activation, last_norm, last_affine, last_bias, dtype)
