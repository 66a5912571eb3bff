"""Label-free diagnostics of features: how many dimensions they use, and how widely."""

import numpy as np

# The spectrum of a bank is stable long before this many rows, and its cost grows with them.
MAX_ROWS = 8192


def rank(x: np.ndarray) -> dict[str, float]:
    """{"rankme": ..., "std": ...} of features x [N, D]: collapse shows in one or the other.

    >>> sorted(rank(np.eye(4, dtype=np.float32)))
    ['rankme', 'std']
    """
    return {"rankme": rankme(x), "std": std(x)}


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
    x = x[:: -(-len(x) // MAX_ROWS)].astype(np.float64)
    # The smaller Gram matrix has the squared singular values; float64 keeps the small ones.
    gram = x.T @ x if x.shape[0] > x.shape[1] else x @ x.T
    squares = np.linalg.eigvalsh(gram)
    # Below the rounding error of the largest there is noise, not rank.
    squares = squares[squares > squares[-1] * len(gram) * np.finfo(np.float64).eps]
    if squares.size == 0:
        return 0.0
    sigma = np.sqrt(squares)
    p = sigma / sigma.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def std(x: np.ndarray) -> float:
    """Mean over the dimensions of the standard deviation over the samples; 0 when collapsed.

    >>> std(np.array([[0.0, 1.0], [2.0, 1.0]]))
    0.5
    """
    return float(x.astype(np.float64).std(axis=0).mean())
