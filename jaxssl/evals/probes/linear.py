"""Linear evaluation of frozen features: one exact logistic regression on the whole train bank."""

from typing import Any

from jaxssl.evals.features import Features, place, standardise
from jaxssl.evals.probes import logistic

PROTOCOL: dict[str, Any] = {"c": 1.0, "max_iterations": 100}


def evaluate(
    train: Features,
    test: Features,
    *,
    num_classes: int,
    c: float = 1.0,
    max_iterations: int = 100,
) -> dict[str, float]:
    """Test accuracy of multinomial logistic regression with a fixed L2 penalty.

    Features go through `features.standardise`, the same for all controls; the objective is that
    of `logistic.fit`. Nothing is tuned on the test set, and no learning rate is swept.

    Args:
      train: x [N, D], its statistics standardise both banks.
      test: only scored.
      num_classes: K.
      c: inverse strength of the penalty, as in scikit-learn.
      max_iterations: of L-BFGS.

    Returns:
      {"accuracy": fraction of the test samples, 0 ... 1}.
    """
    train, test = standardise(train, test)
    correct = logistic.correct(
        place(train), place(test), c, num_classes=num_classes, max_iterations=max_iterations
    )
    return {"accuracy": float(correct) / len(test.x)}
