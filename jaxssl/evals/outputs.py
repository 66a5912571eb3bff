"""Outputs of an encoder that an evaluator names: checked before anything is compiled, and read."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxssl.config.errors import ConfigError, near
from jaxssl.evals.features import Features
from jaxssl.method import Field, Info

Shapes = Mapping[str, jax.ShapeDtypeStruct]


def shape_of(evaluator: str, output: str, outputs: Shapes) -> tuple[int, ...]:
    """The shape [B, ...] of the output that `evals.<evaluator>.output` names.

    Raises:
      ConfigError: the encoder has no such output.

    >>> shape_of("accuracy", "logits", {"logits": jax.ShapeDtypeStruct((8, 10), "float32")})
    (8, 10)
    """
    if output not in outputs:
        raise ConfigError(
            f"evals.{evaluator}.output: the encoder gives no {output!r}{near(output, outputs)}"
        )
    return tuple(outputs[output].shape)


class Predictions(NamedTuple):
    """Of N held-out samples what the method's own head says, and fields of the samples.

    Attributes:
      said: float [N, ...], the output.
      rows: field -> [N, ...].
    """

    said: np.ndarray
    rows: dict[str, np.ndarray]


def predictions(subject: Any, output: str) -> Predictions:
    """An output of the encoder for `evals.test` held-out samples, beside their fields.

    Args:
      subject: trained or at random init, `jaxssl.evals.subject.Subject`.
      output: its name.

    Raises:
      FloatingPointError: the output is not finite.
    """
    found = _finite(subject, output)
    return Predictions(found.x, subject.test_source.rows(found.index))


def logits_and_labels(evaluator: str, subject: Any, output: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, K] of a classifier for `evals.test` held-out samples, and their classes [N].

    Args:
      evaluator: that asks, for error messages.
      subject: trained or at random init, `jaxssl.evals.subject.Subject`.
      output: name of the logits.

    Raises:
      ConfigError: a held-out label is none of the K classes.
      FloatingPointError: logits are not finite.
    """
    found = _finite(subject, output)
    classes = found.x.shape[1]
    if found.y.min() < 0 or found.y.max() >= classes:
        raise ConfigError(
            f"evals.{evaluator}: found labels {found.y.min()} ... {found.y.max()} in "
            f"{subject.test_source.name}, expected 0 ... {classes - 1}: the logits' classes"
        )
    return found.x, found.y


def _finite(subject: Any, output: str) -> Features:
    limit = subject.program.config.evals.test
    found: Features = subject.outputs(subject.test_source, output, limit=limit)
    if not np.isfinite(found.x).all():
        raise FloatingPointError(f"the {subject.kind} {output} are not all finite")
    return found


def field_of(evaluator: str, of: str, info: Info, kinds: Sequence[str] = ()) -> Field:
    """The field of the samples that `evals.<evaluator>.of` names.

    Args:
      evaluator: its name.
      of: of a field; of streams its own name.
      info: of the run.
      kinds: that it may be; () is any.

    Raises:
      ConfigError: no such field, or one of another kind.

    >>> from jaxssl.method import LABEL
    >>> info = Info({"label": LABEL}, 8, 2, 1, 1, 8)
    >>> field_of("accuracy", "label", info).kind
    'label'
    """
    fields = {name.rpartition("/")[2]: field for name, field in info.fields.items()}
    if of not in fields:
        raise ConfigError(f"evals.{evaluator}.of: no field {of!r}{near(of, fields)}")
    if kinds and fields[of].kind not in kinds:
        raise ConfigError(
            f"evals.{evaluator}.of: {of!r} is of kind {fields[of].kind!r}, "
            f"expected {' or '.join(kinds)}"
        )
    return fields[of]


def check_shape(
    evaluator: str, output: str, found: Sequence[int], expected: Sequence[int | str]
) -> None:
    """Refuses an output of another shape; a name in `expected` is any number.

    Raises:
      ConfigError: naming both shapes.

    >>> check_shape("regression", "depth", (8, 3), ("B", 3))
    """
    fits = len(found) == len(expected) and all(
        isinstance(wanted, str) or number == wanted for number, wanted in zip(found, expected)
    )
    if not fits:
        shape = ", ".join(map(str, expected))
        raise ConfigError(
            f"evals.{evaluator}.output: found {output!r} of shape {list(found)}, expected [{shape}]"
        )
