"""Outputs of an encoder or its heads by sample: embeddings, or a cached teacher's targets."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.data.source import Source
from jaxssl.evals.subject import Subject
from jaxssl.method import Field
from jaxssl.tables.inputs import shape_of
from jaxssl.tables.table import Table, placeholder, sample_table


def make(
    subject: Subject,
    source: Source,
    *,
    outputs: Sequence[str] = ("pooled",),
    dtype: str = "float32",
) -> Table:
    """A column for each output, of the plain view of every sample: [N, ...].

    A later stage that joins it reads what a teacher says with no forward pass of it:
    `teacher=dict(batch="cached.logits")`.

    Args:
      subject: the encoder.
      source: of the samples.
      outputs: names of vectors, maps or tokens that it gives.
      dtype: of the columns, "float32" or "float16".

    Raises:
      ConfigError: no outputs, one that the encoder does not give, another dtype.
    """
    fields, columns = _fields(subject, source, outputs, dtype), {}
    for name, field in fields.items():
        found = subject.outputs(source, name)
        columns[name] = field, found.x.astype(field.dtype)
    return sample_table(source, found.index, columns)


def example(subject: Subject, source: Source, **fields: Any) -> Table:
    """As `make`, of zeros."""
    found = _fields(subject, source, fields.get("outputs", ("pooled",)), fields.get("dtype", ""))
    columns = {name: placeholder(len(source), field) for name, field in found.items()}
    return sample_table(source, np.arange(len(source)), columns)


def _fields(
    subject: Subject, source: Source, outputs: Sequence[str], dtype: str
) -> dict[str, Field]:
    if not outputs:
        raise ConfigError("outputs: found none, expected at least one")
    if dtype not in ("", "float32", "float16"):
        raise ConfigError(f"dtype: found {dtype!r}, expected 'float32' or 'float16'")
    shapes = {name: shape_of(subject, source, name, field="outputs") for name in outputs}
    return {name: Field("target", shape, dtype or "float32") for name, shape in shapes.items()}
