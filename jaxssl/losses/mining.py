"""Which sample is another's neighbour: the choice of positives among a pool of candidates."""

import chex
import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError
from jaxssl.losses.vectors import unit


def mine_neighbors(
    anchors: jax.Array,
    pool: jax.Array,
    keys: jax.Array,
    *,
    k: int,
    exclude: jax.Array | None = None,
) -> jax.Array:
    """The index in the pool of one of each anchor's k nearest, drawn uniformly.

    m(i) ~ Uniform(argtopk_l cos(y[i], c[l])): the order of cosines is that of the distances
    2 - 2 cos. Azabou et al., 2021, "Mine your own view: self-supervised learning through
    across-sample prediction", arXiv 2102.10106. No gradient. Of equal cosines the first counts.

    Args:
      anchors: y [B, D]; computed in float32.
      pool: c [L, D].
      keys: [B], one random key per anchor, so that its draw does not depend on the batch.
      k: how many neighbours are drawn from, 1 to L.
      exclude: [B, L], true where a candidate is not for that anchor; at least k must be left.

    Returns:
      [B], int32.

    Raises:
      ConfigError: `k` outside 1..L.

    >>> pool = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> keys = jax.random.split(jax.random.key(0), 2)
    >>> mine_neighbors(jnp.array([[2.0, 0.1], [0.1, 3.0]]), pool, keys, k=1).tolist()
    [0, 1]
    """
    chex.assert_rank((anchors, pool), 2)
    if not 1 <= k <= len(pool):
        raise ConfigError(f"k: found {k}, expected 1 to {len(pool)}, the candidates given")
    anchors, pool = jax.lax.stop_gradient((anchors, pool))
    y, c = unit(anchors), unit(pool)
    cosines = jnp.einsum("bd,ld->bl", y, c, precision=jax.lax.Precision.HIGHEST)
    if exclude is not None:
        cosines = jnp.where(exclude, -jnp.inf, cosines)
    _, nearest = jax.lax.top_k(cosines, k)
    pick = jax.vmap(lambda key: jax.random.randint(key, (), 0, k))(keys)
    return jnp.take_along_axis(nearest, pick[:, None], axis=1)[:, 0]
