import warnings

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from jaxssl.config.errors import ConfigError
from jaxssl.evals.features import Features, standardise
from jaxssl.evals.probes import fewshot, knn, linear, logistic

K = 4


def _banks(train=150, test=90, width=12, noise=2.0):
    """Overlapping clouds around K means, so that no accuracy here is 0 or 1."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(K, width))
    y = rng.integers(0, K, train + test).astype(np.int32)
    x = (means[y] + noise * rng.normal(size=(train + test, width)) + 0.5).astype(np.float32)
    cut = lambda where: Features(x[where], y[where], np.arange(len(x))[where])
    return cut(slice(train)), cut(slice(train, None))


@pytest.fixture(scope="module")
def banks():
    return _banks()


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((2, 4, 1), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)


def _sklearn(x, y, c):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations are not under test
        return LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(x.astype(np.float64), y)


@pytest.mark.smoke
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_knn_is_the_weighted_cosine_vote(banks, temperature):
    train, test = banks
    reference = KNeighborsClassifier(
        n_neighbors=15,
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: np.exp((1 - distance) / temperature),
    ).fit(train.x, train.y)
    expected = reference.score(test.x, test.y)
    assert 0.3 < expected < 0.95
    for chunk in (32, 90, 256):  # with a last chunk of another size, one chunk, and a larger one
        found = knn.evaluate(train, test, num_classes=K, k=15, temperature=temperature, chunk=chunk)
        assert found["accuracy"] == pytest.approx(expected, abs=1e-9)


def test_knn_ignores_length_but_not_the_centre(banks):
    train, test = banks
    expected = knn.evaluate(train, test, num_classes=K)
    lengths = np.random.default_rng(1).uniform(0.1, 10, (len(train.x), 1)).astype(np.float32)
    stretched = Features(train.x * lengths, train.y, train.index)
    assert knn.evaluate(stretched, test, num_classes=K) == expected
    moved = [Features(bank.x + 50, bank.y, bank.index) for bank in banks]
    assert knn.evaluate(*moved, num_classes=K) != expected


@pytest.mark.parametrize("k", [1, 20, 90])
def test_the_search_by_groups_is_an_exact_top_k(k):
    similarity = np.random.default_rng(0).normal(size=(7, 128)).astype(np.float32)
    similarity[:, 100:] = -np.inf  # padding of the bank
    nearest, where = knn._top_k(similarity, k)
    order = np.argsort(-similarity, axis=1)[:, :k]
    np.testing.assert_array_equal(where, order)
    np.testing.assert_array_equal(nearest, np.take_along_axis(similarity, order, axis=1))


def test_knn_survives_a_tiny_temperature_and_refuses_a_tiny_bank(banks):
    train, test = banks
    sharp = knn.evaluate(train, test, num_classes=K, temperature=1e-4)
    assert sharp == knn.evaluate(train, test, num_classes=K, k=1)
    few = Features(train.x[:5], train.y[:5], train.index[:5])
    with pytest.raises(
        ConfigError, match=r"evals\.knn\.k: found 20, expected at most the bank's 5"
    ):
        knn.evaluate(few, test, num_classes=K)


@pytest.mark.smoke
@pytest.mark.parametrize("c", [0.01, 1.0])
def test_logistic_finds_the_coefficients_of_scikit_learn(banks, c):
    train, test = standardise(*banks)
    reference = _sklearn(train.x, train.y, c)
    weight = np.ones(len(train.y), np.float32)
    model = jax.jit(
        lambda x, y, w: logistic.fit(
            x, y, w, num_classes=K, c=c, max_iterations=200, tolerance=1e-6
        )
    )(train.x, train.y, weight)
    np.testing.assert_allclose(model.weight.T, reference.coef_, atol=2e-3)
    centred = model.bias - model.bias.mean()  # the softmax does not see a common shift
    np.testing.assert_allclose(
        centred, reference.intercept_ - reference.intercept_.mean(), atol=2e-3
    )
    found = linear.evaluate(*banks, num_classes=K, c=c)
    assert found["accuracy"] == pytest.approx(reference.score(test.x, test.y), abs=1e-9)


def test_linear_does_not_see_shift_or_scale(banks):
    moved = [Features(1000 * bank.x + 70, bank.y, bank.index) for bank in banks]
    assert linear.evaluate(*moved, num_classes=K) == linear.evaluate(*banks, num_classes=K)


def test_fewshot_is_the_mean_over_draws_of_the_same_regression(banks):
    found = fewshot.evaluate(*banks, num_classes=K, shots=(1, 3), draws=4, seed=7)
    train, test = standardise(*banks)
    rows = fewshot._draw(train.y, K, 3, 4, 7)
    for n in (1, 3):
        scores = []
        for draw in rows[:, :, :n].reshape(4, -1):
            assert np.bincount(train.y[draw]).tolist() == [n] * K and len(set(draw)) == n * K
            scores.append(_sklearn(train.x[draw], train.y[draw], 1.0).score(test.x, test.y))
        assert np.ptp(scores) > 0
        assert found[f"{n}_shot"] == pytest.approx(np.mean(scores), abs=0.006)
        half = 1.96 * np.std(scores, ddof=1) / np.sqrt(4)
        assert found[f"{n}_shot_interval"] == pytest.approx(half, abs=0.01)


def test_fewshot_draws_follow_the_seed_and_the_labels_alone(banks):
    train, _ = banks
    draws = fewshot._draw(train.y, K, 2, 3, 0)
    np.testing.assert_array_equal(draws, fewshot._draw(train.y, K, 2, 3, 0))
    assert not np.array_equal(draws, fewshot._draw(train.y, K, 2, 3, 1))
    np.testing.assert_array_equal(draws[..., :1], fewshot._draw(train.y, K, 1, 3, 0))


def test_fewshot_refuses_a_class_without_enough_labels(banks):
    train, test = banks
    kept = np.flatnonzero((train.y != 2) | (np.cumsum(train.y == 2) <= 3))
    short = Features(train.x[kept], train.y[kept], train.index[kept])
    with pytest.raises(ConfigError, match="found 5, expected at most 3, the samples of class 2"):
        fewshot.evaluate(short, test, num_classes=K)


def test_eight_devices_give_the_numbers_of_one_and_compile_once(banks, mesh):
    programs = (knn.hits, logistic.correct, fewshot._correct)
    expected = [module.evaluate(*banks, num_classes=K) for module in (knn, linear)]
    expected.append(fewshot.evaluate(*banks, num_classes=K, draws=3))
    with jax.set_mesh(mesh):
        found = [module.evaluate(*banks, num_classes=K) for module in (knn, linear)]
        found.append(fewshot.evaluate(*banks, num_classes=K, draws=3))
        compiled = [program._cache_size() for program in programs]
        other = _banks(noise=1.0)
        for module, before in zip((knn, linear), expected, strict=False):
            assert module.evaluate(*other, num_classes=K) != before
        fewshot.evaluate(*other, num_classes=K, draws=3)
        assert compiled == [program._cache_size() for program in programs]
    for left, right in zip(found, expected, strict=True):
        assert left == pytest.approx(right, abs=0.012)  # rounding may move one sample of 90
