"""Readouts of E[X2 | X1]: exact cases, estimators, correlated functions."""

import types

import numpy as np
import pytest

from jaxssl.config.errors import ConfigError
from jaxssl.evals.features import Features
from jaxssl.evals.theory import conditional_independence as ci


def mixture(seed, n, alpha=0.0, width=20):
    """Balanced classes +-1, parts that share a part alpha of what is not the class."""
    rng = np.random.default_rng(seed)
    y = rng.choice([-1.0, 1.0], size=n)
    own = rng.normal(size=(2, n, width))
    direction = np.zeros(width)
    direction[0] = 1.0
    x1 = y[:, None] * direction + own[0]
    x2 = y[:, None] * direction + np.sqrt(1 - alpha**2) * own[1] + alpha * own[0]
    return x1, x2, y


def test_the_prediction_of_a_scalar_gives_the_class_probability_exactly():
    """P(1 | x1) = (1 + psi) / 2 for X2 | Y = +-1: affine, whatever x1 is like."""
    p = np.random.default_rng(0).uniform(0.05, 0.95, size=200)  # P(1 | x1)
    psi = p - (1 - p)
    readout = ci.least_squares(psi[:, None], p[:, None])
    np.testing.assert_allclose(readout(psi[:, None])[:, 0], (1 + psi) / 2, atol=1e-12)
    np.testing.assert_allclose(readout.weight, [[0.5]])
    np.testing.assert_allclose(readout.bias, [0.5])


def test_the_learnt_prediction_of_a_mixture_is_a_hyperbolic_tangent():
    x1, x2, _ = mixture(0, 40_000, width=1)
    powers = lambda x: np.tanh(np.asarray(x).reshape(-1, 1) * np.array([0.5, 0.8, 1.3, 2.0]))
    psi = ci.least_squares(powers(x1), x2)
    assert psi(powers([0.5]))[0, 0] == pytest.approx(0.462117, abs=0.02)
    assert psi(powers([-1.5]))[0, 0] == pytest.approx(np.tanh(-1.5), abs=0.02)


def test_least_squares_is_the_linear_gaussian_prediction():
    rng = np.random.default_rng(0)
    x1 = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)) + 3
    x2 = x1 @ rng.normal(size=(4, 2)) + rng.normal(size=(500, 2)) - 7
    a, b = x1 - x1.mean(0), x2 - x2.mean(0)
    expected = np.linalg.solve(a.T @ a, a.T @ b)
    readout = ci.least_squares(x1, x2)
    np.testing.assert_allclose(readout.weight, expected, atol=1e-6)
    np.testing.assert_allclose(readout(x1).mean(0), x2.mean(0), atol=1e-6)
    penalised = np.linalg.solve(a.T @ a + 50 * np.eye(4), a.T @ b)
    np.testing.assert_allclose(ci.least_squares(x1, x2, ridge=50.0).weight, penalised, atol=1e-6)
    wide = ci.least_squares(x1[:3], x2[:3])  # fewer samples than numbers: of least norm
    np.testing.assert_allclose(wide(x1[:3]), x2[:3], atol=1e-6)


def test_partial_covariance_vanishes_under_conditional_independence_alone():
    sizes = []
    for n in (1_000, 100_000):
        x1, x2, y = mixture(1, n, width=3)
        one_hot = np.stack([y > 0, y < 0], axis=1)
        left = ci.partial_covariance(x1, x2, one_hot)
        assert abs(np.cov(x1[:, 0], x2[:, 0])[0, 1]) > 0.8  # the class is shared
        sizes.append(np.sqrt((left**2).mean()))
    # N^-1/2: a tenth for a hundred times as many.
    assert sizes[0] < 0.1 and 0.03 < sizes[1] / sizes[0] < 0.3
    x1, _, y = mixture(1, 100_000, width=3)
    left = ci.partial_covariance(x1, x1, np.stack([y > 0, y < 0], axis=1))
    np.testing.assert_allclose(left, np.eye(3), atol=0.05)


def test_the_readout_of_the_prediction_needs_few_labels_until_the_parts_depend():
    def error(alpha, few=30):
        x1, x2, y = mixture(2, 20_000, alpha)
        psi = ci.least_squares(x1, x2)
        test, _, truth = mixture(3, 5_000, alpha)
        errors = []
        for see in (lambda x: psi(x), lambda x: x):
            each = []
            for start in range(0, 10 * few, few):
                rows = slice(start, start + few)
                readout = ci.least_squares(see(x1[rows]), y[rows, None], ridge=1e-3)
                each.append(((readout(see(test))[:, 0] - truth) ** 2).mean())
            errors.append(np.mean(each))
        return errors

    independent, dependent = error(0.0), error(1.0)
    # Where X2 = X1 the prediction is X1 itself, and nothing is gained.
    assert dependent[0] == pytest.approx(dependent[1], rel=0.02)
    # E[X2 | X1] varies along the class alone, but for the noise of estimating it: 20 small numbers.
    one = error_of_one_direction()
    assert one < 0.75 * independent[1]


