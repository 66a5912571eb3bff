"""What a method's own head says of every pixel of held-out samples: which class it is of."""

from typing import Any

from jaxssl import metrics
from jaxssl.evals import outputs
from jaxssl.evals.subject import Subject
from jaxssl.method import Info

PROTOCOL: dict[str, Any] = {"output": "maps", "of": "mask"}
NEEDS_LABELS = False


def examine(subject: Subject, *, output: str = "maps", of: str = "mask") -> dict[str, float]:
    """Overlap of the predicted and the true classes of pixels, over the whole set at once.

    Nothing is fitted, and raw input has no head. For features without one there is `dense`.

    Args:
      subject: its encoder gives scores [B, H, W, K].
      output: their name: that of a head.
      of: a field of the samples, integers [H, W]; beyond 0 ... K - 1 is of no class, and does not
        count.

    Returns:
      {"mean_iou", "dice": means over the classes that occur, "pixel_accuracy"}, as of
      `jaxssl.metrics`.

    Raises:
      FloatingPointError: scores are not finite.
    """
    if subject.state is None:
        return {}
    found = outputs.predictions(subject, output)
    said, meant = found.said.argmax(-1), found.rows[of]
    counts = metrics.confusion(said, meant, meant >= 0, num_classes=found.said.shape[-1])
    return {
        "mean_iou": metrics.intersection_over_union(counts)[0],
        "dice": metrics.dice_score(counts)[0],
        "pixel_accuracy": float(counts.trace() / max(1, counts.sum())),
    }


def check_outputs(
    shapes: outputs.Shapes, info: Info, *, output: str = "maps", of: str = "mask"
) -> None:
    """Refuses an output that has no scores for each pixel of the field.

    Raises:
      ConfigError: no such output or field, or they do not fit each other.
    """
    shape = outputs.shape_of("segmentation", output, shapes)
    field = outputs.field_of("segmentation", of, info, ("mask",))
    outputs.check_shape("segmentation", output, shape, ("B", *field.shape, "K"))
