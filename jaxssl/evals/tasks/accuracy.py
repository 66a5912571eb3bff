"""What a classifier of the method itself says of held-out samples: how right, and how sure."""

from typing import Any

from jaxssl import metrics
from jaxssl.evals import outputs
from jaxssl.evals.subject import Subject
from jaxssl.method import Info

PROTOCOL: dict[str, Any] = {"output": "logits", "bins": 15}
BETTER = {"ece": "lower", "nll": "lower"}


def examine(subject: Subject, *, output: str = "logits", bins: int = 15) -> dict[str, float]:
    """Top-1 and balanced accuracy, calibration and likelihood of a trained classifier's logits.

    Nothing is fitted: random init is the classifier before its first step. Raw input has none, and
    is left out. For features without a classifier there are `linear` and `knn`.

    Args:
      subject: its encoder gives logits [B, K], one for each class of the labels.
      output: their name: that of a head, such as a `classifier`.
      bins: of the calibration error, of equal width.

    Returns:
      {"top1", "balanced": the mean over classes of the accuracy on each, "ece": the expected
      calibration error, "nll": the mean negative log-likelihood in nats}, as of `jaxssl.metrics`.

    Raises:
      ConfigError: a held-out label is none of the K classes.
      FloatingPointError: logits are not finite.
    """
    if subject.state is None:
        return {}
    logits, labels = outputs.logits_and_labels("accuracy", subject, output)
    return {
        "top1": metrics.accuracy(logits, labels),
        "balanced": metrics.balanced_accuracy(logits, labels),
        "ece": metrics.expected_calibration_error(logits, labels, bins=bins),
        "nll": metrics.negative_log_likelihood(logits, labels),
    }


def check_outputs(
    shapes: outputs.Shapes, info: Info, *, output: str = "logits", bins: int = 15
) -> None:
    """Refuses an output that is no logits of the run's classes.

    Raises:
      ConfigError: the encoder has no such output, or it has another number of classes.
    """
    del bins
    shape = outputs.shape_of("accuracy", output, shapes)
    outputs.check_shape("accuracy", output, shape, ("B", info.num_classes))
