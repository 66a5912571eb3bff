"""Metrics of predictions: pure functions of host arrays, in float64, of a whole set at once.

They give what an evaluator reports, and know no encoder, no data set and no device.

| of | metrics |
|---|---|
| classes | `accuracy`, `balanced_accuracy`, `expected_calibration_error`, |
| | `negative_log_likelihood` |
| ranked items | `ndcg`, `recall_at_k`, `mean_reciprocal_rank`, `average_precision` |
| places | `mean_iou`, `confusion` and its `intersection_over_union`, `dice_score`; `pck` |
| numbers | `mean_squared_error`, `mean_absolute_error`, `r2_score`, `pearson`, `spearman`, |
| | `mean_absolute_scaled_error` of forecasts |
| sequences | `ctc_greedy`, `edit_distance`, `error_rate` |
| tasks in a row | `average_accuracy`, `forgetting`, `backward_transfer` |
"""

from jaxssl.metrics.classification import (
    accuracy,
    balanced_accuracy,
    expected_calibration_error,
    negative_log_likelihood,
)
from jaxssl.metrics.continual import average_accuracy, backward_transfer, forgetting
from jaxssl.metrics.ranking import average_precision, mean_reciprocal_rank, ndcg, recall_at_k
from jaxssl.metrics.regression import (
    mean_absolute_error,
    mean_absolute_scaled_error,
    mean_squared_error,
    pearson,
    r2_score,
    spearman,
)
from jaxssl.metrics.segmentation import (
    confusion,
    dice_score,
    intersection_over_union,
    mean_iou,
    pck,
)
from jaxssl.metrics.sequences import ctc_greedy, edit_distance, error_rate

__all__ = [
    "accuracy",
    "average_accuracy",
    "average_precision",
    "backward_transfer",
    "balanced_accuracy",
    "confusion",
    "ctc_greedy",
    "dice_score",
    "edit_distance",
    "error_rate",
    "expected_calibration_error",
    "forgetting",
    "intersection_over_union",
    "mean_absolute_error",
    "mean_absolute_scaled_error",
    "mean_iou",
    "mean_reciprocal_rank",
    "mean_squared_error",
    "ndcg",
    "negative_log_likelihood",
    "pck",
    "pearson",
    "r2_score",
    "recall_at_k",
    "spearman",
]
