"""The Euclidean minimum spanning tree of a batch, and losses that make it long on a soft sphere."""

import chex
import jax
import jax.numpy as jnp

from jaxssl.devices.sharding import replicated


def minimum_spanning_tree(z: jax.Array) -> jax.Array:
    """The edges of the Euclidean minimum spanning tree, without gradient.

    Prim's algorithm (1957, "Shortest connection networks and some generalizations") from sample 0:
    N - 1 steps, each of which adds the sample nearest to the tree. Squared distances are taken from
    differences, one row at a time: time O(N^2 P), memory O(N P). Ties go to the lower index.

    Args:
      z: [N, P], N >= 1; computed in float32.

    Returns:
      [N - 1, 2], int32: (in the tree already, added), in the order in which they were added.

    >>> minimum_spanning_tree(jnp.array([[0.0], [3.0], [1.0]])).tolist()
    [[0, 2], [2, 1]]
    """
    chex.assert_rank(z, 2)
    z = replicated(jax.lax.stop_gradient(z.astype(jnp.float32)))
    samples = z.shape[0]
    numbers = jnp.arange(samples)

    def distances(i: jax.Array) -> jax.Array:
        return jnp.square(z - z[i]).sum(1)

    def add(step: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        best, parent, outside, edges = carry
        new = jnp.argmin(jnp.where(outside, best, jnp.inf)).astype(jnp.int32)
        edges = edges.at[step].set(jnp.stack([parent[new], new]))
        outside = outside & (numbers != new)
        found = distances(new)
        closer = found < best
        return jnp.where(closer, found, best), jnp.where(closer, new, parent), outside, edges

    start = (
        distances(jnp.int32(0)),
        jnp.zeros(samples, jnp.int32),
        numbers != 0,
        jnp.zeros((samples - 1, 2), jnp.int32),
    )
    return jax.lax.fori_loop(0, samples - 1, add, start)[3]


def tree_length_regularizer(z: jax.Array) -> jax.Array:
    """Minus the length of the minimum spanning tree, per sample.

    L = -(1 / N) sum_{(i, j) in tree} |z_i - z_j|. Mordacq et al., 2025, "T-REGS: minimum spanning
    tree regularization for self-supervised learning", arXiv 2510.23484. The tree is that of the
    global batch; the gradient moves the ends of its edges and not its topology. Unbounded from
    below: it needs `soft_sphere` beside it.

    Args:
      z: [N, P], not normalised; computed in float32.

    Returns:
      Scalar, float32; 0 with zero gradient where all samples are one point.

    >>> float(tree_length_regularizer(jnp.array([[0.0], [1.0], [3.0]])))
    -1.0
    """
    edges = minimum_spanning_tree(z)
    z = z.astype(jnp.float32)
    squared = jnp.square(z[edges[:, 0]] - z[edges[:, 1]]).sum(1)
    return -_safe_sqrt(squared).sum() / z.shape[0]


def soft_sphere(z: jax.Array) -> jax.Array:
    """Mean squared distance of the embeddings from the unit sphere: mean_n (|z_n| - 1)^2.

    Mordacq et al., 2025, "T-REGS: minimum spanning tree regularization for self-supervised
    learning", arXiv 2510.23484.

    Args:
      z: [N, P]; computed in float32.

    Returns:
      Scalar, float32; the gradient of a zero vector is zero.

    >>> float(soft_sphere(jnp.array([[3.0, 4.0]])))
    16.0
    """
    chex.assert_rank(z, 2)
    norms = _safe_sqrt(jnp.square(z.astype(jnp.float32)).sum(1))
    return jnp.square(norms - 1).mean()


def _safe_sqrt(x: jax.Array) -> jax.Array:
    """sqrt(x), with zero gradient at 0."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)
