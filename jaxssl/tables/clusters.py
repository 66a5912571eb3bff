"""Clusters of the samples: spherical k-means of an output, drawn by the stage's seed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.data.source import Source
from jaxssl.evals.subject import Subject
from jaxssl.losses.vectors import unit
from jaxssl.memories.clusters import k_means
from jaxssl.method import Field
from jaxssl.tables.inputs import shape_of
from jaxssl.tables.table import Table, placeholder, sample_table


def make(
    subject: Subject,
    source: Source,
    *,
    count: int,
    output: str = "pooled",
    iterations: int = 20,
    seed: int,
) -> Table:
    """The `cluster` of every sample, and its `cosine` with the centroid.

    `class_means` of the clusters are their centroids, but for their length.

    Args:
      subject: the encoder.
      source: of the samples.
      count: K, the number of clusters.
      output: of the encoder, vectors [N, D].
      iterations: of k-means.
      seed: of the rows that it starts from.

    Raises:
      ConfigError: more clusters than samples, or an output that is no vector.
    """
    _check(subject, source, count, output, iterations)
    found = subject.features(source, output=output)
    x = unit(jnp.asarray(found.x))
    ones = jnp.ones(len(x))
    fit = jax.jit(functools.partial(k_means, heads=1, count=count, iterations=iterations))
    centroids, codes = fit(jax.random.key(seed), x[None], ones)
    cosine = jnp.einsum("nd,nd->n", x, centroids[0][codes[0]])
    values = np.asarray(codes[0], np.int32), np.asarray(cosine, np.float32)
    columns = dict(zip(_fields(count), zip(_fields(count).values(), values)))
    return sample_table(source, found.index, columns)


def example(
    subject: Subject,
    source: Source,
    *,
    count: int,
    output: str = "pooled",
    iterations: int = 20,
    seed: int,
) -> Table:
    """As `make`, of zeros."""
    _check(subject, source, count, output, iterations)
    columns = {name: placeholder(len(source), field) for name, field in _fields(count).items()}
    return sample_table(source, np.arange(len(source)), columns)


def _check(subject: Subject, source: Source, count: int, output: str, iterations: int) -> None:
    if not 1 <= count <= len(source):
        raise ConfigError(f"count: found {count}, expected 1 to the {len(source)} samples")
    if iterations < 1:
        raise ConfigError(f"iterations: found {iterations}, expected at least 1")
    shape_of(subject, source, output, rank=1)


def _fields(count: int) -> dict[str, Field]:
    return {
        "cluster": Field("label", (), "int32", {"classes": count}),
        "cosine": Field("target", (), "float32"),
    }
