"""Readings: features of the same few samples as a set, without labels."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.evals.diagnostics import rank as diagnostics
from jaxssl.evals.features import device_batches, to_host
from jaxssl.program import Program
from jaxssl.state import State

PREFIX = "alarms/"


def of_features(x: np.ndarray) -> dict[str, float]:
    """{"rankme", "spread", "nearest"} of features; none changes with their scale.

        spread  = sqrt(sum_d var_n(x) / mean_n |x_n|^2)
        nearest = median_n min_{m != n} |x_n - x_m| / sqrt(mean_{n != m} |x_n - x_m|^2)

    `rankme` is the effective rank of `jaxssl.evals.diagnostics.rank`. The spread is 0 where all
    samples have one feature, and its square is one less the mean cosine where they have one length.
    `nearest` is 0 where samples lie on few points, however far apart those are.

    Args:
      x: [N, D], N at least 2.

    >>> two = np.repeat(np.eye(2), 8, axis=0)
    >>> found = of_features(two)
    >>> round(found["rankme"], 3), round(found["spread"], 3), round(found["nearest"], 3)
    (2.0, 0.707, 0.0)
    """
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        return dict.fromkeys(("rankme", "spread", "nearest"), float("nan"))
    centred = x - x.mean(0)
    length, variance = np.square(x).sum(1).mean(), np.square(centred).sum(1).mean()
    # From the centred rows: those of a collapsed set differ in their last digits alone.
    norms = np.square(centred).sum(1)
    squares = np.maximum(norms[:, None] + norms - 2 * centred @ centred.T, 0)
    apart = squares.sum() / (len(x) * (len(x) - 1))
    np.fill_diagonal(squares, np.inf)
    nearest = np.sqrt(np.median(squares.min(1)) / apart) if apart > 0 else 0.0
    return {
        "rankme": diagnostics.rankme(x),
        "spread": float(np.sqrt(variance / length)) if length > 0 else 0.0,
        "nearest": float(nearest),
    }


def of_scores(x: np.ndarray) -> dict[str, float]:
    """{"codes", "contrast"} of the scores that samples give prototypes.

        codes    = exp(-sum_k u_k log u_k),  u_k the part of the samples whose highest score is k
        contrast = mean_n std_k(x_nk)

    Args:
      x: [N, K].

    >>> found = of_scores(np.eye(4))
    >>> round(found["codes"], 3), round(found["contrast"], 3)
    (4.0, 0.433)
    """
    if not np.isfinite(x).all():
        return dict.fromkeys(("codes", "contrast"), float("nan"))
    used = np.bincount(x.argmax(1)) / len(x)
    used = used[used > 0]
    return {
        "codes": float(np.exp(-(used * np.log(used)).sum())),
        "contrast": float(x.astype(np.float64).std(1).mean()),
    }


class Reader:
    """Measures what an encoder makes of a fixed choice of training samples.

    Of training samples, since every run has them, they are loaded, and a collapse shows on them as
    on others. All outputs of one vector a sample are measured: features, and what heads make of
    them where the method's encoder gives it. Networks are in evaluation mode, so that the views
    and the batch do not matter; random init, which readings are compared with, therefore has its
    batch statistics settled first (`Evaluator.calibrated`).

    Args:
      program: of the run.
      encoder: which of the method's encoders.
      samples: N.
    """

    def __init__(self, program: Program, encoder: str, samples: int):
        self._program, self._encoder, self._samples = program, encoder, samples
        heads = program.config.student.values()
        self._scores = {h.get("output") for h in heads if h.get("name") == "prototypes"}
        self._batch: Any = None
        self._encode = jax.jit(self._outputs)

    def __call__(self, state: State) -> dict[str, float]:
        """{"alarms/<output>/<measure>": value}; the same on every process."""
        mesh = self._program.mesh
        if self._batch is None:
            source = self._program.source
            size = min(self._samples, len(source))
            (self._batch,) = device_batches(source, batch_size=size, mesh=mesh, limit=size)
        batch, valid = self._batch
        with jax.set_mesh(mesh):
            found = self._encode(state, batch)
        kept, row = to_host(valid), {}
        for output, x in found.items():
            measure = of_scores if output in self._scores else of_features
            for name, value in measure(to_host(x)[kept]).items():
                row[f"{PREFIX}{output}/{name}"] = value
        return row

    def _outputs(self, state: State, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        program = self._program
        found = program.method.readouts[self._encoder](program.context(state, batch))
        return {
            name: x.astype(jnp.float32)
            for name, x in found.items()
            if getattr(x, "ndim", 0) == 2 and jnp.issubdtype(x.dtype, jnp.floating)
        }
