"""How often, how evenly and how surely logits name the class."""

import chex
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax


def accuracy(logits: ArrayLike, labels: ArrayLike) -> float:
    """Share of the samples whose largest logit is that of their class; of equal ones, the first.

    Args:
      logits: [N, K].
      labels: int [N], 0 ... K - 1.

    >>> accuracy([[2.0, 0.0], [3.0, 1.0]], [0, 1])
    0.5
    """
    logits, labels = _checked(logits, labels)
    return float(np.mean(logits.argmax(axis=1) == labels))


def balanced_accuracy(logits: ArrayLike, labels: ArrayLike) -> float:
    """The mean over classes of the accuracy on each, whatever their sizes.

        1/|C| sum over c in C of |predicted c and is c| / |is c|

    C are the classes that `labels` have. Brodersen, Ong, Stephan, Buhmann (2010), The balanced
    accuracy and its posterior distribution; scikit-learn's `balanced_accuracy_score`.

    Args:
      logits: [N, K].
      labels: int [N], 0 ... K - 1.

    >>> balanced_accuracy([[2.0, 0.0], [3.0, 1.0], [1.0, 0.0]], [0, 0, 1])
    0.5
    """
    logits, labels = _checked(logits, labels)
    right = logits.argmax(axis=1) == labels
    sizes = np.bincount(labels)
    hits = np.bincount(labels, weights=right)
    return float(np.mean(hits[sizes > 0] / sizes[sizes > 0]))


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike) -> float:
    """The mean of -log softmax(logits)[label], in nats: 0 is best, log K says nothing.

    Args:
      logits: [N, K].
      labels: int [N], 0 ... K - 1.

    >>> round(negative_log_likelihood([[0.0, 0.0, 0.0]], [2]), 4)
    1.0986
    """
    logits, labels = _checked(logits, labels)
    chosen = log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    return float(-chosen.mean())


def expected_calibration_error(logits: ArrayLike, labels: ArrayLike, *, bins: int = 15) -> float:
    """How far confidence is from accuracy: 0 is best.

        ECE = sum over bins b of n_b / N |accuracy_b - confidence_b|

    Confidence is the largest softmax; bin b of the M of equal width holds ((b - 1) / M, b / M].
    Guo, Pleiss, Sun, Weinberger (2017), On calibration of modern neural networks, arXiv 1706.04599.

    Args:
      logits: [N, K].
      labels: int [N], 0 ... K - 1.
      bins: M.

    >>> round(expected_calibration_error(np.log([[0.9, 0.1], [0.8, 0.2]]), [0, 1], bins=2), 4)
    0.35
    """
    logits, labels = _checked(logits, labels)
    confidence = np.exp(log_softmax(logits, axis=1)).max(axis=1)
    right = logits.argmax(axis=1) == labels
    edges = np.arange(1, bins) / bins
    place = np.searchsorted(edges, confidence, side="left")
    gaps = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def _checked(logits: ArrayLike, labels: ArrayLike) -> tuple[NDArray, NDArray]:
    scores, classes = np.asarray(logits, np.float64), np.asarray(labels)
    chex.assert_rank([scores, classes], [2, 1])
    chex.assert_equal_shape_prefix([scores, classes], 1)
    return scores, classes
