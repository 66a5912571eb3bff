"""Nearest-neighbour classification of frozen features."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.evals.features import DeviceFeatures, Features, place, replicate
from jaxssl.evals.protocol import check_bank
from jaxssl.losses.vectors import unit

PROTOCOL: dict[str, Any] = {"k": 20, "temperature": 0.07, "chunk": 256}
OF_BANK = ("k",)

# Rows of the bank that are searched by their maximum first; about sqrt(N / k) for usual banks.
_GROUP = 32


def evaluate(
    train: Features,
    test: Features,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int = 256,
) -> dict[str, float]:
    """Accuracy of a temperature-weighted vote among the k most similar train samples.

        votes[c] = sum over the k neighbours i of exp(cos(x, x_i) / temperature) [y_i = c]

    The cosine is of the features as they are, uncentred. Wu, Xiong, Yu, Lin (2018), Unsupervised
    feature learning via non-parametric instance discrimination, arXiv 1805.01978.

    Args:
      train: the bank that is searched, x [N, D].
      test: the queries; their labels are only compared with the votes.
      num_classes: labels lie in 0 ... num_classes - 1.
      k: neighbours that vote.
      temperature: of the weights; lower listens more to the nearest.
      chunk: queries at a time; nothing larger than [chunk, N] is formed.

    Returns:
      {"accuracy": fraction of the test samples, 0 ... 1}.

    Raises:
      ConfigError: the bank holds fewer than k samples.
    """
    check_bank("knn", {"k": k}, len(train.x))
    queries, labels, weight = _chunks(test, min(chunk, len(test.x)))
    right = hits(
        place(train, _GROUP), queries, labels, weight, temperature, k=k, num_classes=num_classes
    )
    return {"accuracy": float(right) / len(test.x)}


def _chunks(test: Features, chunk: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries [chunks, chunk, D], labels and weights [chunks, chunk]; padding weighs zero."""
    extra = -len(test.x) % chunk
    x = np.pad(test.x, [(0, extra), (0, 0)])
    weight = np.pad(np.ones(len(test.x), np.float32), (0, extra))
    shape = (-1, chunk)
    return (
        replicate(x.reshape(*shape, x.shape[1])),
        replicate(np.pad(test.y, (0, extra)).reshape(shape)),
        replicate(weight.reshape(shape)),
    )


@functools.partial(jax.jit, static_argnames=("k", "num_classes"))
def hits(
    train: DeviceFeatures,
    queries: jax.Array,
    labels: jax.Array,
    weight: jax.Array,
    temperature: jax.Array,
    *,
    k: int,
    num_classes: int,
) -> jax.Array:
    """How many queries the vote gets right."""
    bank = unit(train.x)

    def one(chunk: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        x, y, real = chunk
        similarity = jnp.matmul(unit(x), bank.T, precision=jax.lax.Precision.HIGHEST)
        similarity = jnp.where(train.weight > 0, similarity, -jnp.inf)
        nearest, where = _top_k(similarity, k)
        # Shifted by the nearest: the same vote, and no overflow at any temperature.
        vote = jnp.exp((nearest - nearest[:, :1]) / temperature)
        ballots = jax.nn.one_hot(train.y[where], num_classes) * vote[..., None]
        return jnp.sum(real * (jnp.argmax(ballots.sum(axis=1), axis=-1) == y))

    return jnp.sum(jax.lax.map(one, (queries, labels, weight)))


def _top_k(similarity: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The k largest of each row and their columns, as `lax.top_k` of [B, N] but ties in any order.

    Exact: an entry outside the k groups with the largest maxima has k entries at least as large.
    Sorting N / g maxima and k g candidates costs a small part of sorting N.
    """
    groups = similarity.reshape(len(similarity), -1, _GROUP)
    best = groups.max(axis=-1)
    _, chosen = jax.lax.top_k(best, min(k, best.shape[1]))
    candidates = jnp.take_along_axis(groups, chosen[..., None], axis=1)
    nearest, place = jax.lax.top_k(candidates.reshape(len(similarity), -1), k)
    group = jnp.take_along_axis(chosen, place // _GROUP, axis=1)
    return nearest, group * _GROUP + place % _GROUP
