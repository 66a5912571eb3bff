"""The labelled subset: some samples of each class, drawn by the stage's seed."""

import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.data.source import Array, Source
from jaxssl.method import Field
from jaxssl.tables.table import Table, sample_table

CHUNK = 1024  # samples that are read at once


def make(subject: None, source: Source, *, per_class: int, seed: int) -> Table:
    """`per_class` samples of each class, and their `label`; all of a class that has fewer.

    Args:
      subject: none.
      source: of the samples.
      per_class: how many of each class.
      seed: of the choice.

    Raises:
      ConfigError: data without labels.
    """
    _check(source, per_class)
    every = np.arange(len(source))
    parts = [source.rows(every[i : i + CHUNK])["label"] for i in range(0, len(every), CHUNK)]
    labels = np.concatenate(parts)
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = [order[labels[order] == k][:per_class] for k in range(source.num_classes)]
    index = np.sort(np.concatenate(chosen))
    return _table(source, index, labels[index].astype(np.int32))


def example(subject: None, source: Source, *, per_class: int, seed: int) -> Table:
    """As `make`: the first samples, all of class 0."""
    _check(source, per_class)
    count = min(per_class * source.num_classes, len(source))
    return _table(source, np.arange(count), np.zeros(count, np.int32))


def _check(source: Source, per_class: int) -> None:
    if source.num_classes < 2:
        raise ConfigError(f"name: {source.name} has no labels")
    if per_class < 1:
        raise ConfigError(f"per_class: found {per_class}, expected at least 1")


def _table(source: Source, index: Array, labels: Array) -> Table:
    field = Field("label", (), "int32", {"classes": source.num_classes})
    return sample_table(source, index, {"label": (field, labels)})
