"""Vectors of unit length, in one place for losses, heads, memories and evals."""

import jax
import jax.numpy as jnp


def unit(x: jax.Array) -> jax.Array:
    """x / |x| over the last axis, in float32; a vector of zeros stays, with a finite gradient.

    >>> unit(jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    x = x.astype(jnp.float32)
    # The root of a clamped square: the norm itself has no gradient at zero.
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24))
