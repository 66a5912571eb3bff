"""How well scores put the relevant items of a query first.

Equally scored items have no order: each metric is its expectation over their orders, so that none
depends on how the items are sorted, and a constant score has the value of a random ranking.
"""

import chex
import numpy as np
from numpy.typing import ArrayLike, NDArray

GAINS = ("linear", "exponential")


def ndcg(
    scores: ArrayLike, relevance: ArrayLike, *, k: int, gain: str = "linear"
) -> tuple[float, NDArray]:
    """Normalised discounted cumulative gain of the first k.

        DCG = sum over places i = 1 ... k of g_i / log2(i + 1),  NDCG = DCG / the largest DCG

    g is the relevance r, or 2^r - 1. Järvelin, Kekäläinen (2002), Cumulated gain-based evaluation
    of IR techniques; equal scores share their mean gain, as in scikit-learn's `ndcg_score`.

    Args:
      scores: [Q, N] of N items for each of Q queries.
      relevance: [Q, N], not below zero.
      k: how many places count.
      gain: one of GAINS.

    Returns:
      (mean over queries, float64 [Q]); a query without relevant items has 0.

    >>> round(ndcg([[3.0, 2.0, 1.0]], [[0, 1, 0]], k=3)[0], 4)
    0.6309
    """
    assert gain in GAINS, gain
    scores, relevance = _checked(scores, relevance)
    gains = relevance if gain == "linear" else np.exp2(relevance) - 1
    best = -np.sort(-gains, axis=1)
    discounts = 1 / np.log2(np.arange(scores.shape[1]) + 2)
    discounts[k:] = 0
    values = np.zeros(len(scores))
    for q, (s, g) in enumerate(zip(scores, gains)):
        if best[q, 0] > 0:
            order, groups = _groups(s)
            shared = (np.bincount(groups, g[order]) / np.bincount(groups))[groups]
            values[q] = shared @ discounts / (best[q] @ discounts)
    return float(values.mean()), values


def recall_at_k(scores: ArrayLike, relevance: ArrayLike, *, k: int) -> tuple[float, NDArray]:
    """The share of a query's relevant items that are among the first k.

        R@k = |relevant among the first k| / |relevant|

    Some divide by min(k, |relevant|), or count a query as 1 where any is found.

    Args:
      scores: [Q, N] of N items for each of Q queries.
      relevance: [Q, N]; relevant is what is above zero.
      k: how many places count.

    Returns:
      (mean over queries, float64 [Q]); a query without relevant items has 0.

    >>> recall_at_k([[3.0, 2.0, 1.0]], [[1, 0, 1]], k=2)[0]
    0.5
    """
    scores, relevance = _checked(scores, relevance)
    values = np.zeros(len(scores))
    for q, (s, r) in enumerate(zip(scores, relevance > 0)):
        if r.any():
            order, groups = _groups(s)
            shared = (np.bincount(groups, r[order]) / np.bincount(groups))[groups]
            values[q] = shared[:k].sum() / r.sum()
    return float(values.mean()), values


def mean_reciprocal_rank(scores: ArrayLike, relevance: ArrayLike) -> tuple[float, NDArray]:
    """One over the place of a query's first relevant item.

        RR = 1 / min{i : item at place i is relevant}

    Voorhees (1999), The TREC-8 question answering track report. Among n equal scores with r
    relevant ones behind a places it is sum over j of P(the first is the j-th) / (a + j).

    Args:
      scores: [Q, N] of N items for each of Q queries.
      relevance: [Q, N]; relevant is what is above zero.

    Returns:
      (mean over queries, float64 [Q]); a query without relevant items has 0.

    >>> mean_reciprocal_rank([[3.0, 2.0, 1.0]], [[0, 1, 1]])[0]
    0.5
    """
    scores, relevance = _checked(scores, relevance)
    values = np.zeros(len(scores))
    for q, (s, relevant) in enumerate(zip(scores, relevance > 0)):
        if relevant.any():
            best = s[relevant].max()
            ahead, equal = int((s > best).sum()), s == best
            values[q] = _first_of_equal(ahead, int(equal.sum()), int((equal & relevant).sum()))
    return float(values.mean()), values


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """The area under precision over recall, in steps.

        AP = sum over thresholds t of (R_t - R_{t-1}) P_t

    scikit-learn's `average_precision_score`; not the interpolated one of VOC (11 points) and COCO.

    Args:
      scores: [N], the larger the likelier.
      labels: [N], whether each is positive; without any it is 0.

    >>> round(average_precision([0.9, 0.8, 0.7], [1, 0, 1]), 4)
    0.8333
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    chex.assert_rank([scores, labels], 1)
    chex.assert_equal_shape([scores, labels])
    if not (labels > 0).any():
        return 0.0
    from sklearn.metrics import average_precision_score  # slow to import, and for this one alone

    return float(average_precision_score(labels > 0, scores))


def _groups(scores: NDArray) -> tuple[NDArray, NDArray]:
    """(order, best first; of each place, the number of its group of equal scores)."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    return order, np.append(0, np.cumsum(ranked[1:] != ranked[:-1]))


def _first_of_equal(ahead: int, equal: int, relevant: int) -> float:
    """The expected reciprocal place of the first relevant one, all orders being as likely."""
    places = np.arange(1, equal - relevant + 2)
    # Of what is left at place j, a share is relevant: it comes first with what was not met so far.
    share = relevant / (equal - places + 1)
    not_yet = np.append(1.0, np.cumprod(1 - share)[:-1])
    return float((share * not_yet / (ahead + places)).sum())


def _checked(scores: ArrayLike, relevance: ArrayLike) -> tuple[NDArray, NDArray]:
    found, wanted = np.asarray(scores, np.float64), np.asarray(relevance, np.float64)
    chex.assert_rank([found, wanted], 2)
    chex.assert_equal_shape([found, wanted])
    assert np.isfinite(found).all() and (wanted >= 0).all()
    return found, wanted
