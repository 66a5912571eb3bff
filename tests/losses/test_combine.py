"""Combinators: what they compute, that they nest, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError


def gap(student, target, *, scale=1.0):
    return scale * jnp.abs(student - target).mean()


STUDENT = jnp.array([[1.0], [2.0], [4.0]])
TARGET = jnp.array([[10.0], [20.0]])


def test_cross_pairs_leave_out_the_same_view():
    loss = losses.over_pairs(gap, "cross")
    # Target views 0 and 1 against student views 0, 1, 2: (0, 1), (1, 0), (2, 0), (2, 1).
    assert float(loss(STUDENT, TARGET, (0, 1, 2), (0, 1))) == (19 + 8 + 6 + 16) / 4
    assert float(loss(STUDENT, TARGET, (0, 1, 2), (0, 1), scale=2.0)) == (19 + 8 + 6 + 16) / 2


def test_pairs_go_by_id_not_by_place():
    loss = losses.over_pairs(gap, "same")
    assert float(loss(STUDENT, TARGET, (5, 7, 9), (9, 5))) == (19 + 6) / 2
    # No view in common: every pair is a cross pair.
    cross = losses.over_pairs(gap, "cross")
    assert float(cross(STUDENT[:1], TARGET, (0,), (3, 4))) == (9 + 19) / 2


def test_pairs_are_refused_before_they_compute():
    with pytest.raises(ConfigError, match=r"pairs: found 'cros'.*did you mean 'cross'"):
        losses.over_pairs(gap, "cros")
    with pytest.raises(ConfigError, match=r"no 'cross' pair between student views \(0,\)"):
        losses.over_pairs(gap, "cross")(STUDENT[:1], TARGET[:1], (0,), (0,))
    with pytest.raises(ConfigError, match="target_ids: found 3 ids, expected 2"):
        losses.over_pairs(gap, "same")(STUDENT, TARGET, (0, 1, 2), (0, 1, 2))


def test_sigreg_over_views_is_not_the_pooled_test():
    z = jax.random.normal(jax.random.key(0), (3, 32, 4)) + jnp.arange(3.0)[:, None, None] - 1
    a = losses.random_directions(jax.random.key(1), 4, 16)
    per_view = losses.over_views(losses.sigreg)
    alone = jax.jit(jax.value_and_grad(losses.sigreg))
    value, grad = jax.jit(jax.value_and_grad(per_view))(z, a)
    singles = [alone(v, a) for v in z]
    np.testing.assert_allclose(value, np.mean([v for v, _ in singles]), rtol=1e-5)
    np.testing.assert_allclose(grad, np.stack([g for _, g in singles]) / 3, atol=1e-6)
    pooled = alone(z.reshape(96, 4), a)[0]
    assert abs(float(value - pooled)) > 0.1 * float(pooled)
    coarse = jax.jit(lambda z, a: per_view(z, a, num_knots=3))(z, a)
    assert abs(float(coarse - value)) > 1e-3


def test_weights_and_schedules_nest():
    schedule = optax.linear_schedule(0.0, 1.0, 10)
    loss = losses.weighted(losses.scheduled(losses.over_views(jnp.max), schedule), 3.0)
    assert float(loss(STUDENT, step=5)) == pytest.approx(3 * 0.5 * 7 / 3)
    assert float(loss(STUDENT, step=jnp.int32(0))) == 0
    with pytest.raises(ConfigError, match="step: found none"):
        loss(STUDENT)


def test_the_step_reaches_losses_that_name_it_and_no_others():
    def cooled(z, *, step):
        return z.sum() / step

    loss = losses.sum_of(cooled=cooled, plain=losses.weighted(jnp.max, 2.0))
    total, terms = loss(STUDENT, step=4)
    assert float(terms["cooled"]) == 7 / 4 and float(terms["plain"]) == 8
    assert float(total) == 9.75
    assert float(losses.over_views(cooled)(STUDENT, step=1)) == pytest.approx(7 / 3)


def test_a_sum_needs_a_term():
    with pytest.raises(ConfigError, match="sum_of: found no losses"):
        losses.sum_of()


def test_masked_mean_divides_once():
    values = jnp.array([[1.0, 2.0], [6.0, 100.0]])
    mask = jnp.array([[True, True], [True, False]])
    assert float(losses.masked_mean(values, mask)) == 3  # not the mean of 1.5 and 6
    assert float(losses.masked_mean(values, jnp.array([0.0, 0.5]))) == 51  # weights broadcast
    half = losses.masked_mean(jnp.full(4096, 0.1, jnp.bfloat16), jnp.ones(4096))
    assert half.dtype == jnp.float32
    assert float(half) == pytest.approx(float(jnp.bfloat16(0.1)), rel=1e-5)


def test_masked_mean_ignores_what_it_masks():
    values = jnp.array([1.0, jnp.nan, jnp.inf])
    fn = jax.value_and_grad(losses.masked_mean)
    value, grad = fn(values, jnp.array([True, False, False]))
    assert float(value) == 1
    np.testing.assert_array_equal(grad, [1, 0, 0])
    value, grad = fn(values, jnp.zeros(3))
    assert float(value) == 0
    np.testing.assert_array_equal(grad, 0)
