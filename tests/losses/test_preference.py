"""Preferences and rewards: published values, cards by hand, limits, devices, shapes."""

import golden
import jax
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError


def normal(seed, *shape):
    return np.float32(0.3 * np.random.default_rng(seed).normal(size=shape))


FOUR = tuple(normal(i, 8) for i in range(4))
L, OLD, REFERENCE = (normal(i, 8, 5) for i in (4, 5, 6))
A, MASK = normal(7, 8), np.arange(5) < (np.arange(8) % 6)[:, None]


@pytest.mark.parametrize("name", ["dpo", "grpo_advantages", "grpo"])
def test_values_and_gradients_are_the_published_ones(shared, name):
    golden.check_outputs(shared, name, getattr(losses, name))


@pytest.mark.parametrize(
    ("fn", "arrays"),
    [
        (losses.dpo, FOUR),
        (losses.grpo_advantages, (L,)),
        (lambda *a: losses.grpo(*a, kl_weight=0.1), (L, OLD, REFERENCE, A, MASK)),
        (lambda *a: losses.grpo(*a, mean="token"), (L, OLD, REFERENCE, A, MASK)),
    ],
)
def test_one_device_equals_eight(fn, arrays):
    golden.check_devices(fn, arrays, (0,) * len(arrays))


def test_preferences_by_hand():
    zero = np.zeros(1, np.float32)
    assert float(losses.dpo(*FOUR[:2], *FOUR[:2])) == pytest.approx(0.693147, abs=1e-6)
    assert float(losses.dpo(zero + 2, zero - 1, zero, zero)) == pytest.approx(0.554355, abs=1e-6)
    grads = jax.grad(losses.dpo, (0, 1, 2, 3))(*FOUR)
    np.testing.assert_allclose(grads[0], -grads[1])
    assert np.all(grads[0] < 0) and not np.any(grads[2]) and not np.any(grads[3])
    far = losses.dpo(zero - 1e5, zero, zero, zero, beta=1.0)
    assert float(far) == pytest.approx(1e5)


@pytest.mark.parametrize(
    ("rewards", "advantages"),
    [
        ((1, 0, 0, 1), (0.865875, -0.865875, -0.865875, 0.865875)),
        ((1, 0, 0, 0), (1.499700, -0.499900, -0.499900, -0.499900)),
        ((0.1, 0.1, 0.1, 0.1), (0, 0, 0, 0)),
    ],
)
def test_advantages_by_hand(rewards, advantages):
    found = losses.grpo_advantages(np.float32([rewards]))
    np.testing.assert_allclose(found, [advantages], atol=1e-6)


def test_policy_losses_by_hand():
    # Two answers, of 2 and 6 tokens, with losses of 1 and 2: 1.5 of answers, 1.75 of tokens.
    l, mask = np.zeros((2, 6), np.float32), np.arange(6) < np.array([[2], [6]])
    a = np.float32([-1, -2])
    assert float(losses.grpo(l, l, l, a, mask)) == pytest.approx(1.5)
    assert float(losses.grpo(l, l, l, a, mask, mean="token")) == pytest.approx(1.75)
    guide = np.full_like(l, np.log(0.4))
    half = np.full_like(l, np.log(0.5))
    only = losses.grpo(half, half, guide, 0 * a, mask, kl_weight=1.0)
    assert float(only) == pytest.approx(0.023144, abs=1e-6)
    empty = losses.grpo(l, l, l, a, mask & [[False], [True]])
    assert float(empty) == pytest.approx(1.0)  # an empty answer counts 0


def test_the_ratio_is_clipped_where_it_would_gain():
    l = np.log(np.float32([[1.5, 0.5]]))
    one, zero = np.ones((1, 2)), np.zeros((1, 2), np.float32)
    up, down = np.float32([1]), np.float32([-1])
    slope = lambda a: jax.grad(losses.grpo)(l, zero, zero, a, one)[0]
    np.testing.assert_allclose(slope(up), [0, -0.25], atol=1e-6)
    np.testing.assert_allclose(slope(down), [0.75, 0], atol=1e-6)
    found = losses.grpo(l, zero, zero, up, one, epsilon_low=0.2, epsilon_high=0.4)
    assert float(found) == pytest.approx(-(1.4 + 0.5) / 2)


@pytest.mark.parametrize("mean", ["sequence", "token"])
def test_beyond_the_answer_nothing_counts_and_only_the_policy_has_a_gradient(mean):
    fields = dict(mean=mean, kl_weight=0.1)
    value = losses.grpo(L, OLD, REFERENCE, A, MASK, **fields)
    garbage = [np.where(MASK, x, y) for x, y in ((L, np.nan), (OLD, -np.inf), (REFERENCE, 99))]
    grads = jax.grad(lambda *a: losses.grpo(*a, MASK, **fields), (0, 1, 2, 3))(*garbage, A)
    np.testing.assert_allclose(losses.grpo(*garbage, A, MASK, **fields), value, rtol=1e-6)
    assert np.all(np.isfinite(grads[0])) and not np.any(grads[0][~MASK])
    assert not any(np.any(g) for g in grads[1:]) and np.any(grads[0])


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: losses.dpo(*FOUR[:3], FOUR[3][:4]), AssertionError),
        (lambda: losses.grpo_advantages(A), AssertionError),
        (lambda: losses.grpo_advantages(L[:, :1]), AssertionError),
        (lambda: losses.grpo(L, OLD, REFERENCE, A[:4], MASK), AssertionError),
        (lambda: losses.grpo(L, OLD, REFERENCE, A, MASK, mean="batch"), ConfigError),
    ],
)
def test_what_does_not_fit_is_refused(call, error):
    with pytest.raises(error):
        call()
