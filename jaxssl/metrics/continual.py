"""What is kept of earlier tasks: of the matrix R of accuracies, R[i, j] of task j after task i."""

import chex
import numpy as np
from numpy.typing import ArrayLike, NDArray


def average_accuracy(matrix: ArrayLike) -> float:
    """The mean of the last row: of all tasks, after the last.

    Args:
      matrix: R [E, E] of E tasks; what lies above the diagonal is not read.

    >>> average_accuracy([[0.9, 0.0], [0.5, 0.7]])
    0.6
    """
    return float(_checked(matrix)[-1].mean())


def forgetting(matrix: ArrayLike) -> float:
    """How far tasks have fallen from their best: 0 is none, negative is none and some gain.

        F = mean over tasks j < E of max over j <= i < E of R[i, j] - R[E, j]

    Chaudhry, Dokania, Ajanthan, Torr (2018), Riemannian walk for incremental learning,
    arXiv 1801.10112. 0 for a single task.

    Args:
      matrix: R [E, E]; what lies above the diagonal is not read.

    >>> round(forgetting([[0.9, 0.0], [0.5, 0.7]]), 4)
    0.4
    """
    r = _checked(matrix)
    last = len(r) - 1
    return float(np.mean([r[j:last, j].max() - r[last, j] for j in range(last)])) if last else 0.0


def backward_transfer(matrix: ArrayLike) -> float:
    """What later tasks did to earlier ones: below 0 they were forgotten.

        BWT = mean over tasks j < E of R[E, j] - R[j, j]

    Lopez-Paz, Ranzato (2017), Gradient episodic memory for continual learning, arXiv 1706.08840.
    0 for a single task.

    Args:
      matrix: R [E, E]; what lies above the diagonal is not read.

    >>> round(backward_transfer([[0.9, 0.0], [0.5, 0.7]]), 4)
    -0.4
    """
    r = _checked(matrix)
    last = len(r) - 1
    return float(np.mean(r[last, :last] - np.diag(r)[:last])) if last else 0.0


def _checked(matrix: ArrayLike) -> NDArray:
    r = np.asarray(matrix, np.float64)
    chex.assert_shape(r, (len(r), len(r)))
    return r
