"""How close augmentation brings samples of one class, and what that promises of their features.

Huang, Yi, Zhao, Jiang, 2021, "Towards the generalization of contrastive self-supervised learning",
arXiv 2111.00743. Three things bound the error of the classifier by the nearest class centre: views
of a sample are close in the features (*alignment*), centres of classes are far apart
(*divergence*), and views of different samples of a class are close in pixels (*concentration*).
The bound itself is nearly always vacuous for images: its ingredients are what to compare.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from jaxssl.config.errors import ConfigError
from jaxssl.evals import of_views
from jaxssl.evals.diagnostics import rank as diagnostics
from jaxssl.evals.subject import Subject

OF_KIND = "image"
PROTOCOL: dict[str, Any] = {
    "samples": 500,
    "views": 8,
    "deltas": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
    "epsilon": 0.5,
    "seed": 0,
}
BETTER: dict[str, str | None] = {"*accuracy": "higher", "*": None}
STARTS = 32  # of the greedy search for a clique, in each class


class Bound(NamedTuple):
    """The ingredients of the bound on the error of the nearest centre.

    Attributes:
      rho: 2 (1 - sigma) + R / min_k p_k + sigma (L delta / r + 2 epsilon / r).
      spread: Delta = 1 - min_k |mu_k|^2 / r^2.
      threshold: r^2 (1 - rho - sqrt(2 rho) - Delta / 2).
      divergence: max_{k != l} mu_k mu_l.
      error: (1 - sigma) + R, which bounds the error where divergence < threshold.
    """

    rho: float
    spread: float
    threshold: float
    divergence: float
    error: float


def examine(
    subject: Subject,
    *,
    samples: int = 500,
    views: int = 8,
    deltas: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
    epsilon: float = 0.5,
    seed: int = 0,
) -> dict[str, float]:
    """The ingredients, from the run's own views of its training samples; features of length 1.

    Distances of views are root mean squares over their numbers in [0, 1]: they compare across
    sizes. They shrink with the number of views, which minima are over: compare like with like.

    Args:
      subject: the encoder and the run.
      samples: how many training samples.
      views: V of each.
      deltas: distances at which concentration is read.
      epsilon: of R, the share of samples with two views farther apart than this, in features.
      seed: of the views.

    Returns:
      "nearest_distance": mean augmented distance to the nearest sample of the class;
      "sigma_<delta>": `main_parts`, of the worst class; "alignment"; "r_epsilon"; "divergence";
      "spread"; "lipschitz", from views of one sample, a bound from below; "rho", the least over
      the deltas; "margin", threshold - divergence there, above 0 where the bound holds; and
      "accuracy", of the nearest centre on the held-out samples.

    Raises:
      ConfigError: one view, no two samples of a class, or views that are parts of one.
    """
    if views < 2:
        raise ConfigError(f"evals.augmentation_concentration.views: found {views}, expected >= 2")
    drawn = dict(count=views, limit=samples, seed=seed)
    x, y = of_views.pixels(subject, subject.program.source, **drawn)
    x = x / np.sqrt(x.shape[-1])
    distance = within_classes(x, y)
    sigma = main_parts(distance, y, deltas).min(axis=0)
    same = np.where(np.eye(len(y), dtype=bool), np.inf, distance).min(axis=1)
    if not np.isfinite(same).any():
        raise ConfigError(
            f"evals.augmentation_concentration.samples: found no two of a class among {len(y)}, "
            "expected more"
        )
    f = unit(of_views.features(subject, subject.program.source, **drawn)[0])
    labels, centres = class_centres(f, y)
    apart, smooth = r_epsilon(f, epsilon), lipschitz(x, f)
    rarest = np.unique(y, return_counts=True)[1].min() / len(y)
    bounds = [
        bound(
            centres, sigma=s, delta=d, epsilon=epsilon, r_epsilon=apart, rarest=rarest, slope=smooth
        )
        for s, d in zip(sigma, sorted(deltas), strict=True)
    ]
    best = min(bounds, key=lambda found: found.rho)
    told = labels[nearest_centre(unit(subject.test.x), centres)]
    return {
        "nearest_distance": float(same[np.isfinite(same)].mean()),
        **{f"sigma_{d:g}": float(s) for s, d in zip(sigma, sorted(deltas), strict=True)},
        "alignment": alignment(f),
        "r_epsilon": apart,
        "divergence": best.divergence,
        "spread": best.spread,
        "lipschitz": smooth,
        "rho": best.rho,
        "margin": best.threshold - best.divergence,
        "accuracy": float((told == subject.test.y).mean()),
    }


def augmented_distance(x: np.ndarray) -> np.ndarray:
    """d(i, j) = min over views v, w of |x_iv - x_jw|, [N, N]; 0 from a sample to itself.

    An estimate from above, which falls as views are added. No metric: the triangle inequality
    does not hold. Huang et al., 2021, arXiv 2111.00743.

    Args:
      x: [N, V, P], V views of each sample.

    >>> augmented_distance(np.array([[[1.0], [-1]], [[-1.2], [1.2]]])).round(3).tolist()
    [[0.0, 0.2], [0.2, 0.0]]
    """
    x = x.astype(np.float64)
    found = np.full((len(x), len(x)), np.inf)
    for v in range(x.shape[1]):
        for w in range(v, x.shape[1]):
            here = cdist(x[:, v], x[:, w])
            found = np.minimum(found, np.minimum(here, here.T))
    np.fill_diagonal(found, 0)
    return found


def within_classes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`augmented_distance` [N, N] of samples of one class, infinite between classes."""
    found = np.full((len(y), len(y)), np.inf)
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        found[np.ix_(rows, rows)] = augmented_distance(x[rows])
    return found


