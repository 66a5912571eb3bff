"""Metrics of a classifier against scikit-learn and values by hand."""

import warnings

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss

from jaxssl import metrics

K = 5


def _set(seed=0, count=300, classes=K):
    """Uneven classes, and logits that are right more often than not."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, count, p=np.arange(1, classes + 1) / (classes * (classes + 1) / 2))
    logits = rng.normal(size=(count, K)) + 1.5 * np.eye(K)[labels]
    return logits.astype(np.float32), labels.astype(np.int32)


@pytest.mark.parametrize("classes", [K, K - 1])
def test_accuracies_and_likelihood_are_those_of_scikit_learn(classes):
    logits, labels = _set(classes=classes)
    said, likely = logits.argmax(1), softmax(logits.astype(np.float64), axis=1)
    assert metrics.accuracy(logits, labels) == pytest.approx(accuracy_score(labels, said))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn tells of a class that no label has
        expected = balanced_accuracy_score(labels, said)
    assert metrics.balanced_accuracy(logits, labels) == pytest.approx(expected)
    assert abs(expected - accuracy_score(labels, said)) > 0.01
    found = metrics.negative_log_likelihood(logits, labels)
    assert found == pytest.approx(log_loss(labels, likely, labels=range(K)), rel=1e-9)


def test_the_calibration_error_is_the_weighted_gap_of_the_calibration_curve():
    logits, labels = _set()
    likely = softmax(logits.astype(np.float64), axis=1)
    right, confidence = likely.argmax(1) == labels, likely.max(1)
    for bins in (1, 4, 15):
        share, sure = calibration_curve(right, confidence, n_bins=bins)
        place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)
        counts = np.bincount(place, minlength=bins)
        expected = (counts[counts > 0] * np.abs(share - sure)).sum() / len(labels)
        found = metrics.expected_calibration_error(logits, labels, bins=bins)
        assert found == pytest.approx(expected, abs=1e-12)
    assert expected > 0.01


def test_values_by_hand():
    logits = np.log([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.5, 0.1, 0.4]])
    labels = [0, 1, 1, 2]
    assert metrics.accuracy(logits, labels) == 0.5
    assert metrics.balanced_accuracy(logits, labels) == pytest.approx((1 + 1 / 2 + 0) / 3)
    expected = -np.log([0.7, 0.3, 0.8, 0.4]).mean()
    assert metrics.negative_log_likelihood(logits, labels) == pytest.approx(expected)
    # Of two bins, the lower holds 0.5 alone: (0, 1/2] and (1/2, 1].
    sure = [0.7, 0.6, 0.8]
    expected = (0.5 + abs(2 - sum(sure))) / 4
    found = metrics.expected_calibration_error(logits, labels, bins=2)
    assert found == pytest.approx(expected)


def test_a_sure_classifier_that_errs_has_a_finite_likelihood():
    logits = np.asarray([[1000.0, 0.0], [0.0, 0.0]])
    assert metrics.negative_log_likelihood(logits, [1, 0]) == pytest.approx((1000 + np.log(2)) / 2)
    assert metrics.expected_calibration_error(logits, [1, 0], bins=10) == pytest.approx(0.5 + 0.25)


def test_a_common_shift_of_the_logits_changes_nothing():
    logits, labels = _set()
    moved = logits.astype(np.float64) + np.arange(len(logits))[:, None]
    for metric in (
        metrics.accuracy,
        metrics.balanced_accuracy,
        metrics.negative_log_likelihood,
        metrics.expected_calibration_error,
    ):
        assert metric(moved, labels) == pytest.approx(metric(logits, labels), rel=1e-9)
