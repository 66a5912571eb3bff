"""What makers read: outputs of the encoder by sample, and the classes of samples."""

import numpy as np

from jaxssl.config.errors import ConfigError, near
from jaxssl.data.part import stored_places
from jaxssl.data.source import Array, Source
from jaxssl.evals.subject import Subject
from jaxssl.tables.table import Table


def shape_of(
    subject: Subject, source: Source, output: str, *, field: str = "output", rank: int | None = None
) -> tuple[int, ...]:
    """The shape of an output of one sample.

    Args:
      subject: the encoder.
      source: of the samples.
      output: of the encoder.
      field: that names the output, for messages.
      rank: that it must have; None is any.

    Raises:
      ConfigError: the encoder does not give it, or not with that rank.
    """
    try:
        shape = subject.shape_of(source, output)[1:]
    except ConfigError as error:
        raise ConfigError(f"{field}: {str(error).removeprefix('evals: ')}") from None
    if rank is not None and len(shape) != rank:
        raise ConfigError(f"{field}: {output!r} has shape {list(shape)}, expected {rank} axes")
    return shape


def labels_of(
    source: Source, positions: Array, own: Array, labels: Table | None, column: str
) -> Array:
    """The class [N] of samples: their own, or what a table says; -1 where there is none.

    Args:
      source: of the samples.
      positions: theirs in it.
      own: [N], their own classes.
      labels: a table of samples.
      column: of it.
    """
    if labels is None:
        return own
    whole, places = stored_places(source)
    found = np.full(len(whole), -1, np.int32)
    found[labels.index] = labels.columns[column]
    chosen: Array = found[places[positions]]
    return chosen


def classes_of(source: Source, labels: Table | None, column: str) -> int:
    """How many classes there are.

    Args:
      source: of the samples.
      labels: a table of their classes; None is their own.
      column: of it.

    Raises:
      ConfigError: no labels there, or the table is of other samples.
    """
    if labels is None:
        if source.num_classes < 2:
            raise ConfigError(f"labels: missing; {source.name} has no labels of its own")
        return source.num_classes
    check_column(source, labels, column, "labels")
    if labels.fields[column].kind != "label" or "classes" not in labels.fields[column].facts:
        raise ConfigError(f"column: found {column!r}, expected a column of classes")
    return int(labels.fields[column].facts["classes"])


def check_column(source: Source, table: Table, column: str, field: str) -> None:
    """Refuses a table of other samples, or without a column of one number a sample.

    Args:
      source: of the samples.
      table: that is read.
      column: of it.
      field: of the maker, for messages.

    Raises:
      ConfigError: naming that field.
    """
    if table.samples != stored_places(source)[0].fingerprint:
        raise ConfigError(f"{field}: found a table of other samples than {source.name}")
    if column not in table.fields:
        raise ConfigError(f"{field}: no column {column!r}{near(column, table.fields)}")
    if table.fields[column].shape:
        raise ConfigError(f"{field}: column {column!r} is no number a sample")
