"""Linear evaluation with a part of the labels: the semi-supervised 1 % and 10 %."""

from typing import Any

import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.evals.features import Features, place, standardise
from jaxssl.evals.probes import logistic

PROTOCOL: dict[str, Any] = {
    "fractions": (0.01, 0.1, 1.0),
    "draws": 5,
    "c": 1.0,
    "max_iterations": 100,
    "seed": 0,
}
BETTER = {"*_interval": None}


def evaluate(
    train: Features,
    test: Features,
    *,
    num_classes: int,
    fractions: tuple[float, ...] = (0.01, 0.1, 1.0),
    draws: int = 5,
    c: float = 1.0,
    max_iterations: int = 100,
    seed: int = 0,
) -> dict[str, float]:
    """Mean test accuracy of logistic regression on a fraction of the labels of every class.

    The bank without its labels gives the statistics of `features.standardise`, and `logistic.fit`
    the classifier: with all labels it is the evaluator `linear`. Subsets as of `stratified`. The
    fractions are those of Chen, Kornblith, Norouzi, Hinton (2020), A simple framework for
    contrastive learning of visual representations, arXiv 2002.05709, on frozen features.

    Args:
      train: the bank that labels are drawn from.
      test: the whole of it is scored in every draw.
      num_classes: K.
      fractions: of the labels, 0 < f <= 1.
      draws: how many subsets of every fraction below 1.
      c: inverse strength of the penalty, as in scikit-learn.
      max_iterations: of L-BFGS.
      seed: of the draws.

    Returns:
      for each fraction, as "1%": {"1%": mean accuracy, "1%_interval": half the width of its 95 %
      interval over the draws, 1.96 s / sqrt(draws)}, fractions 0 ... 1.

    Raises:
      ConfigError: a fraction above 1, or the bank lacks a class.
    """
    subsets = stratified(train.y, num_classes, fractions, draws, seed)
    train, test = standardise(train, test)
    queries, results = place(test), {}
    for fraction, drawn in zip(fractions, subsets, strict=True):
        # The draws of a fraction have one size: one program for all of them.
        correct = [
            logistic.correct(
                place(Features(train.x[rows], train.y[rows], train.index[rows])),
                queries,
                c,
                num_classes=num_classes,
                max_iterations=max_iterations,
            )
            for rows in drawn
        ]
        accuracy = np.asarray([float(count) for count in correct]) / len(test.x)
        name = f"{100 * fraction:g}%"
        results[name] = float(accuracy.mean())
        spread = accuracy.std(ddof=1) if len(accuracy) > 1 else 0.0
        results[f"{name}_interval"] = float(1.96 * spread / np.sqrt(len(accuracy)))
    return results


def stratified(
    y: np.ndarray, num_classes: int, fractions: tuple[float, ...], draws: int, seed: int
) -> list[np.ndarray]:
    """Rows of class-stratified subsets: for each fraction [draws, n], ascending in every draw.

    A class of n_c samples gives max(1, round(f n_c)) of them, the first ones of its permutation in
    that draw: the subsets of a draw are nested, and depend on labels and seed alone. All labels
    leave nothing to draw: [1, N].

    Raises:
      ConfigError: a fraction above 1, or a class without samples.
    """
    for fraction in fractions:
        if fraction > 1:
            raise ConfigError(
                f"evals.label_fractions.fractions: found {fraction:g}, expected at most 1"
            )
    counts = np.bincount(y, minlength=num_classes)
    if counts.min() == 0:
        raise ConfigError(
            f"evals.label_fractions: found no sample of class {counts.argmin()} in the bank, "
            f"expected some of every class (a larger evals.bank holds more)"
        )
    members = [np.flatnonzero(y == label) for label in range(num_classes)]
    rngs = [np.random.default_rng((seed, draw)) for draw in range(draws)]
    shuffled = [[rng.permutation(rows) for rows in members] for rng in rngs]

    def subset(classes: list[np.ndarray], fraction: float) -> np.ndarray:
        parts = [rows[: max(1, round(fraction * len(rows)))] for rows in classes]
        return np.sort(np.concatenate(parts))

    return [np.stack([subset(c, f) for c in (shuffled if f < 1 else [members])]) for f in fractions]