def error_of_one_direction(few=30):
    """The same with the redundant directions of the prediction removed, as its rank is 1."""
    x1, x2, y = mixture(2, 20_000)
    psi = ci.least_squares(x1, x2)
    _, _, v = np.linalg.svd(psi(x1) - psi(x1).mean(0), full_matrices=False)
    see = lambda x: psi(x) @ v[:1].T
    test, _, truth = mixture(3, 5_000)
    each = []
    for start in range(0, 10 * few, few):
        readout = ci.least_squares(see(x1[start : start + few]), y[start : start + few, None])
        each.append(((readout(see(test))[:, 0] - truth) ** 2).mean())
    return np.mean(each)


def test_an_independent_part_predicts_the_prior():
    rng = np.random.default_rng(0)
    x1, x2 = rng.normal(size=(50_000, 3)), rng.normal(size=(50_000, 2))
    y = np.eye(2)[(rng.random(50_000) < 0.3).astype(int)]
    psi = ci.least_squares(x1, x2)(x1)
    assert psi.std(0).max() < 0.02
    prior = ci.least_squares(psi, y, ridge=1.0)(psi)
    np.testing.assert_allclose(prior, np.broadcast_to([0.7, 0.3], prior.shape), atol=0.03)


def test_correlated_functions_are_white_and_their_distance_is_their_correlation():
    rng = np.random.default_rng(0)
    x1 = rng.normal(size=(400, 4)) @ rng.normal(size=(4, 4)) + 2
    x2 = np.concatenate([x1[:, :2] + rng.normal(size=(400, 2)), rng.normal(size=(400, 3))], 1)
    found = ci.correlated(x1, x2, 3)
    for part in (found.f, found.g):
        np.testing.assert_allclose(part.mean(0), 0, atol=1e-9)
        np.testing.assert_allclose(part.T @ part / 400, np.eye(3), atol=1e-9)
    rho = found.correlations
    np.testing.assert_allclose((found.f * found.g).mean(0), rho, atol=1e-9)
    assert 1 >= rho[0] >= rho[1] >= rho[2] >= 0 and rho[1] > 0.4
    assert ci.disagreement(found.f, found.g) == pytest.approx(2 * (3 - rho.sum()))
    np.testing.assert_allclose(ci.correlated(x1, x1, 4).correlations, 1, atol=1e-9)
    with pytest.raises(ConfigError, match="k: found 5, expected 1"):
        ci.correlated(x1, x2, 5)


def test_ace_of_a_joint_is_that_of_its_samples():
    joint = np.random.default_rng(0).dirichlet(np.ones(12)).reshape(3, 4)
    found = ci.ace(joint, 2)
    p, q = joint.sum(1), joint.sum(0)
    np.testing.assert_allclose(p @ found.f, 0, atol=1e-12)
    np.testing.assert_allclose(found.f.T @ (p[:, None] * found.f), np.eye(2), atol=1e-12)
    np.testing.assert_allclose(found.g.T @ (q[:, None] * found.g), np.eye(2), atol=1e-12)
    np.testing.assert_allclose(found.f.T @ joint @ found.g, np.diag(found.correlations), atol=1e-12)
    assert (found.correlations > 0).all() and (found.correlations < 1).all()
    counts = np.round(2000 * joint).astype(int)
    pairs = np.repeat(np.argwhere(counts >= 0), counts.ravel(), axis=0)
    one_hot = np.eye(3)[pairs[:, 0]], np.eye(4)[pairs[:, 1]]
    sampled = ci.correlated(*one_hot, 2).correlations
    np.testing.assert_allclose(sampled, ci.ace(counts, 2).correlations, atol=1e-6)
    np.testing.assert_allclose(ci.ace(np.eye(3), 2).correlations, 1)
    with pytest.raises(ConfigError, match="k: found 3"):
        ci.ace(joint, 3)


def bank(seed, n):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = 4 * np.eye(3, 5)[y] + rng.normal(size=(n, 5))
    return Features((9 * x).astype(np.float32), y.astype(np.int32), np.arange(n))


def test_the_accuracy_of_a_readout_is_that_of_few_labels():
    train, test = bank(0, 300), bank(1, 90)
    score = lambda labels: ci.readout_accuracy(train, test, num_classes=3, labels=labels, ridge=1.0)
    assert score(30) > 0.85
    others = Features(train.x, (train.y + 1) % 3, train.index)
    assert ci.readout_accuracy(others, test, num_classes=3, labels=30, ridge=1.0) < 0.1
    with pytest.raises(ConfigError, match="labels: found 301, expected at most the bank's 300"):
        score(301)


def test_every_output_is_read_with_every_number_of_labels():
    class Encoder:
        kind, num_classes, test_source = "trained", 3, "test"
        program = types.SimpleNamespace(
            source="train",
            config=types.SimpleNamespace(evals=types.SimpleNamespace(bank=0, test=0)),
        )

        def features(self, source, *, limit, output, change):
            assert change is None
            found = bank(*((0, 300) if source == "train" else (1, 90)))
            if output == "pooled":
                return found
            return Features(np.zeros_like(found.x), found.y, found.index)

    found = ci.examine(Encoder(), labels=(30, 60))
    assert set(found) == {"prediction_30", "prediction_60", "pooled_30", "pooled_60"}
    assert found["prediction_30"] == pytest.approx(1 / 3) and found["pooled_60"] > 0.85
    with pytest.raises(ConfigError, match=r"raw_half: found 'tops'.*did you mean 'top'"):
        ci.examine(Encoder(), raw_half="tops")