def main_parts(distance: np.ndarray, y: np.ndarray, deltas: Sequence[float]) -> np.ndarray:
    """sigma(delta): the share of a class of which all pairs are within delta, [K, deltas].

    A largest clique of the graph of pairs within delta, greedily searched: a share that is truly
    reached, perhaps not the largest. It never falls with delta, as a clique at a smaller one is a
    clique at a larger. (sigma, delta)-augmentation of Huang et al., 2021, arXiv 2111.00743, asks
    it of every class: take the least.

    Args:
      distance: [N, N], as `augmented_distance`.
      y: [N], labels.
      deltas: in any order; columns are in ascending order.

    Returns:
      1 / (samples of the class) ... 1.

    >>> line = np.abs(np.arange(3.0)[:, None] - np.arange(3.0))
    >>> main_parts(line, np.zeros(3), (0.5, 1.0, 2.0)).round(3).tolist()
    [[0.333, 0.667, 1.0]]
    """
    shares = []
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        own = distance[np.ix_(rows, rows)]
        sizes = [_clique(own <= delta) for delta in sorted(deltas)]
        shares.append(np.maximum.accumulate(sizes) / len(rows))
    return np.stack(shares)


def _clique(near: np.ndarray) -> int:
    """Members of the largest clique found from the vertices with most neighbours."""
    near = near | np.eye(len(near), dtype=bool)
    order, largest = np.argsort(-near.sum(axis=1), kind="stable"), 1
    for start in order[:STARTS]:
        free, members = near[start].copy(), 0
        for vertex in order:
            if free[vertex]:
                free &= near[vertex]
                members += 1
        # `start` neighbours all that was free, so it is itself among the members.
        largest = max(largest, members)
    return largest


def alignment(f: np.ndarray) -> float:
    """L = E |f(x1) - f(x2)|^2 over two different views of a sample, of unit features, 0 ... 4.

    Args:
      f: [N, V, D], V at least 2; brought to length 1.
    """
    views = f.shape[1]
    return diagnostics.alignment(f) * views / (views - 1)


def r_epsilon(f: np.ndarray, epsilon: float) -> float:
    """R: the share of samples with two views whose features are farther apart than epsilon.

    The supremum over all views is taken over those at hand: an estimate from below. R^2 is at most
    the alignment times a square of the order of 1 / epsilon. Huang et al., 2021, arXiv 2111.00743.

    Args:
      f: [N, V, D].
      epsilon: a distance.
    """
    return float((_apart(f).max(axis=(1, 2)) > epsilon).mean())


def lipschitz(x: np.ndarray, f: np.ndarray) -> float:
    """max |f(x1) - f(x2)| / |x1 - x2| over two views of a sample: a bound from below of L.

    Args:
      x: [N, V, P], views.
      f: [N, V, D], their features.
    """
    run, rise = _apart(x), _apart(f)
    return float((rise[run > 0] / run[run > 0]).max(initial=0))


