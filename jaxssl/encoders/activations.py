"""Activations of transformers, ConvNeXt and heads; their gradients keep what went in alone.

The rest is made again there, which moves fewer bytes than it would take to keep it.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


@jax.checkpoint
def gelu(x: jax.Array, bias: jax.Array | float = 0.0) -> jax.Array:
    """gelu(y) = y (1 + erf(y / sqrt(2))) / 2 of y = x + bias, computed in float32 at least.

    Hendrycks & Gimpel 2016, "Gaussian error linear units (GELUs)", arXiv:1606.08415. JAX's own is
    written with erfc, whose two branches are both computed: on a CPU it takes twice the time of
    this form, its gradient three times, and in bfloat16 more.

    Args:
      x: [..., D].
      bias: [D], or a number.

    Returns:
      As x, in the same type.

    >>> [round(float(y), 4) for y in gelu(jnp.array([-1.0, 0.0, 1.0]))]
    [-0.1587, 0.0, 0.8413]
    """
    y = _wide(x) + bias
    return (0.5 * y * (1 + jax.lax.erf(y * 0.5**0.5))).astype(x.dtype)


@jax.checkpoint
def swiglu(x: jax.Array, bias: jax.Array | float = 0.0) -> jax.Array:
    """silu(a) * b of x + bias = [a, b]: [..., 2 D] -> [..., D]. Shazeer 2020, arXiv:2002.05202."""
    # Halved before anything is widened: else a TPU writes the whole in float32 and reads it twice.
    biases = jnp.split(jnp.broadcast_to(bias, x.shape[-1:]), 2)
    gate, value = (_wide(y) + b for y, b in zip(jnp.split(x, 2, axis=-1), biases))
    return (nn.silu(gate) * value).astype(x.dtype)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
