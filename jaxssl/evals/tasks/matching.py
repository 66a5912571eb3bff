"""Do two outputs of a method find each other: does the one of a sample rank its other first?"""

from typing import Any

import numpy as np

from jaxssl import metrics
from jaxssl.config.errors import ConfigError
from jaxssl.evals import outputs
from jaxssl.evals.subject import Subject
from jaxssl.method import Info

PROTOCOL: dict[str, Any] = {"query": "projection", "item": "pooled", "k": (1, 5, 10)}
NEEDS_LABELS = False


def examine(
    subject: Subject,
    *,
    query: str = "projection",
    item: str = "pooled",
    k: tuple[int, ...] = (1, 5, 10),
) -> dict[str, float]:
    """Retrieval of the item of the same sample among those of all held-out samples, by cosine.

    Between the outputs of two towers it is retrieval across modalities, one item relevant to each
    query. Nothing is fitted, and raw input has no outputs. By labels there is `retrieval`.

    Args:
      subject: its encoder gives both, [B, D].
      query, item: their names.
      k: of recall.

    Returns:
      {"recall_at_<k>", "mean_reciprocal_rank", "ndcg_at_<largest k>"}, as of `jaxssl.metrics`.

    Raises:
      FloatingPointError: outputs are not finite.
    """
    if subject.state is None:
        return {}
    sides = [outputs.predictions(subject, name).said for name in (query, item)]
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in sides)
    scores, relevant = a @ b.T, np.eye(len(a))
    found = {f"recall_at_{n}": metrics.recall_at_k(scores, relevant, k=n)[0] for n in k}
    found["mean_reciprocal_rank"] = metrics.mean_reciprocal_rank(scores, relevant)[0]
    return found | {f"ndcg_at_{max(k)}": metrics.ndcg(scores, relevant, k=max(k))[0]}


def check_outputs(
    shapes: outputs.Shapes,
    info: Info,
    *,
    query: str = "projection",
    item: str = "pooled",
    k: tuple[int, ...] = (1, 5, 10),
) -> None:
    """Refuses outputs that are not of one width.

    Raises:
      ConfigError: no such output, or they do not fit each other.
    """
    del info, k
    found = [outputs.shape_of("matching", name, shapes) for name in (query, item)]
    if found[0] != found[1] or len(found[0]) != 2:
        raise ConfigError(
            f"evals.matching: found {query!r} of shape {list(found[0])} and {item!r} of shape "
            f"{list(found[1])}, expected both [B, D]"
        )
