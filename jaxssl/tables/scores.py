"""How sure a classifier is of every sample, and how wrong: scores to select by."""

import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.data.source import Source
from jaxssl.evals.subject import Subject
from jaxssl.method import Field
from jaxssl.tables.inputs import classes_of, labels_of, shape_of
from jaxssl.tables.table import Table, placeholder, sample_table

NAMES = ("confidence", "margin", "entropy", "loss")
FIELD = Field("target", (), "float32")


def make(
    subject: Subject,
    source: Source,
    *,
    output: str = "logits",
    labels: Table | None = None,
    column: str = "label",
) -> Table:
    """Of p = softmax(logits): confidence max_k p_k, its margin, entropy, and loss -log p_y.

    The loss, of labels that are there, is 0 for a sample without one.

    Args:
      subject: the encoder.
      source: of the samples.
      output: logits [N, K] of a head.
      labels: a table of classes, e.g. pseudo-labels; None is the samples' own, if they have any.
      column: of it.

    Raises:
      ConfigError: an output that is no vector, or has fewer classes than the labels.
    """
    names = _names(subject, source, output, labels, column)
    found = subject.features(source, output=output)
    x = found.x.astype(np.float64)
    log_p = x - x.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    p = np.exp(log_p)
    top = np.sort(p, axis=1)[:, ::-1]
    values = {"confidence": top[:, 0], "margin": top[:, 0] - top[:, 1]}
    values["entropy"] = -(p * log_p).sum(1)
    if "loss" in names:
        y = labels_of(source, found.index, found.y, labels, column)
        own = -np.take_along_axis(log_p, np.maximum(y, 0)[:, None], 1)[:, 0]
        values["loss"] = np.where(y >= 0, own, 0.0)
    columns = {name: (FIELD, values[name].astype(np.float32)) for name in names}
    return sample_table(source, found.index, columns)


def example(
    subject: Subject,
    source: Source,
    *,
    output: str = "logits",
    labels: Table | None = None,
    column: str = "label",
) -> Table:
    """As `make`, of zeros."""
    names = _names(subject, source, output, labels, column)
    columns = {name: placeholder(len(source), FIELD) for name in names}
    return sample_table(source, np.arange(len(source)), columns)


def _names(
    subject: Subject, source: Source, output: str, labels: Table | None, column: str
) -> tuple[str, ...]:
    width = shape_of(subject, source, output, rank=1)[0]
    if width < 2:
        raise ConfigError(f"output: {output!r} has width {width}, expected at least 2 classes")
    if labels is None and source.num_classes < 2:
        return NAMES[:-1]
    classes = classes_of(source, labels, column)
    if classes > width:
        raise ConfigError(f"output: {output!r} has width {width}, expected {classes}, the classes")
    return NAMES
