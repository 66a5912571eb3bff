"""Landmarks: exact values of a small model, redundancy, and the rate in the number of landmarks."""

import types

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from jaxssl.config.errors import ConfigError
from jaxssl.evals.features import Features
from jaxssl.evals.probes import landmark_probe
from jaxssl.losses import density_ratio, pair_error

JOINT = np.array([[0.4, 0.1], [0.1, 0.4]])


def error_of(logits):
    """`pair_error` on pairs in proportion to the model's probabilities: 20 of each kind."""
    true = np.repeat(logits.ravel(), np.round(20 * JOINT.ravel()).astype(int))
    broken = np.repeat(logits.ravel(), 5)
    return float(pair_error(jnp.asarray(true), jnp.asarray(broken)))


def test_the_density_ratio_of_a_small_model():
    g = landmark_probe.ratios(JOINT)
    np.testing.assert_allclose(g, [[1.6, 0.4], [0.4, 1.6]])
    np.testing.assert_allclose(g.mean(axis=1), 1)  # over uniform z
    f = g / (1 + g)
    np.testing.assert_allclose(f, [[0.6154, 0.2857], [0.2857, 0.6154]], atol=5e-5)
    assert error_of(np.log(g)) == pytest.approx(0.642475, abs=1e-6)
    np.testing.assert_allclose(density_ratio(jnp.log(g)), g, rtol=1e-6)


def test_the_best_discriminator_is_the_density_ratio():
    reached = minimize(lambda l: error_of(l.reshape(2, 2)), np.zeros(4), method="Nelder-Mead")
    g = np.exp(reached.x.reshape(2, 2))
    np.testing.assert_allclose(g, landmark_probe.ratios(JOINT), atol=0.02)


def test_independent_views_have_nothing_to_tell():
    joint = np.outer([0.2, 0.8], [0.5, 0.3, 0.2])
    np.testing.assert_allclose(landmark_probe.ratios(joint), 1)
    zeros = jnp.zeros(7)
    assert float(pair_error(zeros, zeros)) == pytest.approx(0.693147, abs=1e-6)


def test_the_ratio_averages_to_one_over_the_marginal():
    joint = np.random.default_rng(0).dirichlet(np.ones(20)).reshape(4, 5)
    g = landmark_probe.ratios(joint)
    np.testing.assert_allclose(g @ joint.sum(0), 1)
    np.testing.assert_allclose(joint.sum(1) @ g, 1)


def test_both_landmarks_give_the_label_exactly():
    g = landmark_probe.ratios(JOINT)
    label = np.array([0.0, 1.0])  # y = z
    np.testing.assert_allclose(landmark_probe.through(g, label), [0.2, 0.8])
    found = landmark_probe.redundancy(JOINT, np.broadcast_to(label, (2, 2)))
    np.testing.assert_allclose(found.mu, [0.2, 0.8])
    assert found.eps_z == pytest.approx(0) and found.eps_x == pytest.approx(0.16)


def test_redundancy_bounds_the_error_of_going_through_a_view():
    rng = np.random.default_rng(0)
    for _ in range(200):
        shape = tuple(rng.integers(2, 6, size=2))
        joint = rng.dirichlet(np.full(np.prod(shape), 0.3)).reshape(shape) + 1e-6
        found = landmark_probe.redundancy(joint, rng.random(shape))
        assert found.error <= (np.sqrt(found.eps_x) + np.sqrt(found.eps_z)) ** 2 + 1e-12


def test_the_error_falls_as_one_over_the_number_of_landmarks():
    """A label that either view tells: four values, of which the first two are class 0."""
    joint = np.kron(np.eye(2), np.full((2, 2), 0.125)) * np.array([1, 2, 1, 2])
    joint /= joint.sum()
    g, marginal, label = landmark_probe.ratios(joint), joint.sum(0), np.array([0, 0, 1.0, 1])
    found = landmark_probe.redundancy(joint, np.broadcast_to(label, (4, 4)))
    np.testing.assert_allclose(found.mu, label, atol=1e-12)
    assert found.eps_x + found.eps_z == pytest.approx(0)
    variance = ((label * g) ** 2) @ marginal - found.mu**2
    rng, sizes, errors = np.random.default_rng(0), np.array([8, 32, 128, 512]), []
    for m in sizes:
        z = rng.choice(4, size=(1500, m), p=marginal)
        guess = np.stack([landmark_probe.through(g[:, rows], label[rows]) for rows in z])
        errors.append(((guess - found.mu) ** 2).mean(0))
    errors = np.array(errors)
    np.testing.assert_allclose(
        errors[:, 2:], np.outer(1 / sizes, variance[2:]), rtol=0.2
    )  # the variance of the theory
    slope = np.polyfit(np.log(sizes), np.log(errors.mean(1)), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)


class Embedding:
    """Landmark ratios of which only the later ones tell three classes apart."""

    num_classes, test_source, field = 3, "test", ("image", None)
    program = types.SimpleNamespace(
        source="train", config=types.SimpleNamespace(evals=types.SimpleNamespace(bank=0, test=0))
    )

    def __init__(self, kind):
        self.kind = kind

    def features(self, source, *, limit, output, change):
        rng = np.random.default_rng(len(source))
        y = np.arange(120) % 3
        x = rng.normal(size=(120, 8))
        x[:, 5:] += 5 * np.eye(3)[y]
        return Features(x.astype(np.float32), y.astype(np.int32), np.arange(120))


def test_the_first_landmarks_are_read():
    found = landmark_probe.examine(Embedding("trained"), landmarks=(4, 8))
    assert set(found) == {"accuracy_4", "accuracy_8"}
    assert found["accuracy_4"] < 0.6 < 0.95 < found["accuracy_8"]
    raw = landmark_probe.examine(Embedding("raw_input"), landmarks=(4, 16))
    assert raw["accuracy_4"] == raw["accuracy_16"] > 0.95
    with pytest.raises(ConfigError, match=r"landmarks: found 16, expected at most .* 8"):
        landmark_probe.examine(Embedding("random_init"), landmarks=(4, 16))
