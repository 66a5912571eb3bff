"""What a method's own classifier keeps of earlier tasks of `data.tasks`."""

from typing import Any

import numpy as np

from jaxssl import metrics
from jaxssl.config.errors import ConfigError
from jaxssl.data import tasks
from jaxssl.evals import outputs
from jaxssl.evals.subject import Subject
from jaxssl.method import Info

PROTOCOL: dict[str, Any] = {"output": "logits"}
BETTER = {"forgetting": "lower"}


def examine(subject: Subject, *, output: str = "logits") -> dict[str, float]:
    """Accuracy on the held-out samples of each task so far, among all classes, and what was lost.

    Evaluated at the end of each task (`evals.every_steps` = `data.tasks.steps`), the rows of
    `metrics.jsonl` are the matrix of accuracies R[i, j] of task j after task i. Random init is
    judged on all tasks; raw input has no head.

    Args:
      subject: its encoder gives logits [B, K], one for each class of the labels.
      output: their name: that of a head, such as a `classifier`.

    Returns:
      {"task_<j>": R[i, j] for j <= i, "average": their mean} and, from the second task on and where
      each earlier task was evaluated at its end, {"forgetting", "backward_transfer"}, as of
      `jaxssl.metrics`.

    Raises:
      ConfigError: a held-out label is none of the K classes.
      FloatingPointError: logits are not finite.
    """
    if subject.state is None:
        return {}
    order = tasks.parse(subject.program.config.data.tasks)
    step = int(subject.state.step)
    now = min(order.count, -(-step // order.steps)) - 1 if step else order.count - 1
    logits, labels = outputs.logits_and_labels("continual", subject, output)
    right = logits.argmax(-1) == labels
    of_task = tasks.task_of(labels, order.count, subject.num_classes)
    here = [float(right[of_task == j].mean()) for j in range(now + 1)]
    found = {f"task_{j}": value for j, value in enumerate(here)}
    found["average"] = float(np.mean(here))
    matrix = _earlier(subject, order.steps, now)
    if step and now and matrix is not None:
        matrix = np.vstack([matrix, here])
        found["forgetting"] = metrics.forgetting(matrix)
        found["backward_transfer"] = metrics.backward_transfer(matrix)
    return found


def _earlier(subject: Subject, steps: int, now: int) -> np.ndarray | None:
    """[now, now + 1]: the rows of the matrix so far; None where one is missing."""
    matrix = np.zeros((now, now + 1))
    ends = {row["step"]: row for row in subject.earlier()}
    for i in range(now):
        row = ends.get((i + 1) * steps, {})
        values = [row.get(f"eval/continual/task_{j}") for j in range(i + 1)]
        if None in values:
            return None
        matrix[i, : i + 1] = values
    return matrix


def check_outputs(shapes: outputs.Shapes, info: Info, *, output: str = "logits") -> None:
    """Refuses an output that is no logits of the run's classes.

    Raises:
      ConfigError: the encoder has no such output, or it has another number of classes.
    """
    shape = outputs.shape_of("continual", output, shapes)
    outputs.check_shape("continual", output, shape, ("B", info.num_classes))


def check_config(config: Any) -> None:
    """Refuses a run without tasks.

    Raises:
      ConfigError: `data.tasks` has none.
    """
    if not tasks.parse(config.data.tasks).count:
        raise ConfigError("evals.continual: found data.tasks.count=0, expected at least two tasks")
