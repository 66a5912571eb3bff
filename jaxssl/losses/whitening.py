"""Whitening of a batch of embeddings, and a loss that only pulls whitened views together.

Where published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| each view whitened by itself | statistics shared by the views: another method |
| Cholesky | ZCA: the same distances between samples, other coordinates |
| both sides of a pair carry a gradient | one side stopped: half the gradient |
| 2 - 2 cos | the plain mean squared distance of whitened embeddings |
"""

import chex
import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError
from jaxssl.losses.redundancy import HIGHEST
from jaxssl.losses.vectors import unit


def whiten(z: jax.Array, *, epsilon: float = 0.0) -> jax.Array:
    """The embeddings with zero mean and, for ε = 0, the identity as their covariance.

    y_n = L^{-1} (z_n - mean) with L L^T = (1 - ε) S + ε I and S the unbiased covariance. Ermolov et
    al., 2021, "Whitening for self-supervised representation learning", arXiv 2007.06346. The
    gradient flows through the mean and through the Cholesky factor.

    Args:
      z: [N, P]; computed in float32.
      epsilon: ε in [0, 1]. At 0, embeddings that do not span all P directions give NaN.

    Returns:
      [N, P], float32.

    Raises:
      ConfigError: ε = 0 and N <= P, where the covariance cannot have an inverse.

    >>> z = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> bool(jnp.allclose(whiten(z), z * 3**0.5 / 2))
    True
    """
    chex.assert_rank(z, 2)
    samples, width = z.shape
    if epsilon == 0 and samples <= width:
        raise ConfigError(
            f"whiten: found {samples} samples of {width} features, expected more samples than "
            "features, or epsilon > 0"
        )
    z = z.astype(jnp.float32)
    y, shrinkage = z - z.mean(0), epsilon**0.5 * jnp.eye(width)
    # The second round finds a factor near I. Together they are the one Cholesky factor, but lose
    # to rounding as the condition number of z does, and not as its square, that of S.
    for _ in range(2):
        covariance = _gram(y) * ((1 - epsilon) / (samples - 1)) + _gram(shrinkage)
        factor = jnp.linalg.cholesky(covariance)
        y, shrinkage = _solve(factor, y), _solve(factor, shrinkage)
    return y


def w_mse(
    projections: jax.Array,
    key: jax.Array,
    *,
    group_size: int | None = None,
    iterations: int = 1,
    epsilon: float = 0.0,
) -> jax.Array:
    """Squared distance of the views' whitened, normalised embeddings, over random groups.

    L = mean over iterations, pairs u < v and n of |y_u[n] - y_v[n]|^2 = 2 - 2 cos, where y is the
    unit vector of `whiten`, applied to each view of each group of w samples by itself; an
    iteration cuts the batch into groups at random, the same for all views. Ermolov et al., 2021,
    "Whitening for self-supervised representation learning", arXiv 2007.06346.

    Args:
      projections: [V, B, P]; computed in float32.
      key: a PRNG key, equal on all devices; where w = B it changes nothing.
      group_size: w, which divides B and exceeds P; 2 P where it is None, as published.
      iterations: how often the batch is cut anew.
      epsilon: of `whiten`.

    Returns:
      Scalar, float32, from 0 to 4.

    Raises:
      ConfigError: fewer than two views, a group size that does not divide the batch or is not above
        P, or iterations below 1.

    >>> z = jax.random.normal(jax.random.key(0), (16, 4))
    >>> round(float(w_mse(jnp.stack([z, -z]), jax.random.key(1))), 3)
    4.0
    """
    chex.assert_rank(projections, 3)
    views, batch, width = projections.shape
    size = 2 * width if group_size is None else group_size
    if views < 2:
        raise ConfigError("w_mse: found 1 view, expected at least 2")
    if size < 1 or batch % size:
        raise ConfigError(f"group_size: found {size}, expected a divisor of the batch of {batch}")
    if size <= width:
        raise ConfigError(f"group_size: found {size}, expected more than the {width} features")
    if iterations < 1:
        raise ConfigError(f"iterations: found {iterations}, expected at least 1")
    keys = jax.random.split(key, iterations)
    orders = jax.vmap(lambda k: jax.random.permutation(k, batch))(keys)
    groups = projections.astype(jnp.float32)[:, orders.reshape(-1, size)]  # [V, groups, w, P]
    y = unit(jax.vmap(jax.vmap(lambda z: whiten(z, epsilon=epsilon)))(groups))
    # sum_{u < v} |y_u - y_v|^2 = V sum_v |y_v - mean|^2: linear in V, exactly 0 for equal views.
    spread = jnp.square(y - y.mean(0)).sum(-1).mean((1, 2)).sum()
    return spread * 2 / (views - 1)


def _gram(z: jax.Array) -> jax.Array:
    return jnp.matmul(z.T, z, precision=HIGHEST)


def _solve(factor: jax.Array, z: jax.Array) -> jax.Array:
    """L^{-1} z_n for every row of z."""
    with jax.default_matmul_precision("highest"):
        return jax.scipy.linalg.solve_triangular(factor, z.T, lower=True).T
