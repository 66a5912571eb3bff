import itertools

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from jaxssl.config.errors import ConfigError
from jaxssl.evals.features import Features, standardise
from jaxssl.evals.probes import clustering

K = 3


def _bank(seed, noise, count=60):
    rng = np.random.default_rng(seed)
    y = (np.arange(count) % K).astype(np.int32)
    means = 4 * np.eye(K, 5)
    x = (means[y] + noise * rng.normal(size=(count, 5))).astype(np.float32)
    return Features(x, y, np.arange(count))


def test_the_scores_are_those_of_scikit_learn_and_of_the_best_of_all_maps():
    rng = np.random.default_rng(0)
    for _ in range(5):
        labels, clusters = rng.integers(0, 4, (2, 30))
        found = clustering.scores(clusters, labels, 4)
        best = max(
            np.mean(np.asarray(names)[clusters] == labels)
            for names in itertools.permutations(range(4))
        )
        assert found == pytest.approx(
            {
                "nmi": normalized_mutual_info_score(labels, clusters),
                "ari": adjusted_rand_score(labels, clusters),
                "accuracy": best,
            },
            abs=1e-12,
        )
        renamed = clustering.scores(np.asarray([2, 0, 3, 1])[clusters], labels, 4)
        assert renamed == pytest.approx(found, abs=1e-12)


def test_one_cluster_matches_one_class_even_where_a_majority_vote_would_not():
    labels = np.array([0] * 6 + [1] * 2)
    clusters = np.array([0, 0, 0, 1, 1, 1, 1, 0])  # both clusters are mostly of class 0
    assert clustering.scores(clusters, labels, 2)["accuracy"] == 4 / 8


def test_clear_clusters_are_found_without_a_label_and_overlapping_ones_in_part():
    train, test = _bank(0, 0.1), _bank(1, 0.1)
    shuffled = Features(train.x, np.random.default_rng(2).permutation(train.y), train.index)
    assert clustering.evaluate(shuffled, test, num_classes=K) == pytest.approx(
        {"nmi": 1.0, "ari": 1.0, "accuracy": 1.0}
    )
    hard = _bank(1, 2.5)
    found = clustering.evaluate(train, hard, num_classes=K, n_init=3, seed=4)
    x = standardise(train, hard)[1].x
    clusters = KMeans(K, n_init=3, random_state=4).fit_predict(x)
    assert found == clustering.scores(clusters, hard.y, K)
    assert 0 < found["ari"] < 1 and 0.4 < found["accuracy"] < 1


def test_unit_length_takes_the_lengths_away():
    rng = np.random.default_rng(0)
    bank = _bank(0, 0.1)
    lengths = np.exp(rng.normal(size=(len(bank.x), 1)) * 2).astype(np.float32)
    stretched = Features(bank.x * lengths, bank.y, bank.index)
    scores = lambda scaling: clustering.evaluate(
        bank, stretched, num_classes=K, scaling=scaling, n_init=2
    )
    assert scores("unit")["accuracy"] == 1.0
    assert scores("standardise")["accuracy"] < 0.9


def test_collapsed_features_score_nothing_and_do_not_fail():
    bank = _bank(0, 0.1)
    flat = Features(np.ones_like(bank.x), bank.y, bank.index)
    found = clustering.evaluate(flat, flat, num_classes=K)
    assert found == pytest.approx({"nmi": 0.0, "ari": 0.0, "accuracy": 1 / K}, abs=1e-9)


def test_an_unknown_scaling_and_too_few_samples_are_one_line():
    bank = _bank(0, 0.1)
    with pytest.raises(ConfigError, match=r"scaling: found 'units', .*did you mean 'unit'\?"):
        clustering.evaluate(bank, bank, num_classes=K, scaling="units")
    few = Features(bank.x[:2], bank.y[:2], bank.index[:2])
    with pytest.raises(ConfigError, match=r"evals\.test: found 2 samples, expected .* the 3"):
        clustering.evaluate(bank, few, num_classes=K)
