"""Losses in their plainest form: what tests and measurements compare the fast ones with."""

import chex
import jax
import jax.numpy as jnp
import numpy as np


def sigreg_plain(
    z: jax.Array,
    directions: jax.Array,
    knots: np.ndarray | jax.Array,
    weights: np.ndarray | jax.Array,
) -> jax.Array:
    """`jaxssl.losses.sigreg` term by term, with any knots, through a tensor [N, S, T].

    mean_s N sum_j w_j phi_j [(C_js - phi_j)^2 + S_js^2], where C_js = mean_n cos(t_j u_ns),
    S_js = mean_n sin(t_j u_ns), phi_j = exp(-t_j^2 / 2), u = z A. Balestriero and LeCun, 2025,
    "LeJEPA", arXiv 2511.08544.

    Args:
      z: [N, P].
      directions: [P, S], unit columns. No gradient.
      knots: t [T].
      weights: w [T], of the quadrature alone.

    Returns:
      Scalar, float32.

    >>> from jaxssl.losses import half_line_knots
    >>> round(float(sigreg_plain(jnp.ones((1, 1)), jnp.eye(1), *half_line_knots())), 4)
    1.186
    """
    chex.assert_rank((z, directions, knots, weights), (2, 2, 1, 1))
    t, w = jnp.asarray(knots, jnp.float32), jnp.asarray(weights, jnp.float32)
    phi = jnp.exp(-0.5 * t**2)
    directions = jax.lax.stop_gradient(directions).astype(jnp.float32)
    u = jnp.matmul(z.astype(jnp.float32), directions, precision=jax.lax.Precision.HIGHEST)
    angles = u[:, :, None] * t
    cos, sin = jnp.cos(angles).mean(0), jnp.sin(angles).mean(0)
    return (z.shape[0] * (w * phi * ((cos - phi) ** 2 + sin**2)).sum(-1)).mean()
