"""Terms that pull embeddings towards a point, by squared distance or cosine, and one that spreads.

Where published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| `byol`, `simsiam`: one direction, the mean over the batch | BYOL sums both directions: weight 2 |
| `byol`: 2 - 2 cos, the squared distance of unit vectors | -cos, half of the gradient: `simsiam` |
| `low_bias_uniformity`: all pairs of the global batch | its official code: those of one device |
"""

import chex
import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError
from jaxssl.losses.vectors import unit


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


def byol(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Squared distance of the unit vectors of a prediction and of a target without gradient.

    L = mean_n |p_n / |p_n| - t_n / |t_n||^2 = 2 - 2 mean_n cos(p_n, t_n), t held fixed. Grill et
    al., 2020, "Bootstrap your own latent", arXiv 2006.07733, eq. 2. This is one direction; the
    paper's loss is the sum over both, twice the mean that `over_pairs(byol, "cross")` gives for two
    views.

    Args:
      prediction: [B, P], the online predictor's; computed in float32.
      target: [B, P], the target projector's.

    Returns:
      Scalar, float32, from 0 to 4.

    >>> p = jnp.array([[1.0, 0.0], [2.0, 0.0]])
    >>> float(byol(p, jnp.array([[3.0, 0.0], [0.0, 1.0]])))
    1.0
    """
    return 2 + 2 * simsiam(prediction, target)


def simsiam(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Negative cosine of a prediction and of a target without gradient.

    L = -mean_n cos(p_n, z_n), z held fixed. Chen and He, 2021, "Exploring simple siamese
    representation learning", arXiv 2011.10566, eq. 1. The paper's loss is the mean over both
    directions, `over_pairs(simsiam, "cross")` for two views.

    Args:
      prediction: [B, P], the predictor's; computed in float32.
      target: [B, P], a projector's.

    Returns:
      Scalar, float32, from -1 to 1.

    >>> p = jnp.array([[1.0, 0.0], [2.0, 0.0]])
    >>> float(simsiam(p, jnp.array([[3.0, 0.0], [0.0, 1.0]])))
    -0.5
    """
    chex.assert_rank((prediction, target), 2)
    chex.assert_equal_shape((prediction, target))
    target = jax.lax.stop_gradient(target)
    return -(unit(prediction) * unit(target)).sum(-1).mean()


def low_bias_uniformity(projections: jax.Array, *, temperature: float = 2.0) -> jax.Array:
    """How alike embeddings of different samples are: the log of the mean of exp(cos / T).

    L = log mean_{i, j: n(i) != n(j)} exp(cos(z_i, z_j) / T) over the V B embeddings, n(i) being the
    sample of i: neither an embedding itself nor the other views of its sample count. The mean comes
    before the logarithm, which has less bias as an estimate of mutual information than the mean of
    logarithms of InfoNCE, and is never smaller. Lu et al., 2022, "Self-supervision can be a good
    few-shot learner", arXiv 2207.09176. The gradient flows through both sides.

    Args:
      projections: [V, B, P]; computed in float32.
      temperature: T, positive; exp(1 / T) leaves float32 below 0.012.

    Returns:
      Scalar, float32, from -1 / T to 1 / T.

    Raises:
      ConfigError: a batch of one sample, which has no pairs.

    >>> float(low_bias_uniformity(jnp.stack([jnp.eye(2)] * 2)))  # other samples are orthogonal
    0.0
    """
    chex.assert_rank(projections, 3)
    views, batch, _ = projections.shape
    if batch < 2:
        raise ConfigError(f"projections: found a batch of {batch}, expected at least 2 samples")
    z = unit(projections)
    cosines = jnp.einsum("vbp,wcp->vbwc", z, z, precision=jax.lax.Precision.HIGHEST)
    others = ~jnp.eye(batch, dtype=bool)[:, None, :]
    # The value is near zero: log(mean exp) would leave of it the rounding of log(V B (V B - V)).
    excess = jnp.where(others, jnp.expm1(cosines / temperature), 0).sum()
    return jnp.log1p(excess / (views * batch * views * (batch - 1)))


def _spread(z: jax.Array, around: jax.Array) -> jax.Array:
    return jnp.square(around.mean(0) - z).mean()
