import warnings

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from sklearn.linear_model import LogisticRegression

from jaxssl.config.errors import ConfigError
from jaxssl.evals.features import Features, standardise
from jaxssl.evals.probes import episodes

K = 6
SMALL = {"ways": 4, "shots": 2, "queries": 5, "episodes": 12}


def _bank(seed, count=120, width=8):
    rng = np.random.default_rng(seed)
    y = (np.arange(count) % K).astype(np.int32)
    x = 1.5 * np.eye(K, width)[y] + rng.normal(size=(count, width)) + 3
    return Features(x.astype(np.float32), y, np.arange(count))


@pytest.fixture(scope="module")
def banks():
    return _bank(0), _bank(1)


def _centroids(x, y, queries):
    long = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    centres = np.stack([long(long(x[y == way]).mean(axis=0)) for way in range(4)])
    return (long(queries) @ centres.T).argmax(axis=1)


def _regression(x, y, queries):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations are not under test
        return LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(x, y).predict(queries)


@pytest.mark.parametrize(
    "classifier, answers", [("centroid", _centroids), ("logistic", _regression)]
)
def test_the_accuracy_is_the_mean_over_episodes_of_the_plain_classifier(banks, classifier, answers):
    found = episodes.evaluate(*banks, num_classes=K, classifier=classifier, **SMALL)
    x = standardise(*banks)[1].x.astype(np.float64)
    scores = []
    for rows in episodes.draw(banks[1].y, K, 4, 7, 12, 0):
        y = np.repeat(np.arange(4), 2)
        right = answers(x[rows[:, :2]].reshape(8, -1), y, x[rows[:, 2:]].reshape(20, -1))
        scores.append(np.mean(right == np.repeat(np.arange(4), 5)))
    assert np.ptp(scores) > 0
    assert found["accuracy"] == pytest.approx(np.mean(scores), abs=0.005)
    half = 1.96 * np.std(scores, ddof=1) / np.sqrt(12)
    assert found["accuracy_interval"] == pytest.approx(half, abs=0.005)


def test_an_episode_has_different_samples_of_different_classes(banks):
    y = banks[1].y
    rows = episodes.draw(y, K, 4, 7, 50, 3)
    assert rows.shape == (50, 4, 7)
    for episode in rows:
        assert len(set(episode.ravel())) == 28
        assert (y[episode] == y[episode[:, :1]]).all() and len(set(y[episode[:, 0]])) == 4
    assert set(y[rows].ravel()) == set(range(K))
    np.testing.assert_array_equal(rows[:9], episodes.draw(y, K, 4, 7, 9, 3))
    assert not np.array_equal(rows, episodes.draw(y, K, 4, 7, 50, 4))


def test_eight_devices_give_the_numbers_of_one(banks):
    score = lambda: episodes.evaluate(*banks, num_classes=K, **SMALL)
    expected = score()
    mesh = jax.make_mesh((2, 4, 1), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        assert score() == pytest.approx(expected, abs=0.005)  # rounding: one query of 240


def test_classes_without_enough_samples_are_left_out_until_too_few_remain(banks):
    train, test = banks
    kept = np.flatnonzero((test.y != 2) | (np.cumsum(test.y == 2) <= 3))
    short = Features(test.x[kept], test.y[kept], test.index[kept])
    rows = episodes.draw(short.y, K, 4, 7, 40, 0)
    assert set(short.y[rows].ravel()) == {0, 1, 3, 4, 5}
    with pytest.raises(ConfigError, match=r"ways: found 6, expected at most 5, .* = 7 samples"):
        episodes.evaluate(train, short, num_classes=K, **{**SMALL, "ways": 6})
    with pytest.raises(ConfigError, match=r"found 'centroids', .*did you mean 'centroid'\?"):
        episodes.evaluate(train, test, num_classes=K, classifier="centroids")
