"""The first principal components of an output, by sample."""

import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.data.source import Source
from jaxssl.evals.subject import Subject
from jaxssl.method import Field
from jaxssl.tables.inputs import shape_of
from jaxssl.tables.table import Table, placeholder, sample_table


def make(subject: Subject, source: Source, *, width: int, output: str = "pooled") -> Table:
    """projection [P] = (x - mean) U, U [D, P] the eigenvectors of the covariance, largest first.

    The largest entry of each is positive. The fact `variance` is the share that they hold.

    Args:
      subject: the encoder.
      source: of the samples.
      width: P, at most D.
      output: of the encoder, vectors [N, D].

    Raises:
      ConfigError: more components than D, or an output that is no vector.
    """
    _check(subject, source, width, output)
    found = subject.features(source, output=output)
    x = found.x.astype(np.float64)
    x -= x.mean(0)
    values, vectors = np.linalg.eigh(x.T @ x)
    basis = vectors[:, ::-1][:, :width]
    largest = np.take_along_axis(basis, np.abs(basis).argmax(0)[None], 0)
    projection = (x @ (basis * np.sign(largest))).astype(np.float32)
    facts = {"variance": float(values[::-1][:width].sum() / max(values.sum(), 1e-12))}
    field = Field("target", (width,), "float32")
    return sample_table(source, found.index, {"projection": (field, projection)}, facts)


def example(subject: Subject, source: Source, *, width: int, output: str = "pooled") -> Table:
    """As `make`, of zeros."""
    _check(subject, source, width, output)
    zeros = placeholder(len(source), Field("target", (width,), "float32"))
    return sample_table(source, np.arange(len(source)), {"projection": zeros})


def _check(subject: Subject, source: Source, width: int, output: str) -> None:
    most = shape_of(subject, source, output, rank=1)[0]
    if not 1 <= width <= most:
        raise ConfigError(f"width: found {width}, expected 1 to {most}, the width of {output!r}")
