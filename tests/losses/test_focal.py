"""Focal losses: published values, cases by hand, extreme logits, devices, shapes."""

import golden
import jax
import numpy as np
import pytest

from jaxssl import losses

NAMES = ("sigmoid_focal", "quality_focal", "gaussian_focal")


def normal(seed, *shape):
    return np.float32(2 * np.random.default_rng(seed).normal(size=shape))


X = normal(0, 8, 4, 4, 2)
SOFT = np.float32(np.random.default_rng(1).uniform(size=X.shape))
PEAKS = np.where(SOFT > 0.9, 1, SOFT).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_the_published_ones(shared, name):
    golden.check_outputs(shared, name, getattr(losses, name))


@pytest.mark.parametrize("name", NAMES)
def test_one_device_equals_eight(name):
    golden.check_devices(getattr(losses, name), (X, PEAKS), (0, 0))


@pytest.mark.parametrize("name", NAMES)
def test_targets_have_no_gradient(name):
    grads = jax.grad(getattr(losses, name), (0, 1))(X, PEAKS)
    assert np.any(grads[0]) and not np.any(grads[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", [0.0, 0.4, 1.0])
def test_sure_answers_right_or_wrong_are_finite(name, target):
    x = np.float32([-200, -30, 30, 200]).reshape(4, 1, 1, 1)
    value, grad = jax.value_and_grad(getattr(losses, name))(x, np.full_like(x, target))
    assert np.isfinite(value) and np.all(np.isfinite(grad)) and value > 1


def test_without_focus_they_are_the_cross_entropy():
    plain = -(SOFT * jax.nn.log_sigmoid(X) + (1 - SOFT) * jax.nn.log_sigmoid(-X)).mean()
    found = losses.sigmoid_focal(X, SOFT, alpha=None, gamma=0.0)
    np.testing.assert_allclose(found, plain, rtol=1e-5)
    np.testing.assert_allclose(losses.quality_focal(X, SOFT, beta=0.0), plain, rtol=1e-5)
    half = losses.sigmoid_focal(X, SOFT, alpha=0.5, gamma=0.0)
    np.testing.assert_allclose(half, plain / 2, rtol=1e-5)


def test_values_by_hand():
    x = np.log(np.float32([3.0]))  # p = 3 / 4
    focal = lambda t: float(losses.sigmoid_focal(x, np.float32([t])))
    assert focal(1) == pytest.approx(0.25 * 0.25**2 * -np.log(0.75), rel=1e-5)
    assert focal(0) == pytest.approx(0.75 * 0.75**2 * -np.log(0.25), rel=1e-5)
    # Half a yes: p_t = 1 / 2 whatever p is.
    entropy = -0.5 * np.log(0.75) - 0.5 * np.log(0.25)
    assert focal(0.5) == pytest.approx(0.5 * 0.5**2 * entropy, rel=1e-5)
    assert float(losses.quality_focal(x, np.float32([0.75]))) == pytest.approx(0, abs=1e-9)


def test_a_map_is_divided_by_its_peaks_and_forgives_what_is_near_one():
    one = np.zeros((1, 2, 2, 1), np.float32)
    target = np.float32([1, 0.5, 0, 0]).reshape(one.shape)
    quarter = 0.25 * np.log(2)
    expected = quarter * (1 + 0.5**4 + 2)
    assert float(losses.gaussian_focal(one, target)) == pytest.approx(expected, rel=1e-5)
    twice = np.concatenate([one, one]), np.concatenate([target, target])
    assert float(losses.gaussian_focal(*twice)) == pytest.approx(expected, rel=1e-5)
    none = losses.gaussian_focal(one, 0 * target)
    assert float(none) == pytest.approx(4 * quarter, rel=1e-5)


def test_shapes_that_do_not_fit_are_refused():
    for call in (
        lambda: losses.gaussian_focal(X, PEAKS[:4]),
        lambda: losses.gaussian_focal(X[0], PEAKS[0]),
    ):
        with pytest.raises(AssertionError):
            call()
    for fn in (losses.sigmoid_focal, losses.quality_focal):
        with pytest.raises(ValueError, match="broadcast"):
            fn(X, SOFT[:4, :3])
