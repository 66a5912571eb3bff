"""What a method's own head says of numbers that go with held-out samples."""

from typing import Any

import numpy as np

from jaxssl import metrics
from jaxssl.evals import outputs
from jaxssl.evals.subject import Subject
from jaxssl.method import Info

PROTOCOL: dict[str, Any] = {"output": "prediction", "of": "target"}
BETTER = {"mse": "lower", "mae": "lower"}
NEEDS_LABELS = False


def examine(
    subject: Subject, *, output: str = "prediction", of: str = "target"
) -> dict[str, float]:
    """How far the predicted numbers are from the true ones, and how they move together.

    Nothing is fitted, and raw input has no head. Numbers are compared as the field has them.

    Args:
      subject: its encoder gives numbers [B, ...], of the shape of the field; [B, 1] for one number.
      output: their name: that of a head.
      of: a field of the samples.

    Returns:
      {"mse", "mae": lower is better, "r2", "pearson", "spearman"}, as of `jaxssl.metrics`.

    Raises:
      FloatingPointError: predictions are not finite.
    """
    if subject.state is None:
        return {}
    found = outputs.predictions(subject, output)
    meant = np.asarray(found.rows[of], np.float64)
    said = found.said.reshape(meant.shape)
    return {
        "mse": metrics.mean_squared_error(said, meant),
        "mae": metrics.mean_absolute_error(said, meant),
        "r2": metrics.r2_score(said, meant),
        "pearson": metrics.pearson(said, meant),
        "spearman": metrics.spearman(said, meant),
    }


def check_outputs(
    shapes: outputs.Shapes, info: Info, *, output: str = "prediction", of: str = "target"
) -> None:
    """Refuses an output of another shape than the field.

    Raises:
      ConfigError: no such output or field, or they do not fit each other.
    """
    shape = outputs.shape_of("regression", output, shapes)
    field = outputs.field_of("regression", of, info)
    outputs.check_shape("regression", output, shape, ("B", *(field.shape or (1,))))
