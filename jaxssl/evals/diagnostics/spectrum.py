"""How many directions features use, and how evenly: numbers of their spectra, without labels.

| name | spectrum | of | number |
|---|---|---|---|
| `rankme` | singular values | features as they are | exp of the entropy |
| `effective_rank` | singular values | centred features | exp of the entropy |
| `nesum` | eigenvalues | covariance | sum over the largest |
| `alpha_req` | eigenvalues | covariance | minus the slope of log against log |
| `effective_dimension` | eigenvalues | correlation | how many exceed a hundredth of the largest |
| `lidar` | eigenvalues | between samples, relative to within views | exp of the entropy |

All are computed on the host in float64, and none sees a rotation of the features
(`effective_dimension` excepted: a correlation belongs to the axes).
"""

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from jaxssl.config.errors import ConfigError

# The spectrum of a bank is stable long before this many rows, and its cost grows with them.
MAX_ROWS = 8192


def rankme(x: np.ndarray) -> float:
    """Effective rank: the exponential of the entropy of the normalised singular values.

        exp(-sum_i p_i log p_i),    p_i = sigma_i / sum_j sigma_j

    Of the uncentred features: 1 where all are parallel, min(N, D) where all directions are used
    alike. Garrido, Balestriero, Najman, LeCun (2023), RankMe: assessing the downstream performance
    of pretrained self-supervised representations by their rank, arXiv 2210.02885. Their 1e-7, added
    to p against log 0, is not added here: 0 log 0 is 0.

    Args:
      x: [N, D]; above 8,192 rows an evenly spaced part of them.

    >>> round(rankme(np.eye(4)), 6)
    4.0
    >>> round(rankme(np.outer(np.arange(1, 5), [1.0, 2.0])), 6)
    1.0
    """
    x = _rows(x)
    return _exp_entropy(np.sqrt(_squares(x, (x**2).sum())))


def effective_rank(x: np.ndarray) -> float:
    """`rankme` of the centred features: a mean that all share is no direction that they use.

        exp(-sum_i p_i log p_i),    p_i = sigma_i / sum_j sigma_j,    sigma of x - mean_N(x)

    0 where all rows are equal, else 1 ... min(N - 1, D). Roy, Vetterli (2007), The effective rank:
    a measure of effective dimensionality, EUSIPCO; there of any matrix, here of this one.

    Args:
      x: [N, D]; above 8,192 rows an evenly spaced part of them.

    >>> round(effective_rank(9 + np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])), 6)
    2.0
    """
    return _exp_entropy(np.sqrt(eigenvalues(x)))


def nesum(x: np.ndarray) -> float:
    """The eigenvalues of the covariance, normalised by the largest and summed.

        sum_i lambda_i / lambda_1

    1 where one direction holds all variance, D where all hold the same (whitened), 0 where there
    is none. He, Ozay (2022), Exploring the gap between collapsed & whitened features in
    self-supervised learning, ICML.

    Args:
      x: [N, D]; above 8,192 rows an evenly spaced part of them.

    >>> round(nesum(np.array([[2.0, 0], [-2, 0], [0, 1], [0, -1]])), 6)  # 1 + 1/4
    1.25
    """
    spectrum = eigenvalues(x)
    return float(spectrum.sum() / spectrum[0]) if spectrum.size else 0.0


def alpha_req(x: np.ndarray, *, first: int = 1, last: int = 50) -> float:
    """The decay alpha of the covariance's eigenvalues, taken as a power law of their rank.

        log lambda_i = c - alpha log i,    least squares over the ranks i = first ... last

    Every rank counts alike, so most weight lies on the upper end of the range. Agrawal, Mondal,
    Ghosh, Richards (2022), alpha-ReQ: assessing representation quality in self-supervised learning
    by measuring eigenspectrum decay, NeurIPS: about 1 is best there. The exponent depends on the
    range: compare numbers of one range alone.

    Args:
      x: [N, D]; above 8,192 rows an evenly spaced part of them.
      first, last: ranks from 1; those beyond the numerical rank are left out.

    Returns:
      alpha, or NaN where less than two ranks of the range are left.

    Raises:
      ConfigError: `first` is below 1, or `last` not above it.

    >>> scale = np.arange(1.0, 7) ** -0.75  # variances i^-1.5
    >>> round(alpha_req(np.concatenate([np.diag(scale), -np.diag(scale)])), 6)
    1.5
    """
    if first < 1:
        raise ConfigError(f"first: found {first}, expected a rank of at least 1")
    if last <= first:
        raise ConfigError(f"last: found {last}, expected a rank above first = {first}")
    spectrum = eigenvalues(x)[first - 1 : last]
    if spectrum.size < 2:
        return float("nan")
    ranks = np.arange(first, first + spectrum.size)
    return float(-np.polyfit(np.log(ranks), np.log(spectrum), 1)[0])


