"""Pseudo-labels: the likeliest class of every sample, how likely it is, and all probabilities."""

import numpy as np

from jaxssl.config.by_name import check_choice
from jaxssl.config.errors import ConfigError
from jaxssl.data.part import stored_places
from jaxssl.data.source import Array, Source
from jaxssl.evals.features import Features
from jaxssl.evals.subject import Subject
from jaxssl.method import Field
from jaxssl.tables.inputs import shape_of
from jaxssl.tables.table import Table, placeholder, sample_table

BY = ("head", "means", "neighbors")


def make(
    subject: Subject,
    source: Source,
    *,
    by: str = "head",
    output: str = "",
    temperature: float = 1.0,
    neighbors: int = 1,
    known: Table | None = None,
    means: Table | None = None,
) -> Table:
    """label = argmax_k p_k, confidence = max_k p_k and the probabilities p [K] of every sample.

    p is softmax(x / temperature) where x [K] is, `by`:
      head: the output itself, e.g. the logits of a classifier;
      means: the cosine of the output with each class mean of a table (`class_means`);
      neighbors: p is the share of each class among the nearest known samples, by cosine, each
        weighing exp(cosine / temperature); one neighbour gives the nearest label.

    Lee, 2013, "Pseudo-label: the simple and efficient semi-supervised learning method for deep
    neural networks". A sample that is in `known` keeps its own label, with confidence 1. The fact
    `right` is the share of right labels among the others, where the data have labels.

    Args:
      subject: the encoder.
      source: of the samples.
      by: one of BY.
      output: of the encoder; "" is "logits" for a head, "pooled" for the others.
      temperature: positive.
      neighbors: how many vote.
      known: a table of the samples whose labels are known, e.g. of `labelled`.
      means: a table of class means.

    Raises:
      ConfigError: a table or a number that does not fit, or data without labels to know.
    """
    output, classes = _checked(subject, source, by, output, temperature, neighbors, known, means)
    found = subject.features(source, output=output)
    given = _known(source, found, known)
    if by == "head":
        p = _softmax(found.x / temperature)
    elif by == "means":
        assert means is not None
        p = _softmax(_unit(found.x) @ _unit(means.columns["mean"]).T / temperature)
    else:
        p = _vote(found, given, classes, neighbors, temperature)
    p[given] = np.eye(classes)[found.y[given]]
    label = p.argmax(1).astype(np.int32)
    facts: dict[str, float] = {"known": int(given.sum())}
    judged = ~given & (found.y >= 0)
    if judged.any():
        facts["right"] = float((label == found.y)[judged].mean())
    values = label, p.max(1).astype(np.float32), p.astype(np.float32)
    columns = dict(zip(_fields(classes), zip(_fields(classes).values(), values)))
    return sample_table(source, found.index, columns, facts)


def example(
    subject: Subject,
    source: Source,
    *,
    by: str = "head",
    output: str = "",
    temperature: float = 1.0,
    neighbors: int = 1,
    known: Table | None = None,
    means: Table | None = None,
) -> Table:
    """As `make`, of zeros."""
    _, classes = _checked(subject, source, by, output, temperature, neighbors, known, means)
    columns = {name: placeholder(len(source), field) for name, field in _fields(classes).items()}
    return sample_table(source, np.arange(len(source)), columns)


def _fields(classes: int) -> dict[str, Field]:
    return {
        "label": Field("label", (), "int32", {"classes": classes}),
        "confidence": Field("target", (), "float32"),
        "probabilities": Field("target", (classes,), "float32"),
    }


def _checked(
    subject: Subject,
    source: Source,
    by: str,
    output: str,
    temperature: float,
    neighbors: int,
    known: Table | None,
    means: Table | None,
) -> tuple[str, int]:
    """(the output that is read, the number of classes K)."""
    check_choice("by", by, BY)
    if not temperature > 0:
        raise ConfigError(f"temperature: found {temperature}, expected a number above zero")
    if neighbors < 1:
        raise ConfigError(f"neighbors: found {neighbors}, expected at least 1")
    output = output or ("logits" if by == "head" else "pooled")
    width = shape_of(subject, source, output, rank=1)[0]
    if known is not None:
        if known.samples != stored_places(source)[0].fingerprint:
            raise ConfigError(f"known: found a table of other samples than {source.name}")
        if source.num_classes < 2:
            raise ConfigError(f"known: {source.name} has no labels to know")
    if by == "head":
        if known is not None and width != source.num_classes:
            raise ConfigError(
                f"output: {output!r} has width {width}, expected {source.num_classes}, the classes"
            )
        return output, width
    if by == "means":
        if means is None or "mean" not in means.fields or means.samples:
            raise ConfigError("means: missing; by='means' needs a table of class means")
        if means.fields["mean"].shape != (width,):
            found = list(means.fields["mean"].shape)
            raise ConfigError(f"means: found means of shape {found}, expected [{width}]")
        return output, len(means.index)
    if known is None:
        raise ConfigError("known: missing; by='neighbors' needs samples with labels")
    return output, source.num_classes


def _known(source: Source, found: Features, known: Table | None) -> Array:
    """Which samples [N] are known."""
    if known is None:
        return np.zeros(len(found.index), bool)
    _, places = stored_places(source)
    return np.isin(places[found.index], known.index)


def _vote(found: Features, given: Array, classes: int, count: int, temperature: float) -> Array:
    """The weighted share [N, K] of each class among the nearest known samples."""
    x, labels = _unit(found.x), found.y[given]
    bank, count = x[given], min(count, int(given.sum()))
    votes = np.zeros((len(x), classes))
    for first in range(0, len(x), 1024):  # never all samples against all at once
        cosine = x[first : first + 1024] @ bank.T
        nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
        weight = _softmax(np.take_along_axis(cosine, nearest, 1) / temperature)
        rows = np.arange(first, first + len(cosine))[:, None]
        np.add.at(votes, (rows, labels[nearest]), weight)
    return votes


def _softmax(x: Array) -> Array:
    x = x.astype(np.float64)
    e = np.exp(x - x.max(1, keepdims=True))
    p: Array = e / e.sum(1, keepdims=True)
    return p


def _unit(x: Array) -> Array:
    x = x.astype(np.float64)
    unit: Array = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return unit
