"""Consistency: published values, cards by hand, limits, devices, shapes."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError

NAMES = (
    "mixmatch_targets",
    "mixmatch_consistency",
    "mean_teacher",
    "uda_supervised",
    "tsa_threshold",
    "uda_consistency",
)


def normal(seed, *shape):
    return np.float32(2 * np.random.default_rng(seed).normal(size=shape))


S, T, LABELS = normal(0, 16, 5), normal(1, 16, 5), np.arange(16) % 5
P = np.asarray(jax.nn.softmax(T))
X, NOISE, W = normal(2, 8, 3, 2), normal(3, 8, 3, 2), normal(4, 6, 4)


def network(x):
    return jnp.tanh(jnp.matmul(x.reshape(len(x), -1), W, precision="highest"))


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_the_published_ones(shared, name):
    golden.check_outputs(shared, name, getattr(losses, name))


def test_virtual_adversaries_are_the_published_ones(shared):
    def vat(x, direction, w1, w2, **fields):
        apply = lambda v: jnp.tanh(v.reshape(len(v), -1) @ w1) @ w2
        return losses.vat(apply, x, direction, **fields)

    golden.check_outputs(shared, "vat", vat)


@pytest.mark.parametrize(
    ("fn", "arrays", "axes"),
    [
        (losses.mixmatch_targets, (normal(5, 2, 16, 5),), (1,)),
        (losses.mixmatch_consistency, (S, P), (0, 0)),
        (losses.mean_teacher, (S, T), (0, 0)),
        (lambda *a: losses.uda_supervised(*a, threshold=0.6).loss, (S, LABELS), (0, 0)),
        (lambda *a: losses.uda_consistency(*a, threshold=0.5).loss, (S, T), (0, 0)),
        (lambda *a: losses.vat(network, *a, xi=0.5, epsilon=1.0), (X / 4, NOISE), (0, 0)),
    ],
)
def test_one_device_equals_eight(fn, arrays, axes):
    golden.check_devices(fn, arrays, axes)


@pytest.mark.parametrize(
    "fn",
    [
        losses.mean_teacher,
        lambda s, t: losses.mixmatch_consistency(s, jax.nn.softmax(t)),
        lambda s, t: losses.uda_consistency(s, t, temperature=1.0, threshold=0.0).loss,
    ],
)
def test_agreement_is_zero_and_the_teacher_has_no_gradient(fn):
    value, grads = jax.value_and_grad(fn, (0, 1))(S, T)
    assert value > 0.01 and np.any(grads[0]) and not np.any(grads[1])
    assert abs(fn(S + 3, S)) < 1e-6


def test_targets_are_sharpened_means():
    found = losses.mixmatch_targets(np.log(np.float32([[[0.6, 0.4]]])), temperature=0.5)
    np.testing.assert_allclose(found, [[0.692308, 0.307692]], atol=1e-6)
    views = normal(5, 3, 4, 5)
    plain = losses.mixmatch_targets(views, temperature=1.0)
    np.testing.assert_allclose(plain, jax.nn.softmax(views).mean(0), rtol=1e-5)
    assert np.all(np.isfinite(losses.mixmatch_targets(100 * views, temperature=0.01)))
    assert not np.any(jax.grad(lambda v: losses.mixmatch_targets(v)[0, 0])(views))


@pytest.mark.parametrize(
    ("schedule", "half", "end"),
    [("linear", 0.55, 1), ("exp", 0.173876, 1), ("log", 0.926124, None)],
)
def test_annealing_goes_from_chance_to_all(schedule, half, end):
    at = lambda t: float(losses.tsa_threshold(np.float32(t), schedule=schedule, num_classes=10))
    assert at(0.5) == pytest.approx(half, abs=1e-5)
    assert at(1.0) == pytest.approx(end or 1 - 0.9 * np.exp(-5), abs=1e-5)


def test_known_labels_no_longer_teach():
    p = jax.nn.softmax(S)[np.arange(16), LABELS]
    loss, mask = losses.uda_supervised(S, LABELS, threshold=0.3)
    np.testing.assert_array_equal(mask, p <= 0.3)
    assert 0 < mask.sum() < 16
    np.testing.assert_allclose(loss, -np.log(p[mask == 1]).mean(), rtol=1e-5)
    value, grad = jax.value_and_grad(lambda s: losses.uda_supervised(s, LABELS, threshold=0)[0])(S)
    assert value == 0 and not np.any(grad)


def test_the_target_is_sharpened_and_the_mask_is_not():
    sharp = losses.uda_consistency(S, T, temperature=0.1, threshold=0.6)
    plain = losses.uda_consistency(S, T, temperature=1.0, threshold=0.6)
    np.testing.assert_array_equal(sharp.mask, P.max(-1) > 0.6)
    np.testing.assert_array_equal(plain.mask, sharp.mask)
    np.testing.assert_allclose(
        losses.uda_consistency(S, T, temperature=1.0, threshold=0.0).loss,
        losses.kl_divergence(S, T),
        rtol=1e-5,
    )


def test_the_worst_direction_of_a_linear_model_is_that_of_its_weights():
    # Two classes: the logits differ along one direction only, whatever the noise.
    w = np.float32([[3, 0], [0, 4], [0, 0]])
    apply = lambda x: x @ w
    x, along = normal(6, 1, 3) / 4, np.float32([3, -4, 0]) / 5
    both = [float(losses.kl_divergence(apply(x + s * along), apply(x))) for s in (1, -1)]
    for noise in normal(7, 3, 1, 3):
        found = float(losses.vat(apply, x, noise, xi=0.1, epsilon=1.0))
        assert min(abs(found - value) for value in both) < 1e-4 * max(both)
    assert abs(losses.vat(network, X, NOISE, epsilon=0.0)) < 1e-6
    same = [losses.vat(network, X, c * NOISE, xi=0.1, epsilon=1.0) for c in (1.0, 1e-9)]
    np.testing.assert_allclose(*same, rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: losses.mixmatch_targets(S), AssertionError),
        (lambda: losses.mixmatch_consistency(S, P[:3]), AssertionError),
        (lambda: losses.mean_teacher(S, T[:3]), AssertionError),
        (lambda: losses.uda_supervised(S, LABELS[:3], threshold=1), AssertionError),
        (lambda: losses.tsa_threshold(0.5, schedule="cosine", num_classes=2), ConfigError),
        (lambda: losses.uda_consistency(S, T[:3]), AssertionError),
        (lambda: losses.vat(network, X, NOISE[:3]), AssertionError),
    ],
)
def test_what_does_not_fit_is_refused(call, error):
    with pytest.raises(error):
        call()
