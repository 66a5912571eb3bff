"""Learning from one's own predictions: published values, cards by hand, devices, shapes."""

import golden
import jax
import numpy as np
import pytest

from jaxssl import losses

NAMES = ("t_similarity", "generalized_cross_entropy", "rpl", "entropy_minimisation")


def normal(seed, *shape):
    return np.float32(2 * np.random.default_rng(seed).normal(size=shape))


S, T, LABELS = normal(0, 16, 5), normal(1, 16, 5), np.arange(16) % 5


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_the_published_ones(shared, name):
    golden.check_outputs(shared, name, getattr(losses, name))


@pytest.mark.parametrize(
    ("fn", "arrays", "axes"),
    [
        (lambda x: losses.t_similarity(x).similarity, (normal(2, 3, 16, 5),), (1,)),
        (losses.generalized_cross_entropy, (S, LABELS), (0, 0)),
        (losses.rpl, (S, T), (0, 0)),
        (losses.entropy_minimisation, (S,), (0,)),
    ],
)
def test_one_device_equals_eight(fn, arrays, axes):
    golden.check_devices(fn, arrays, axes)


def test_agreement_of_an_ensemble_by_hand():
    p = np.float32([[[0.8, 0.2]], [[0.6, 0.4]], [[0.5, 0.5]]])
    similarity, classwise = losses.t_similarity(np.log(p))
    np.testing.assert_allclose(similarity, [0.52], rtol=1e-5)
    np.testing.assert_allclose(classwise.sum(-1), similarity, rtol=1e-6)
    np.testing.assert_allclose(losses.t_similarity(np.log(p[::-1]))[0], similarity, rtol=1e-6)
    sure = 99 * np.eye(4, dtype=np.float32)
    same, apart = np.stack([sure[:1]] * 3), sure[:3, None]
    assert float(losses.t_similarity(same).similarity[0]) == pytest.approx(1)
    assert float(losses.t_similarity(apart).similarity[0]) == 0
    assert float(losses.t_similarity(0 * same).similarity[0]) == pytest.approx(1 / 4)


def test_a_small_agreement_is_exact():
    tiny = np.float32([[[0, -15]], [[-15, 0]]])
    exact = 2 * np.exp(-15.0) / (1 + np.exp(-15.0)) ** 2
    np.testing.assert_allclose(losses.t_similarity(tiny).similarity, [exact], rtol=1e-5)


@pytest.mark.parametrize(
    ("p", "value"), [(0.1, 1.05189), (0.25, 0.83765), (0.5, 0.53206), (0.9, 0.10104)]
)
def test_generalised_cross_entropy_by_hand(p, value):
    logits, zero = np.log(np.float32([[p, 1 - p]])), np.array([0])
    assert float(losses.generalized_cross_entropy(logits, zero)) == pytest.approx(value, abs=1e-5)
    near = float(losses.generalized_cross_entropy(logits, zero, q=1e-4))
    assert near == pytest.approx(-np.log(p), abs=1e-3)
    assert float(losses.generalized_cross_entropy(logits, zero, q=1.0)) == pytest.approx(1 - p)


def test_slopes_by_hand():
    logits = np.log(np.float32([[0.5, 0.3, 0.2]]))
    found = jax.grad(losses.rpl)(logits, logits)
    np.testing.assert_allclose(found, [[-0.28717, 0.17230, 0.11487]], atol=1e-5)
    value, found = jax.value_and_grad(losses.entropy_minimisation)(logits)
    assert float(value) == pytest.approx(1.02965, abs=1e-5)
    np.testing.assert_allclose(found, [[-0.16825, 0.05230, 0.11596]], atol=1e-5)
    assert np.abs(jax.grad(losses.entropy_minimisation)(0 * logits)).max() < 1e-7
    assert not np.any(jax.grad(losses.rpl, 1)(S, T))


@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.t_similarity(S),
        lambda: losses.t_similarity(S[None]),
        lambda: losses.generalized_cross_entropy(S, LABELS[:3]),
        lambda: losses.rpl(S, T[:3]),
        lambda: losses.entropy_minimisation(S[0]),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call):
    with pytest.raises(AssertionError):
        call()
