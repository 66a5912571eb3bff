"""How far predicted classes of pixels overlap the true ones, and keypoints hit theirs."""

import chex
import numpy as np
from numpy.typing import ArrayLike, NDArray


def confusion(
    prediction: ArrayLike, labels: ArrayLike, valid: ArrayLike, *, num_classes: int
) -> NDArray:
    """How many places of class j are predicted as class k: int64 [K, K], row j, column k.

    Confusions of parts of a set add up to that of the set; scikit-learn's `confusion_matrix`.

    Args:
      prediction, labels: integers of one shape; labels beyond 0 ... K - 1 are of no class.
      valid: bool of that shape; what is not valid does not count.
      num_classes: K.

    >>> confusion([0, 1, 1], [0, 0, 1], [True, True, True], num_classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    said, meant, kept = np.asarray(prediction), np.asarray(labels), np.asarray(valid, bool)
    chex.assert_equal_shape([said, meant, kept])
    kept = kept & (meant >= 0) & (meant < num_classes)
    places = meant[kept].astype(np.int64) * num_classes + said[kept]
    return np.bincount(places, minlength=num_classes**2).reshape(num_classes, num_classes)


def intersection_over_union(counts: NDArray) -> tuple[float, NDArray]:
    """The Jaccard index of each class, and its mean over the classes that occur.

        IoU_k = |predicted k and is k| / |predicted k or is k|

    Args:
      counts: [K, K] of a whole set, as of `confusion`.

    Returns:
      (mean, float64 [K]); NaN, and out of the mean, is a class that is neither predicted nor true.

    >>> intersection_over_union(np.array([[1, 1], [0, 1]]))[0]
    0.5
    """
    right, either = np.diag(counts), counts.sum(0) + counts.sum(1) - np.diag(counts)
    return _means(right, either)


def dice_score(counts: NDArray) -> tuple[float, NDArray]:
    """The Dice coefficient of each class, and its mean over the classes that occur.

        Dice_k = 2 |predicted k and is k| / (|predicted k| + |is k|), the F1 of class k

    Over all places of the set at once, not image by image. `jaxssl.losses.dice` is the loss.

    Args:
      counts: [K, K] of a whole set, as of `confusion`.

    Returns:
      (mean, float64 [K]); NaN, and out of the mean, is a class that is neither predicted nor true.

    >>> round(dice_score(np.array([[1, 1], [0, 1]]))[0], 4)
    0.6667
    """
    return _means(2 * np.diag(counts), counts.sum(0) + counts.sum(1))


def mean_iou(
    prediction: ArrayLike, labels: ArrayLike, valid: ArrayLike, *, num_classes: int
) -> float:
    """The mean of `intersection_over_union` of a whole set.

    Classes that are neither predicted nor true do not count. Some take the mean over images.

    Args:
      prediction, labels: integers [B, H, W]; labels beyond 0 ... K - 1 are of no class.
      valid: bool [B, H, W].
      num_classes: K.

    >>> mean_iou([[[0, 1, 1]]], [[[0, 0, 1]]], [[[True, True, True]]], num_classes=3)
    0.5
    """
    counts = confusion(prediction, labels, valid, num_classes=num_classes)
    return intersection_over_union(counts)[0]


def pck(
    prediction: ArrayLike,
    target: ArrayLike,
    visible: ArrayLike,
    size: ArrayLike,
    *,
    threshold: float,
) -> float:
    """The percentage of correct keypoints, as a share: those within a distance of the true one.

        PCK = mean over keypoints k of mean over visible instances b of [|p - t| < threshold size_b]

    Yang, Ramanan (2013), Articulated human detection with flexible mixtures of parts.

    Args:
      prediction, target: [B, K, 2].
      visible: bool [B, K]; a keypoint that is nowhere visible does not count.
      size: [B], of the instance: of its box, head or torso.
      threshold: a share of it; a distance must lie strictly below.

    >>> pck([[[0.0, 0.0], [3.0, 4.0]]], [[[0.0, 0.0], [0.0, 0.0]]], [[1, 1]], [10.0], threshold=0.2)
    0.5
    """
    said, meant = np.asarray(prediction, np.float64), np.asarray(target, np.float64)
    seen, scale = np.asarray(visible, bool), np.asarray(size, np.float64)
    chex.assert_equal_shape([said, meant])
    chex.assert_shape([seen, scale[:, None]], [said.shape[:2], (len(said), 1)])
    near = np.linalg.norm(said - meant, axis=-1) / scale[:, None] < threshold
    count = seen.sum(axis=0)
    if not count.any():
        return 0.0
    return float(((near & seen).sum(axis=0)[count > 0] / count[count > 0]).mean())


def _means(top: NDArray, bottom: NDArray) -> tuple[float, NDArray]:
    values = np.where(bottom > 0, top / np.maximum(bottom, 1), np.nan)
    return float(values[bottom > 0].mean()) if (bottom > 0).any() else 0.0, values
