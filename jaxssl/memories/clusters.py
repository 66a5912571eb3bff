"""k-means of the embeddings of all samples, renewed once an epoch."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.losses.vectors import unit
from jaxssl.memories import Memory, MemoryInput
from jaxssl.method import Info

State = dict[str, jax.Array]
# Centroids that are compared with the whole table at once.
BLOCK = 512
# The table has a multiple of this many rows, so that many devices can share it evenly.
ROUND = 1024


def build(
    *,
    views: int,
    info: Info,
    count: int,
    heads: int = 1,
    iterations: int = 10,
    every: float = 1.0,
) -> Memory:
    """Unit centroids C [H, K, P], and the cluster of every sample of the batch [H, B].

    Spherical k-means on a table of the last embedding of every sample, one table for each view;
    clustering h looks at view h mod V. It runs inside the step, at the end of each epoch: from K
    random rows, `iterations` times y = argmax_k <z, C_k>, C_k <- unit(sum of its rows); a cluster
    without rows keeps its centroid. Caron et al., 2020, "Unsupervised learning of visual features
    by contrasting cluster assignments" (DeepCluster-v2, in the appendix), arXiv 2006.09882.

    The first step clusters its own batch. A sample that no clustering has seen yet, as in the whole
    first epoch, is in the cluster nearest to its present embedding. The published recipe embeds
    all samples with the initial network instead: that is a weight of 0 for the first epoch.

    Args:
      views: V of the stack.
      info: the number of samples N, the global batch B and the steps of an epoch.
      count: K, at most N.
      heads: H, independent clusterings.
      iterations: of k-means, each time.
      every: epochs between two clusterings.

    Errors: ConfigError for numbers that are not positive, and more clusters than samples.
    """
    for field, value in (("count", count), ("heads", heads), ("iterations", iterations)):
        check_positive(field, (value,))
    if count > info.num_samples:
        raise ConfigError(f"count: found {count}, expected at most the {info.num_samples} samples")
    if every <= 0:
        raise ConfigError(f"every: found {every}, expected a positive number of epochs")
    period = max(1, round(every * info.steps_per_epoch))
    length = -(-info.num_samples // ROUND) * ROUND

    def init(key: jax.Array, shape: tuple[int, ...]) -> State:
        return {
            "table": jnp.zeros((views, length, shape[-1])),
            "seen": jnp.zeros(length, bool),
            "centroids": jnp.zeros((heads, count, shape[-1])),
            "codes": jnp.full((heads, length), -1, jnp.int32),
        }

    def started(state: State, seen: MemoryInput) -> jax.Array:
        """The centroids of the state, or at the first step those of its batch."""
        batch = unit(seen.stack)
        weights = jnp.ones(batch.shape[1])
        cluster = lambda: k_means(seen.key, batch, weights, heads, count, iterations)[0]
        return jax.lax.cond(seen.step == 0, cluster, lambda: state["centroids"])

    def read(state: State, seen: MemoryInput) -> tuple[jax.Array, jax.Array]:
        centroids = started(state, seen)
        codes = state["codes"][:, seen.batch["index"]]
        batch = unit(seen.stack)
        now = jnp.stack([nearest(batch[h % views], centroids[h]) for h in range(heads)])
        return centroids, jnp.where(codes < 0, now, codes)

    def update(state: State, seen: MemoryInput) -> State:
        index = seen.batch["index"]
        table = state["table"].at[:, index].set(unit(seen.stack))
        known = state["seen"].at[index].set(True)

        def cluster() -> tuple[jax.Array, jax.Array]:
            weights = known.astype(jnp.float32)
            return k_means(seen.key, table, weights, heads, count, iterations)

        keep = lambda: (started(state, seen), state["codes"])
        centroids, codes = jax.lax.cond((seen.step + 1) % period == 0, cluster, keep)
        return {"table": table, "seen": known, "centroids": centroids, "codes": codes}

    return Memory(init, read, update)


def k_means(
    key: jax.Array,
    tables: jax.Array,
    weights: jax.Array,
    heads: int,
    count: int,
    iterations: int,
) -> tuple[jax.Array, jax.Array]:
    """Spherical k-means of unit rows; clustering h is of table h mod V.

    Args:
      key: for the rows that it starts from.
      tables: [V, N, P].
      weights: [N], 1 for rows that count and 0 for those that do not; the latter are in no cluster.
      heads, count, iterations: H, K and the number of iterations.

    Returns:
      Centroids [H, K, P], of unit length or zeros where there are fewer rows than clusters; and
      clusters [H, N], -1 for rows that do not count.
    """
    size = tables.shape[1]

    def one(head: int) -> tuple[jax.Array, jax.Array]:
        rows = tables[head % len(tables)]
        draws = jax.random.uniform(jax.random.fold_in(key, head), (size,)) + weights
        # Rows that count come first; where there are fewer than K, the other clusters stay empty.
        order = jnp.argsort(-draws)[:count]
        start = jnp.where(weights[order, None] > 0, rows[order], 0.0)
        start = jnp.pad(start, ((0, max(0, count - size)), (0, 0)))

        def iterate(_: int, centroids: jax.Array) -> jax.Array:
            codes = nearest(rows, centroids)
            sums = jax.ops.segment_sum(rows * weights[:, None], codes, count)
            members = jax.ops.segment_sum(weights, codes, count)
            return jnp.where(members[:, None] > 0, unit(sums), centroids)

        centroids = jax.lax.fori_loop(0, iterations, iterate, start)
        return centroids, jnp.where(weights > 0, nearest(rows, centroids), -1)

    done: list[Any] = [one(head) for head in range(heads)]
    return jnp.stack([c for c, _ in done]), jnp.stack([y for _, y in done])


def nearest(rows: jax.Array, centroids: jax.Array) -> jax.Array:
    """argmax_k <row, C_k> [N] of the C_k that are not zeros, in blocks of few k."""
    count = len(centroids)
    best, codes = jnp.full(len(rows), -jnp.inf), jnp.zeros(len(rows), jnp.int32)
    for first in range(0, count, BLOCK):
        block = centroids[first : first + BLOCK]
        cosines = jnp.einsum("np,kp->nk", rows, block, precision=jax.lax.Precision.HIGHEST)
        cosines = jnp.where(jnp.any(block != 0, axis=1), cosines, -jnp.inf)
        top = cosines.max(1)
        codes = jnp.where(top > best, first + cosines.argmax(1).astype(jnp.int32), codes)
        best = jnp.maximum(best, top)
    return codes
