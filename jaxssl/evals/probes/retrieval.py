"""Retrieval by frozen features: are the most similar train samples of the query's class?"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.devices.sharding import batch_sharded
from jaxssl.evals.features import DeviceFeatures, Features, place, replicate, to_host
from jaxssl.evals.protocol import check_bank
from jaxssl.losses.vectors import unit

PROTOCOL: dict[str, Any] = {"k": 10, "chunk": 256}
OF_BANK = ("k",)


def evaluate(
    train: Features, test: Features, *, num_classes: int, k: int = 10, chunk: int = 256
) -> dict[str, float]:
    """Mean average precision, precision at k and recall at 1 of ranking the bank by cosine.

        AP = 1/R sum over the R relevant samples i of |relevant at least as similar as i|
                                                    / |samples at least as similar as i|

    Relevant is a train sample with the query's label. Equally similar samples have no order: AP
    counts them all, as scikit-learn's `average_precision_score` does, and precision at k is the
    expectation over their orders; so that neither depends on how the bank is sorted. Definition of
    AP without ties: Manning, Raghavan, Schütze (2008), Introduction to information retrieval, 8.4.
    Recall at 1: Jegou, Douze, Schmid (2011), Product quantization for nearest neighbor search.

    Args:
      train: the bank that is ranked, x [N, D]; the cosine is of features as they are.
      test: the queries. One whose class is not in the bank has no AP, and is left out of all means.
      num_classes: unused: labels are only compared.
      k: of precision at k.
      chunk: queries at a time; nothing larger than [chunk, N] is formed.

    Returns:
      {"mean_average_precision", "precision_at_<k>", "recall_at_1"}: means over queries, 0 ... 1;
      "recall_at_1" is the part of the queries whose nearest train sample is relevant.

    Raises:
      ConfigError: the bank holds fewer than k samples, or no sample of any query's class.
    """
    del num_classes
    check_bank("retrieval", {"k": k}, len(train.x))
    found = np.isin(test.y, train.y)
    if not found.any():
        raise ConfigError(
            "evals.retrieval: found no sample of any query's class in the bank, expected some "
            "(a larger evals.bank holds more)"
        )
    values = per_query(train, test, k=k, chunk=chunk)[found].mean(axis=0)
    names = ("mean_average_precision", f"precision_at_{k}", "recall_at_1")
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def per_query(train: Features, test: Features, *, k: int, chunk: int) -> np.ndarray:
    """float64 [N, 3]: average precision, precision at k and at 1 of each query, as of `evaluate`.

    NaN is the average precision of a query without a relevant sample.
    """
    chunk = min(chunk, len(test.x))
    extra = -len(test.x) % chunk
    queries = np.pad(test.x, [(0, extra), (0, 0)]).reshape(-1, chunk, test.x.shape[1])
    labels = np.pad(test.y, (0, extra)).reshape(-1, chunk)
    values = to_host(_ranked(place(train), replicate(queries), replicate(labels), k=k))
    return values.reshape(-1, 3)[: len(test.x)].astype(np.float64)


@functools.partial(jax.jit, static_argnames="k")
def _ranked(train: DeviceFeatures, queries: jax.Array, labels: jax.Array, *, k: int) -> jax.Array:
    """[chunks, chunk, 3]: average precision, precision at k and at 1."""
    bank = unit(train.x)

    def one(chunk: tuple[jax.Array, jax.Array]) -> jax.Array:
        x, y = chunk
        similarity = jnp.matmul(unit(x), bank.T, precision=jax.lax.Precision.HIGHEST)
        distance = jnp.where(train.weight > 0, -similarity, jnp.inf)  # padding comes last
        relevant = ((y[:, None] == train.y) & (train.weight > 0)).astype(jnp.int32)
        # The product is split over the bank; its rows are sorted whole, each on one device.
        distance, relevant = jax.lax.sort(batch_sharded((distance, relevant)), num_keys=1)
        return jax.vmap(functools.partial(_scores, k=k))(distance, relevant)

    return jax.lax.map(one, (queries, labels))


def _scores(distance: jax.Array, relevant: jax.Array, k: int) -> jax.Array:
    """Of one query's distances [N], ascending, and whether each is of a relevant sample."""
    n = len(distance)
    place = jnp.arange(n)
    hits = jnp.cumsum(relevant)
    changes = distance[1:] != distance[:-1]
    # The first and the last place of those that are as near as the one here.
    last = jax.lax.cummin(jnp.where(jnp.append(changes, True), place, n - 1), reverse=True)
    first = jax.lax.cummax(jnp.where(jnp.append(True, changes), place, 0))
    precision = hits[last] / (last + 1)
    average = jnp.sum(relevant * precision) / hits[-1]

    def precision_at(k: int) -> jax.Array:
        low, high = first[k - 1], last[k - 1]
        before = jnp.where(low > 0, hits[low - 1], 0)
        share = (hits[high] - before) / (high + 1 - low)
        return (before + share * (k - low)) / k

    return jnp.stack([average, precision_at(k), precision_at(1)])
