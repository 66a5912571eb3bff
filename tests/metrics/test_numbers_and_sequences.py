"""Metrics of numbers, sequences and tasks, against libraries and by hand."""

import itertools

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from jaxssl import metrics
from jaxssl.config.errors import ConfigError

RNG = np.random.default_rng(1)
SAID, MEANT = RNG.normal(size=(2, 20, 3))


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (metrics.mean_squared_error, lambda p, t: mean_squared_error(t, p)),
        (metrics.mean_absolute_error, lambda p, t: mean_absolute_error(t, p)),
        (metrics.r2_score, lambda p, t: r2_score(t, p)),
        (
            metrics.pearson,
            lambda p, t: np.mean([pearsonr(a, b)[0] for a, b in zip(p.T, t.T)]),
        ),
        (
            metrics.spearman,
            lambda p, t: np.mean([spearmanr(a, b)[0] for a, b in zip(p.T, t.T)]),
        ),
    ],
)
def test_numbers_are_those_of_well_kept_libraries(ours, theirs):
    assert ours(SAID, MEANT) == pytest.approx(theirs(SAID, MEANT))
    tied = np.round(SAID), np.round(MEANT)
    assert ours(*tied) == pytest.approx(theirs(*tied))


def test_the_naive_forecast_of_a_random_walk_is_about_one():
    walk = RNG.normal(size=(200, 60, 1)).cumsum(1)
    past, future = walk[:, :59], walk[:, 59:]
    found = metrics.mean_absolute_scaled_error(past[:, -1:], future, past)
    assert 0.8 < found < 1.2
    with pytest.raises(ConfigError, match="season: found 59, expected less than the 59 steps"):
        metrics.mean_absolute_scaled_error(past[:, -1:], future, past, season=59)


def edits(a, b):
    """By its definition, symbol after symbol."""
    if not a or not b:
        return len(a) + len(b)
    return min(edits(a[1:], b[1:]) + (a[0] != b[0]), edits(a[1:], b) + 1, edits(a, b[1:]) + 1)


def test_edits_are_the_fewest():
    rows = [RNG.integers(0, 3, n).tolist() for n in (0, 1, 3, 4, 5)]
    for a, b in itertools.product(rows, rows):
        assert metrics.edit_distance(a, b) == edits(a, b)
    assert metrics.edit_distance([("a", "b")], [("a", "c")]) == 1


def test_the_likeliest_path_merges_repeats_and_drops_blanks_within_its_length():
    scores = np.eye(4)[[[1, 1, 0, 1, 2, 3], [0, 2, 2, 2, 0, 0], [0, 0, 3, 3, 1, 1]]]
    assert metrics.ctc_greedy(scores, [5, 6, 0]) == [[1, 1, 2], [2], []]


def test_forgetting_is_from_the_best_and_transfer_from_the_first():
    matrix = [[0.8, 9, 9], [0.9, 0.7, 9], [0.4, 0.6, 0.5]]  # above the diagonal is not read
    assert metrics.average_accuracy(matrix) == pytest.approx(0.5)
    assert metrics.forgetting(matrix) == pytest.approx((0.5 + 0.1) / 2)
    assert metrics.backward_transfer(matrix) == pytest.approx((-0.4 - 0.1) / 2)
