"""Clusters of frozen features against the classes: no label is used to find them."""

import warnings
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from jaxssl.config.errors import ConfigError, near
from jaxssl.evals.features import Features, standardise

SCALINGS = ("standardise", "unit")

PROTOCOL: dict[str, Any] = {
    "scaling": "standardise",
    "n_init": 10,
    "max_iterations": 300,
    "seed": 0,
}


def evaluate(
    train: Features,
    test: Features,
    *,
    num_classes: int,
    scaling: str = "standardise",
    n_init: int = 10,
    max_iterations: int = 300,
    seed: int = 0,
) -> dict[str, float]:
    """How well k-means of the test features, with as many clusters as classes, finds the classes.

    k-means with the seeding of Arthur, Vassilvitskii (2007), k-means++: The advantages of careful
    seeding; of `n_init` starts, the one with the least within-cluster square is kept.

    Args:
      train: gives the statistics of `features.standardise`, where that is the scaling.
      test: x [N, D], clustered; its labels are only compared with the clusters.
      num_classes: K, labels lie in 0 ... K - 1.
      scaling: "standardise", or "unit": every row divided by its length.
      n_init: starts of k-means.
      max_iterations: of each start.
      seed: of the starts.

    Returns:
      {"nmi", "ari", "accuracy"}, as of `scores`.

    Raises:
      ConfigError: an unknown scaling, or fewer test samples than classes.
    """
    if scaling not in SCALINGS:
        raise ConfigError(
            f"evals.clustering.scaling: found {scaling!r}, expected one of "
            f"{', '.join(SCALINGS)}{near(scaling, SCALINGS)}"
        )
    if len(test.x) < num_classes:
        raise ConfigError(
            f"evals.test: found {len(test.x)} samples, expected at least one for each of the "
            f"{num_classes} clusters of clustering"
        )
    if scaling == "standardise":
        x = standardise(train, test)[1].x
    else:
        x = test.x / np.maximum(np.linalg.norm(test.x, axis=1, keepdims=True), 1e-12)
    kmeans = KMeans(num_classes, n_init=n_init, max_iter=max_iterations, random_state=seed)
    with warnings.catch_warnings():
        # A collapsed encoder has fewer distinct features than classes: the scores say so.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = kmeans.fit_predict(x)
    return scores(clusters, test.y, num_classes)


def scores(clusters: np.ndarray, labels: np.ndarray, num_classes: int) -> dict[str, float]:
    """Agreement of clusters with labels, whatever the clusters are called.

        nmi      = 2 I(clusters; labels) / (H(clusters) + H(labels))
        ari      = (pairs agreeing - expected by chance) / (most possible - expected by chance)
        accuracy = max over one-to-one maps m of mean_n [m(cluster_n) = label_n]

    Hubert, Arabie (1985), Comparing partitions (ari); Kuhn (1955), The Hungarian method for the
    assignment problem (the map of the accuracy).

    Args:
      clusters: int [N], 0 ... K - 1.
      labels: int [N], 0 ... K - 1.
      num_classes: K.

    Returns:
      nmi and accuracy 0 ... 1; ari at most 1, about 0 for clusters at random.

    >>> scores(np.array([1, 1, 0, 0]), np.array([0, 0, 1, 1]), 2)
    {'nmi': 1.0, 'ari': 1.0, 'accuracy': 1.0}
    """
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (clusters, labels), 1)
    matched = counts[linear_sum_assignment(counts, maximize=True)].sum()
    return {
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
        "ari": float(adjusted_rand_score(labels, clusters)),
        "accuracy": float(matched / len(labels)),
    }
