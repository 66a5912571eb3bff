import warnings

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from sklearn.linear_model import LogisticRegression

from jaxssl.config.errors import ConfigError
from jaxssl.evals.features import Features, standardise
from jaxssl.evals.probes import label_fractions

K = 3
FRACTIONS = (0.05, 0.3, 1.0)


@pytest.fixture(scope="module")
def banks():
    """Three overlapping clouds, the last class twice as frequent as the others."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat([0, 1, 2], [50, 50, 100])).astype(np.int32)
    x = (rng.normal(size=(K, 6))[y] + 1.5 * rng.normal(size=(200, 6))).astype(np.float32)
    cut = lambda where: Features(x[where], y[where], np.arange(200)[where])
    return cut(slice(120)), cut(slice(120, None))


def test_subsets_are_stratified_nested_and_follow_labels_and_seed_alone(banks):
    y = banks[0].y
    small, middle, whole = label_fractions.stratified(y, K, FRACTIONS, 4, 0)
    counts = np.bincount(y)
    assert whole.tolist() == [list(range(120))]
    for rows, fraction in ((small, 0.05), (middle, 0.3)):
        assert len(rows) == 4
        for draw in rows:
            assert len(set(draw)) == len(draw)
            assert np.bincount(y[draw]).tolist() == [round(fraction * n) for n in counts]
    assert all(set(few) < set(more) for few, more in zip(small, middle, strict=True))
    assert len({tuple(rows) for rows in middle}) == 4
    again = label_fractions.stratified(y, K, FRACTIONS, 4, 0)
    np.testing.assert_array_equal(again[1], middle)
    assert not np.array_equal(label_fractions.stratified(y, K, FRACTIONS, 4, 1)[1], middle)


def test_a_tiny_fraction_keeps_a_label_of_every_class(banks):
    rows = label_fractions.stratified(banks[0].y, K, (1e-6,), 2, 0)[0]
    assert [sorted(banks[0].y[draw]) for draw in rows] == [[0, 1, 2]] * 2


def test_the_mean_and_the_interval_are_those_of_the_draws(banks):
    found = label_fractions.evaluate(*banks, num_classes=K, fractions=(0.3, 1.0), draws=4)
    assert set(found) == {"30%", "30%_interval", "100%", "100%_interval"}

    train, test = standardise(*banks)

    def score(rows):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own deprecations are not under test
            model = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000)
            return model.fit(train.x[rows], train.y[rows]).score(test.x, test.y)

    some, everything = label_fractions.stratified(train.y, K, (0.3, 1.0), 4, 0)
    assert found["100%"] == pytest.approx(score(everything[0]), abs=1e-9)
    assert found["100%_interval"] == 0.0
    alone = [score(rows) for rows in some]
    assert np.ptp(alone) > 0
    assert found["30%"] == pytest.approx(np.mean(alone), abs=0.005)
    half = 1.96 * np.std(alone, ddof=1) / np.sqrt(4)
    assert found["30%_interval"] == pytest.approx(half, abs=0.01)


def test_eight_devices_give_the_numbers_of_one(banks):
    score = lambda: label_fractions.evaluate(*banks, num_classes=K, fractions=(0.3,), draws=2)
    expected = score()
    mesh = jax.make_mesh((2, 4, 1), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        assert score() == pytest.approx(expected, abs=0.013)  # rounding may move one sample of 80


def test_more_than_all_labels_and_a_missing_class_are_one_line(banks):
    with pytest.raises(ConfigError, match=r"fractions: found 1\.5, expected at most 1"):
        label_fractions.evaluate(*banks, num_classes=K, fractions=(0.1, 1.5))
    with pytest.raises(ConfigError, match=r"found no sample of class 3 in the bank"):
        label_fractions.evaluate(*banks, num_classes=K + 1)
