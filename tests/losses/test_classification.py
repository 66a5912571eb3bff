"""Cross-entropies with labels and with a teacher: known values, gradients, invariances."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


LABELS = jnp.arange(16) % 5


def smoothed(logits, labels):
    return losses.label_smoothing_cross_entropy(logits, labels, smoothing=0.8)


@pytest.mark.parametrize(
    "fn, arrays",
    [
        (smoothed, (normal(0, 16, 5), LABELS)),
        (losses.kl_divergence, [normal(i, 16, 5) for i in (0, 1)]),
    ],
)
def test_eight_devices_give_the_numbers_of_one(fn, arrays):
    golden.check_devices(fn, arrays, (0, 0))


def test_known_values():
    assert float(smoothed(jnp.array([[2.0, 0.0]]), jnp.array([0]))) == pytest.approx(0.926928)
    for smoothing in (0.0, 0.3, 1.0):
        value = losses.label_smoothing_cross_entropy(
            jnp.zeros((4, 1000)), jnp.arange(4), smoothing=smoothing
        )
        assert float(value) == pytest.approx(6.907755)


def test_it_is_the_cross_entropy_with_the_smoothed_target():
    logits = normal(0, 16, 5)
    target = 0.2 * jax.nn.one_hot(LABELS, 5) + 0.8 / 5
    expected = -(target * jax.nn.log_softmax(logits)).sum(-1).mean()
    np.testing.assert_allclose(smoothed(logits, LABELS), expected, rtol=1e-6)
    grad = jax.grad(smoothed)(logits, LABELS)
    np.testing.assert_allclose(grad, (jax.nn.softmax(logits) - target) / 16, atol=1e-7)


def test_least_at_the_logits_of_the_smoothed_target():
    """l_n - l_j = log(1 + (1 - a) N / a): 9.434 for 50,000 samples at a = 0.8."""
    gap = np.log1p(0.2 * 50_000 / 0.8)
    assert gap == pytest.approx(9.434, abs=1e-3)
    logits = jnp.zeros((1, 50_000)).at[0, 7].set(gap)
    assert float(jnp.abs(jax.grad(smoothed)(logits, jnp.array([7]))).max()) < 1e-6


def test_full_smoothing_does_not_know_the_labels():
    fn = lambda labels: losses.label_smoothing_cross_entropy(normal(0, 16, 5), labels, smoothing=1)
    assert float(fn(LABELS)) == float(fn(LABELS * 0)) >= np.log(5)


def test_a_label_that_is_no_class_is_not_silent():
    assert np.isnan(smoothed(normal(0, 2, 5), jnp.array([0, 5])))


def test_smoothing_outside_its_range_is_named():
    with pytest.raises(ConfigError, match=r"smoothing: found 1\.2, expected 0 to 1"):
        losses.label_smoothing_cross_entropy(jnp.zeros((1, 2)), jnp.array([0]), smoothing=1.2)


def test_divergence_is_the_cross_entropy_less_the_teachers_entropy():
    s, t = normal(0, 16, 5), normal(1, 16, 5)
    p, log_p, log_q = jax.nn.softmax(t / 2), jax.nn.log_softmax(t / 2), jax.nn.log_softmax(s / 3)
    cross_entropy, entropy = -(p * log_q).sum(-1).mean(), -(p * log_p).sum(-1).mean()
    fn = lambda s, t: losses.kl_divergence(s, t, student_temperature=3.0, teacher_temperature=2.0)
    value, (to_student, to_teacher) = jax.value_and_grad(fn, (0, 1))(s, t)
    np.testing.assert_allclose(value, cross_entropy - entropy, rtol=1e-4)
    np.testing.assert_allclose(to_student, (jax.nn.softmax(s / 3) - p) / 48, atol=1e-7)
    assert not np.any(to_teacher)
    np.testing.assert_allclose(fn(s + 7, t), value, rtol=1e-4)


def test_divergence_is_zero_and_still_where_both_agree():
    t = normal(0, 16, 5)
    value, grad = jax.value_and_grad(losses.kl_divergence)(t, t)
    assert float(value) == 0 and float(jnp.abs(grad).max()) < 1e-7