def effective_dimension(x: np.ndarray) -> int:
    """The rank of the features' correlation matrix, small eigenvalues not counted.

        |{i: |lambda_i| > max(1e-4, 0.01 lambda_1)}|,    lambda of corr(x)

    A dimension without variance has no correlation and counts nothing. Dubois, Hashimoto, Liang
    (2023), Evaluating self-supervised learning via risk decomposition, arXiv 2302.03068.

    Args:
      x: [N, D]; above 8,192 rows an evenly spaced part of them.

    >>> twice = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])[:, [0, 1, 1]]
    >>> effective_dimension(twice)
    2
    """
    x = _rows(x)
    centred = x - x.mean(axis=0)
    norm = np.linalg.norm(centred, axis=0)
    alive = norm > 1e-12 * np.linalg.norm(x, axis=0)
    if not alive.any():
        return 0
    scaled = centred[:, alive] / norm[alive]
    spectrum = np.linalg.eigvalsh(_gram(scaled))
    return int((spectrum > max(1e-4, 0.01 * spectrum[-1])).sum())


def lidar(x: np.ndarray, *, delta: float = 1e-4) -> float:
    """The effective rank of what tells samples apart, relative to how far their views scatter.

        S_b = mean_n (m_n - m)(m_n - m)^T
        S_w = mean_{n, v} (x_nv - m_n)(x_nv - m_n)^T + delta I
        exp(-sum_i p_i log p_i),    p = lambda / sum lambda,    lambda of S_w^-1/2 S_b S_w^-1/2

    m_n is the mean of the q views of sample n and m that of all: every sample is a class of its
    own of a linear discriminant analysis. 1 ... min(N - 1, D); 0 where all m_n are equal. The
    entropy is of eigenvalues, not of their roots as in `rankme`. Thilak, Huang, Saremi, Dinh, Goh,
    Nakkiran, Susskind, Littwin (2023), LiDAR: sensing linear probing performance in joint embedding
    SSL architectures, arXiv 2312.04000; their epsilon, added to p against log 0, is not added here.

    Args:
      x: [N, q, D], q views of each sample, N and q at least 2.
      delta: in squared units of the features: far above their scatter it hides the views.

    Raises:
      ConfigError: fewer than two samples or views, or another number of axes.

    >>> means = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    >>> round(lidar(means[:, None] + 0.1 * means), 6)
    2.0
    """
    if x.ndim != 3 or min(x.shape[:2]) < 2:
        raise ConfigError(f"x: found {x.shape}, expected [N, q, D], N and q at least 2")
    x = x.astype(np.float64)
    means = x.mean(axis=1)
    within = (x - means[:, None]).reshape(-1, x.shape[-1])
    scatter = within.T @ within / len(within) + delta * np.eye(x.shape[-1])
    # With S_w = L L^T the eigenvalues are those of L^-1 S_b L^-T.
    apart = means - means.mean(axis=0)
    root = cholesky(scatter, lower=True)
    solve = lambda rows: solve_triangular(root, rows.T, lower=True).T
    return _exp_entropy(_squares(solve(apart), (solve(means) ** 2).sum()))


def eigenvalues(x: np.ndarray) -> np.ndarray:
    """The eigenvalues [R] of the unbiased covariance of x [N, D], descending, rounding left out.

    R is the numerical rank; above 8,192 rows an evenly spaced part of them is read.
    """
    x = _rows(x)
    return _squares(x - x.mean(axis=0), (x**2).sum()) / max(len(x) - 1, 1)


def _rows(x: np.ndarray) -> np.ndarray:
    """At most MAX_ROWS rows, evenly spaced, in float64."""
    return x[:: -(-len(x) // MAX_ROWS)].astype(np.float64)


def _gram(x: np.ndarray) -> np.ndarray:
    """The smaller of the two Gram matrices, which have the same eigenvalues above zero."""
    gram: np.ndarray = x.T @ x if x.shape[0] > x.shape[1] else x @ x.T
    return gram


def _squares(x: np.ndarray, uncentred: float) -> np.ndarray:
    """The squared singular values of x, descending; float64 keeps the small ones.

    Below the rounding error of the largest, or of a mean that was taken off (`uncentred` is the
    sum of squares before), there is noise, not rank.
    """
    gram = _gram(x)
    squares = np.linalg.eigvalsh(gram)[::-1]
    eps = float(np.finfo(np.float64).eps)
    least = max(squares[0] * len(gram) * eps, 16 * eps**2 * len(gram) * uncentred)
    kept: np.ndarray = squares[squares > least]
    return kept


def _exp_entropy(weights: np.ndarray) -> float:
    """exp of the entropy of weights above zero, made to sum to 1; 0 of none."""
    if weights.size == 0:
        return 0.0
    p = weights / weights.sum()
    return float(np.exp(-(p * np.log(p)).sum()))
