"""How far predicted numbers are from the true ones, and how far they move together."""

import chex
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxssl.config.errors import ConfigError


def mean_squared_error(prediction: ArrayLike, target: ArrayLike) -> float:
    """The mean of (p - t)^2 over all numbers; scikit-learn's `mean_squared_error`.

    Args:
      prediction, target: [N, ...], of one shape.

    >>> mean_squared_error([1.0, 3.0], [1.0, 1.0])
    2.0
    """
    said, meant = _checked(prediction, target)
    return float(np.square(said - meant).mean())


def mean_absolute_error(prediction: ArrayLike, target: ArrayLike) -> float:
    """The mean of |p - t| over all numbers; scikit-learn's `mean_absolute_error`.

    Args:
      prediction, target: [N, ...], of one shape.

    >>> mean_absolute_error([1.0, 3.0], [1.0, 1.0])
    1.0
    """
    said, meant = _checked(prediction, target)
    return float(np.abs(said - meant).mean())


def r2_score(prediction: ArrayLike, target: ArrayLike) -> float:
    """The share of the variance that is explained: 1 is best, 0 is the mean of the targets.

        R2 = mean over columns d of 1 - sum_n (p_nd - t_nd)^2 / sum_n (t_nd - mean_n t_nd)^2

    scikit-learn's `r2_score`; a column without variance has 0, or 1 where it is met exactly.

    Args:
      prediction, target: [N, ...], of one shape.

    >>> r2_score([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    1.0
    """
    from sklearn.metrics import r2_score as score  # slow to import, and for this one alone

    said, meant = _checked(prediction, target)
    return float(score(meant.reshape(len(meant), -1), said.reshape(len(said), -1)))


def pearson(prediction: ArrayLike, target: ArrayLike) -> float:
    """Pearson's correlation of each column, and their mean; a constant column has 0.

    Args:
      prediction, target: [N, ...], of one shape.

    >>> round(pearson([1.0, 2.0, 4.0], [2.0, 4.0, 8.0]), 6)
    1.0
    """
    said, meant = _checked(prediction, target)
    return _correlation(said.reshape(len(said), -1), meant.reshape(len(meant), -1))


def spearman(prediction: ArrayLike, target: ArrayLike) -> float:
    """Spearman's correlation, Pearson's of the ranks; equal numbers share their mean rank.

    Args:
      prediction, target: [N, ...], of one shape.

    >>> round(spearman([1.0, 2.0, 9.0], [1.0, 4.0, 5.0]), 6)
    1.0
    """
    from scipy.stats import rankdata

    said, meant = _checked(prediction, target)
    ranks = [rankdata(x.reshape(len(x), -1), axis=0) for x in (said, meant)]
    return _correlation(*ranks)


def mean_absolute_scaled_error(
    prediction: ArrayLike, target: ArrayLike, past: ArrayLike, *, season: int = 1
) -> float:
    """The error of forecasts in units of that of the naive forecast on the past: 1 is as good.

        MASE = mean over series and channels of mean_h |p_h - t_h| / mean_t |y_t - y_{t - season}|

    Hyndman, Koehler (2006), Another look at measures of forecast accuracy. Channels whose past
    repeats itself exactly have no scale, and are left out; NaN where all are.

    Args:
      prediction, target: [N, T, C], the future.
      past: [N, L, C] with L > season.
      season: steps of a season; 1 is the last value.

    Raises:
      ConfigError: the past is no longer than a season.

    >>> mean_absolute_scaled_error([[[4.0]]], [[[6.0]]], [[[1.0], [2.0], [3.0]]])
    2.0
    """
    said, meant = _checked(prediction, target)
    before = np.asarray(past, np.float64)
    chex.assert_rank([said, before], 3)
    if before.shape[1] <= season:
        raise ConfigError(
            f"season: found {season}, expected less than the {before.shape[1]} steps of the past"
        )
    scale = np.abs(before[:, season:] - before[:, :-season]).mean(1)
    error = np.abs(said - meant).mean(1)
    return float(np.mean(error[scale > 0] / scale[scale > 0])) if (scale > 0).any() else np.nan


def _correlation(x: NDArray, y: NDArray) -> float:
    x, y = x - x.mean(0), y - y.mean(0)
    size = np.sqrt(np.square(x).sum(0) * np.square(y).sum(0))
    return float(np.mean((x * y).sum(0) / np.where(size > 0, size, 1.0)))


def _checked(prediction: ArrayLike, target: ArrayLike) -> tuple[NDArray, NDArray]:
    said, meant = np.asarray(prediction, np.float64), np.asarray(target, np.float64)
    chex.assert_equal_shape([said, meant])
    return said, meant
