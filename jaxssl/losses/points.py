"""Sets of points: their distance, a few that stand for all, and neighbourhoods."""

from typing import Any

import chex
import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_choice


def chamfer(
    x: jax.Array,
    y: jax.Array,
    x_lengths: jax.Array | None = None,
    y_lengths: jax.Array | None = None,
    *,
    norm: int = 2,
) -> jax.Array:
    """Chamfer distance: from each point to the nearest of the other cloud, both ways added.

    L = mean_b [mean_i min_j d(x_i, y_j) + mean_j min_i d(x_i, y_j)], d = |x - y|^2 for norm 2 and
    |x - y|_1 for norm 1. Fan, Su, Guibas, 2017, "A point set generation network for 3D object
    reconstruction from a single image", arXiv 1612.00603. Elsewhere an L1 Chamfer distance often
    means the roots of the squared ones.

    Args:
      x, y: [B, P, D] and [B, Q, D]; computed in float32.
      x_lengths, y_lengths: [B], how many of the points count; all by default.
      norm: 1 or 2.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: another norm.

    >>> float(chamfer(jnp.zeros((1, 2, 3)), jnp.ones((1, 4, 3))))
    6.0
    """
    chex.assert_rank((x, y), 3)
    check_choice("norm", norm, (1, 2))
    apart = x[:, :, None].astype(jnp.float32) - y[:, None].astype(jnp.float32)
    distances = (jnp.square(apart) if norm == 2 else jnp.abs(apart)).sum(-1)
    counts = lambda length, size: (
        jnp.ones((len(x), size), bool)
        if length is None
        else jnp.arange(size) < jnp.asarray(length)[:, None]
    )
    own, other = counts(x_lengths, x.shape[1]), counts(y_lengths, y.shape[1])
    far = jnp.where(own[:, :, None] & other[:, None], distances, jnp.inf)
    mean = lambda nearest, valid: jnp.where(valid, nearest, 0).sum(1) / jnp.maximum(valid.sum(1), 1)
    return (mean(far.min(2), own) + mean(far.min(1), other)).mean()


def farthest_points(points: jax.Array, *, k: int) -> jax.Array:
    """Indices of k points, each the farthest from those before; the first is point 0.

    i_{m+1} = argmax_i min_{j <= m} |p_i - p_{i_j}|^2, ties to the lowest index. Qi, Yi, Su, Guibas,
    2017, "PointNet++", arXiv 1706.02413.

    Args:
      points: [B, P, D]; no gradient.
      k: how many, at most P.

    Returns:
      int32 [B, k].

    >>> farthest_points(jnp.array([[[0.0], [1.0], [5.0], [3.0]]]), k=3).tolist()
    [[0, 2, 3]]
    """
    chex.assert_rank(points, 3)
    points = jax.lax.stop_gradient(points).astype(jnp.float32)

    def of_cloud(cloud: jax.Array) -> jax.Array:
        def following(state: Any, _: None) -> tuple[Any, jax.Array]:
            nearest, last = state
            nearest = jnp.minimum(nearest, jnp.square(cloud - cloud[last]).sum(-1))
            return (nearest, jnp.argmax(nearest).astype(jnp.int32)), last

        start = jnp.full(len(cloud), jnp.inf), jnp.int32(0)
        return jax.lax.scan(following, start, None, length=k)[1]

    return jax.vmap(of_cloud)(points)


def knn_groups(points: jax.Array, centers: jax.Array, *, k: int) -> tuple[jax.Array, jax.Array]:
    """The k points nearest to each centre, as seen from it, and their indices, nearest first.

    A point that is a centre itself is among its own. Qi, Yi, Su, Guibas, 2017, "PointNet++", arXiv
    1706.02413.

    Args:
      points: [B, P, D]; computed in float32.
      centers: [B, G, D].
      k: how many, at most P.

    Returns:
      points - centre [B, G, k, D], and int32 [B, G, k].

    >>> groups, index = knn_groups(jnp.array([[[0.0], [4.0], [5.0]]]), jnp.array([[[5.0]]]), k=2)
    >>> groups.ravel().tolist(), index.ravel().tolist()
    ([0.0, -1.0], [2, 1])
    """
    chex.assert_rank((points, centers), 3)
    points, centers = points.astype(jnp.float32), centers.astype(jnp.float32)
    apart = jnp.square(centers[:, :, None] - points[:, None]).sum(-1)
    index = jax.lax.top_k(-jax.lax.stop_gradient(apart), k)[1].astype(jnp.int32)
    near = jax.vmap(lambda cloud, chosen: cloud[chosen])(points, index)
    return near - centers[:, :, None], index
