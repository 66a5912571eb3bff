"""Terms that pull embeddings towards a point: squared distances, cosines."""

import chex
import jax
import jax.numpy as jnp

from jaxssl.errors import ConfigError


def lejepa_prediction(projections: jax.Array, *, num_global: int) -> jax.Array:
    """Mean squared distance of every view from the mean of the sample's global views.

    L = mean_{v, n, p} (mu[n, p] - z[v, n, p])^2 over ALL views v, globals included, where
    mu = (1 / V_g) sum_{v < V_g} z[v]. Balestriero and LeCun, 2025, "LeJEPA", arXiv 2511.08544: its
    text writes the squared norm, its listing (and this) averages over P too. The gradient flows
    through mu; for a mean that a teacher provides, `view_mean_prediction`.

    Args:
      projections: [V, B, P], global views first; computed in float32.
      num_global: V_g, from 1 to V.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: `num_global` outside 1..V.

    >>> z = jnp.array([1.0, 3.0]).reshape(2, 1, 1)
    >>> float(lejepa_prediction(z, num_global=2))
    1.0
    """
    chex.assert_rank(projections, 3)
    views = projections.shape[0]
    if not 1 <= num_global <= views:
        raise ConfigError(f"num_global: found {num_global}, expected 1 to {views}, the views given")
    z = projections.astype(jnp.float32)
    return _spread(z, z[:num_global])


def view_mean_prediction(projections: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean squared distance of every view from the mean of a teacher's views of the sample.

    L = mean_{v, n, p} (mu[n, p] - z[v, n, p])^2 with mu = mean_w t[w]. The variant of
    `lejepa_prediction` whose mean comes from an averaged copy of the network; Balestriero and
    LeCun, 2025, "LeJEPA", arXiv 2511.08544. No gradient to the targets.

    Args:
      projections: [V, B, P], the student's; computed in float32.
      targets: [Vt, B, P], the teacher's.

    Returns:
      Scalar, float32.
    """
    chex.assert_rank((projections, targets), 3)
    chex.assert_equal_shape_suffix((projections, targets), 2)
    targets = jax.lax.stop_gradient(targets)
    return _spread(projections.astype(jnp.float32), targets.astype(jnp.float32))


def _spread(z: jax.Array, around: jax.Array) -> jax.Array:
    return jnp.square(around.mean(0) - z).mean()
