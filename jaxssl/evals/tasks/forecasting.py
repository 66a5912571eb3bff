"""What a method's own head says of the future of held-out series, beside the naive forecast."""

from typing import Any

import numpy as np

from jaxssl import metrics
from jaxssl.evals import outputs
from jaxssl.evals.subject import Subject
from jaxssl.method import Info

PROTOCOL: dict[str, Any] = {"output": "forecast", "of": "future", "past": "series", "season": 1}
BETTER = {"mse": "lower", "mae": "lower", "mase": "lower"}
NEEDS_LABELS = False


def examine(
    subject: Subject,
    *,
    output: str = "forecast",
    of: str = "future",
    past: str = "series",
    season: int = 1,
) -> dict[str, float]:
    """Errors of the forecasts; raw input is the naive forecast, the last season again.

    Args:
      subject: its encoder gives numbers [B, T, C].
      output: their name: that of a head.
      of: a field of the samples, float [T, C], the future.
      past: a field of the samples, float [L, C], what the encoder saw.
      season: steps of a season; 1 is the last value.

    Returns:
      {"mse", "mae", "mase": the error in units of that of the naive forecast on the past}, lower is
      better; as of `jaxssl.metrics`.

    Raises:
      ConfigError: the past is no longer than a season.
      FloatingPointError: forecasts are not finite.
    """
    if subject.state is None:
        limit = subject.program.config.evals.test
        index = subject.features(subject.test_source, limit=limit).index
        rows = subject.test_source.rows(index)
        said = naive(rows[past], rows[of].shape[1], season)
    else:
        said, rows = outputs.predictions(subject, output)
    return {
        "mse": metrics.mean_squared_error(said, rows[of]),
        "mae": metrics.mean_absolute_error(said, rows[of]),
        "mase": metrics.mean_absolute_scaled_error(said, rows[of], rows[past], season=season),
    }


def naive(past: np.ndarray, steps: int, season: int = 1) -> np.ndarray:
    """The last season of [N, L, C] again and again, [N, steps, C].

    >>> naive(np.array([[[1.0], [2.0], [3.0]]]), 3, season=2).ravel().tolist()
    [2.0, 3.0, 2.0]
    """
    return past[:, -season:][:, np.arange(steps) % season]


def check_outputs(
    shapes: outputs.Shapes,
    info: Info,
    *,
    output: str = "forecast",
    of: str = "future",
    past: str = "series",
    season: int = 1,
) -> None:
    """Refuses an output of another shape than the future.

    Raises:
      ConfigError: no such output or field, or they do not fit each other.
    """
    del season
    shape = outputs.shape_of("forecasting", output, shapes)
    field = outputs.field_of("forecasting", of, info)
    outputs.field_of("forecasting", past, info, ("series",))
    outputs.check_shape("forecasting", output, shape, ("B", *field.shape))