def class_centres(f: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The labels [K] that there are, and the means [K, D] of the views' features f [N, V, D]."""
    labels = np.unique(y)
    return labels, np.stack([f[y == label].mean(axis=(0, 1), dtype=np.float64) for label in labels])


def nearest_centre(f: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """argmin_k |f - mu_k|, [N], which is the linear classifier argmax_k mu_k f - |mu_k|^2 / 2.

    Args:
      f: [N, D].
      centres: mu [K, D].
    """
    found: np.ndarray = cdist(f.astype(np.float64), centres).argmin(axis=1)
    return found


def bound(
    centres: np.ndarray,
    *,
    sigma: float,
    delta: float,
    epsilon: float,
    r_epsilon: float,
    rarest: float,
    slope: float,
    length: float = 1.0,
) -> Bound:
    """When, and by how much, the error of the nearest centre is bounded: `Bound`.

    Huang et al., 2021, arXiv 2111.00743, theorem 1: if every two centres have an inner product
    below `threshold`, the error is at most (1 - sigma) + R.

    Args:
      centres: mu [K, D], at least two.
      sigma, delta: of the augmentation.
      epsilon, r_epsilon: of the alignment.
      rarest: min_k p_k, the share of the rarest class.
      slope: L, the Lipschitz constant of the features.
      length: r, the norm of the features.

    Raises:
      ConfigError: fewer than two centres.
    """
    if len(centres) < 2:
        raise ConfigError(f"centres: found {len(centres)} classes, expected at least 2")
    gram = centres @ centres.T
    spread = 1 - np.diag(gram).min() / length**2
    rho = 2 * (1 - sigma) + r_epsilon / rarest
    rho += sigma * (slope * delta + 2 * epsilon) / length
    threshold = length**2 * (1 - rho - np.sqrt(2 * rho) - spread / 2)
    divergence = gram[~np.eye(len(gram), dtype=bool)].max()
    error = (1 - sigma) + r_epsilon
    return Bound(float(rho), float(spread), float(threshold), float(divergence), float(error))


def infonce_parts(f1: np.ndarray, f2: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    """InfoNCE with one negative as alignment and divergence, the two whose sum it is.

        -E log(e^{f1 f2} / (e^{f1 f2} + e^{f1 f-}))
          = (L_align / 2 - 1) + E log(e^{f1 f2} + e^{f1 f-})

    Huang et al., 2021, arXiv 2111.00743. Of aligned and orthogonal features it is log(1 + 1 / e),
    of collapsed ones log 2.

    Args:
      f1, f2: two views [N, D], of length 1.
      negative: a view of another sample, [N, D].
    """
    align = ((f1 - f2) ** 2).sum(axis=-1).mean() / 2 - 1
    apart = np.logaddexp((f1 * f2).sum(axis=-1), (f1 * negative).sum(axis=-1)).mean()
    return float(align), float(apart)


def correlation_parts(z1: np.ndarray, z2: np.ndarray, weight: float) -> tuple[float, float, float]:
    """The cross-correlation loss, its L1 = sum_i (1 - F_ii)^2, and |F - I|^2.

        sum_i (1 - F_ii)^2 + w sum_{i != j} F_ij^2 = (1 - w) L1 + w |F - I|^2

    F is the correlation of both views, each feature standardised over the samples; then the
    alignment is at most 2 sqrt(D L1). Huang et al., 2021, arXiv 2111.00743.

    Args:
      z1, z2: two views [N, D].
      weight: w.
    """
    both = [(z - z.mean(axis=0)) / z.std(axis=0) for z in (z1, z2)]
    f = both[0].T @ both[1] / len(z1)
    first = ((1 - np.diag(f)) ** 2).sum()
    whole = ((f - np.eye(len(f))) ** 2).sum()
    loss = first + weight * (f**2).sum() - weight * (np.diag(f) ** 2).sum()
    return float(loss), float(first), float(whole)


def unit(x: np.ndarray) -> np.ndarray:
    """x / |x| along the last axis, float64; zeros stay."""
    x = x.astype(np.float64)
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    found: np.ndarray = x / np.where(length > 0, length, 1)
    return found


def _apart(x: np.ndarray) -> np.ndarray:
    """[N, V, V], the distances between the views of each sample."""
    return np.stack([cdist(rows, rows) for rows in x.astype(np.float64)])
