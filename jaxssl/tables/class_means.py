"""The mean of an output over the samples of each class, or of each cluster."""

import numpy as np

from jaxssl.data.source import Source
from jaxssl.evals.subject import Subject
from jaxssl.method import Field
from jaxssl.tables.inputs import classes_of, labels_of, shape_of
from jaxssl.tables.table import Table, placeholder


def make(
    subject: Subject,
    source: Source,
    *,
    output: str = "pooled",
    labels: Table | None = None,
    column: str = "label",
) -> Table:
    """By class k: mean [D] = mean of x_n over y_n = k, and count; zeros where it has no samples.

    Args:
      subject: the encoder.
      source: of the samples.
      output: of the encoder, vectors [N, D].
      labels: a table of classes, e.g. pseudo-labels or clusters; None is the samples' own.
      column: of it.

    Raises:
      ConfigError: no labels, or an output that is no vector.
    """
    classes = classes_of(source, labels, column)
    shape_of(subject, source, output, rank=1)
    found = subject.features(source, output=output)
    y = labels_of(source, found.index, found.y, labels, column)
    member = np.eye(classes)[y[y >= 0]]  # [N, K]
    count = member.sum(0)
    mean = member.T @ found.x[y >= 0].astype(np.float64) / np.maximum(count, 1)[:, None]
    columns = {"mean": mean.astype(np.float32), "count": count.astype(np.int32)}
    index = np.arange(classes, dtype=np.int32)
    return Table(index, columns, _fields(mean.shape[1]))


def example(
    subject: Subject,
    source: Source,
    *,
    output: str = "pooled",
    labels: Table | None = None,
    column: str = "label",
) -> Table:
    """As `make`, of zeros."""
    classes = classes_of(source, labels, column)
    fields = _fields(*shape_of(subject, source, output, rank=1))
    columns = {name: placeholder(classes, field)[1] for name, field in fields.items()}
    return Table(np.arange(classes, dtype=np.int32), columns, fields)


def _fields(width: int) -> dict[str, Field]:
    return {"mean": Field("target", (width,), "float32"), "count": Field("target", (), "int32")}
