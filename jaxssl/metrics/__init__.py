"""Metrics of predictions: pure functions of host arrays, in float64, of a whole set at once.

They give what an evaluator reports, and know no encoder, no data set and no device.

| of | metrics |
|---|---|
| classes | `accuracy`, `balanced_accuracy`, `expected_calibration_error`, |
| | `negative_log_likelihood` |
| ranked items | `ndcg`, `recall_at_k`, `mean_reciprocal_rank`, `average_precision` |
| places | `mean_iou`, `confusion` and its `intersection_over_union`, `dice_score`; `pck` |
"""

from jaxssl.metrics.classification import (
    accuracy,
    balanced_accuracy,
    expected_calibration_error,
    negative_log_likelihood,
)
from jaxssl.metrics.ranking import average_precision, mean_reciprocal_rank, ndcg, recall_at_k
from jaxssl.metrics.segmentation import (
    confusion,
    dice_score,
    intersection_over_union,
    mean_iou,
    pck,
)

__all__ = [
    "accuracy",
    "average_precision",
    "balanced_accuracy",
    "confusion",
    "dice_score",
    "expected_calibration_error",
    "intersection_over_union",
    "mean_iou",
    "mean_reciprocal_rank",
    "ndcg",
    "negative_log_likelihood",
    "pck",
    "recall_at_k",
]
