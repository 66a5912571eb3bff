"""Telling samples of another data set from held-out ones by frozen features, without training."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.spatial.distance import cdist
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score

from jaxssl import modalities
from jaxssl.config.errors import ConfigError
from jaxssl.data import Source
from jaxssl.evals.features import DeviceFeatures, Features, place, replicate, to_host
from jaxssl.evals.protocol import check_bank
from jaxssl.evals.subject import Subject, other_source
from jaxssl.losses.vectors import unit

OF_KIND = "image"
PROTOCOL: dict[str, Any] = {"source": "digits", "path": "", "limit": 2000, "k": 10, "chunk": 256}
OF_BANK = ("k",)


def examine(
    subject: Subject,
    *,
    source: str = "digits",
    path: str = "",
    limit: int = 2000,
    k: int = 10,
    chunk: int = 256,
) -> dict[str, float]:
    """AUROC of telling the run's held-out samples from the held-out ones of another data set.

    The probability that a sample of the run's data gets the higher score than one of the other
    set: 1 separates them, 0.5 is chance. Scores as of `mahalanobis` and `neighbours`, from the
    train bank; nothing is fitted to the other set.

    Args:
      subject: its encoder is asked for both sets.
      source: the other data set, as `data.source`; read by the run's `data` fields, in the shape
        of the run's samples.
      path: as `data.path`, of that set.
      limit: how many of its samples.
      k: the neighbour whose distance counts.
      chunk: queries at a time.

    Returns:
      {"mahalanobis": AUROC, "knn": AUROC}.

    Raises:
      ConfigError: the other set cannot be opened, has another shape, or is the run's own; or the
        bank holds fewer than k samples.
      FloatingPointError: features are not finite.
    """
    other = open_other(subject, source, path)
    train, test = subject.train, subject.test
    check_bank("out_of_distribution", {"k": k}, len(train.x))
    outside = subject.features(other, limit=limit)
    if not all(np.isfinite(bank.x).all() for bank in (train, test, outside)):
        raise FloatingPointError(
            f"the {subject.kind} features are not all finite: the encoder overflows"
        )
    queries = np.concatenate([test.x, outside.x])
    inside = np.arange(len(queries)) < len(test.x)
    return {
        "mahalanobis": float(roc_auc_score(inside, mahalanobis(train, queries))),
        "knn": float(roc_auc_score(inside, neighbours(train, queries, k=k, chunk=chunk))),
    }


def open_other(subject: Subject, source: str, path: str) -> Source:
    """The held-out split of another data set, in the shape of the run's samples.

    Raises:
      ConfigError: as `examine`.
    """
    program = subject.program
    shape = tuple(subject.field[1].shape)
    other = other_source(program, "out_of_distribution", "test", source=source, path=path)
    found = tuple(other.fields[modalities.main_field(other.fields)].shape)
    if found != shape:
        raise ConfigError(
            f"evals.out_of_distribution.source: found samples of shape {found} in "
            f"{other.name}, expected the run's {shape}"
        )
    if other.fingerprint == subject.test_source.fingerprint:
        raise ConfigError(
            f"evals.out_of_distribution.source: found {source!r}, the run's own data, expected "
            f"another data set"
        )
    return other


def mahalanobis(train: Features, x: np.ndarray) -> np.ndarray:
    """Minus the squared Mahalanobis distance to the nearest class mean, [N].

        M(x) = max_c -(x - mu_c)^T S^-1 (x - mu_c)

    mu_c are the class means of the bank, S the covariance of its samples about the means of their
    classes, shrunk towards its mean variance by Ledoit, Wolf (2004), A well-conditioned estimator
    for large-dimensional covariance matrices. Lee, Lee, Lee, Shin (2018), A simple unified
    framework for detecting out-of-distribution samples and adversarial attacks, arXiv 1807.03888:
    its confidence score of one layer, there without shrinkage.

    Args:
      train: the bank, with labels.
      x: [N, D], the samples to score.
    """
    labels, y = np.unique(train.y, return_inverse=True)
    bank = train.x.astype(np.float64)
    means = np.stack([bank[y == label].mean(axis=0) for label in range(len(labels))])
    covariance, _ = ledoit_wolf(bank - means[y], assume_centered=True)
    if not np.any(covariance):  # classes without any spread leave plain distances
        covariance = np.eye(len(covariance))
    # With S = L L^T the distance is Euclidean between L^-1 x and L^-1 mu.
    root = cholesky(covariance, lower=True)
    whiten = lambda rows: solve_triangular(root, rows.T, lower=True).T
    distances: np.ndarray = cdist(whiten(x.astype(np.float64)), whiten(means), "sqeuclidean")
    return -distances.min(axis=1)


def neighbours(train: Features, x: np.ndarray, *, k: int, chunk: int) -> np.ndarray:
    """Minus the distance from x / |x| to the k-th nearest of the bank's x_i / |x_i|, [N].

    Sun, Ming, Zhu, Li (2022), Out-of-distribution detection with deep nearest neighbors, arXiv
    2204.06507.

    Args:
      train: the bank.
      x: [N, D], the samples to score.
      k: which neighbour, at most the size of the bank.
      chunk: samples at a time; nothing larger than [chunk, size of the bank] is formed.
    """
    chunk = min(chunk, len(x))
    queries = np.pad(x, [(0, -len(x) % chunk), (0, 0)]).reshape(-1, chunk, x.shape[1])
    cosine = to_host(_kth_cosine(place(train), replicate(queries), k=k)).reshape(-1)[: len(x)]
    return -np.sqrt(np.maximum(2 - 2 * cosine.astype(np.float64), 0))


@functools.partial(jax.jit, static_argnames="k")
def _kth_cosine(train: DeviceFeatures, queries: jax.Array, *, k: int) -> jax.Array:
    """The k-th largest cosine with the bank, [chunks, chunk]."""
    bank = unit(train.x)

    def one(x: jax.Array) -> jax.Array:
        similarity = jnp.matmul(unit(x), bank.T, precision=jax.lax.Precision.HIGHEST)
        similarity = jnp.where(train.weight > 0, similarity, -jnp.inf)
        return jax.lax.top_k(similarity, k)[0][:, -1]

    return jax.lax.map(one, queries)
