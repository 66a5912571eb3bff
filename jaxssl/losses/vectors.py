"""Lengths and neighbours of vectors, in one place for losses, heads, memories and evals."""

import jax
import jax.numpy as jnp


def unit(x: jax.Array) -> jax.Array:
    """x / |x| over the last axis, in float32; a vector of zeros stays, with a finite gradient.

    >>> unit(jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    x = x.astype(jnp.float32)
    # The root of a clamped square: the norm itself has no gradient at zero. A division, as `rsqrt`
    # is rounded more coarsely: an error of each row that a mean of logarithms shows.
    return x / jnp.sqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24))


def norm(x: jax.Array) -> jax.Array:
    """|x| over the last axis, kept with size 1, in float32; a vector of zeros has no gradient.

    >>> norm(jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[5.0], [0.0]]
    """
    squares = jnp.square(x.astype(jnp.float32)).sum(-1, keepdims=True)
    away = squares > 0
    return jnp.where(away, jnp.sqrt(jnp.where(away, squares, 1.0)), 0.0)


def nearest(x: jax.Array, vectors: jax.Array) -> jax.Array:
    """The number of the nearest vector: argmin_k |x - C_k|^2, the first of equals.

    Args:
      x: [..., P].
      vectors: C [K, P].

    Returns:
      [...], int32.

    >>> nearest(jnp.array([[[0.9], [4.0]]]), jnp.array([[0.0], [1.0], [3.0]])).tolist()
    [[1, 2]]
    """
    x, c = x.astype(jnp.float32), vectors.astype(jnp.float32)
    # Of near ties, rounding in low precision would pick others than float32 does.
    products = jnp.einsum("...p,kp->...k", x, c, precision=jax.lax.Precision.HIGHEST)
    return jnp.argmin(jnp.square(c).sum(-1) - 2 * products, axis=-1).astype(jnp.int32)
