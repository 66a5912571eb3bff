"""The loss of what one network finds in another's features."""

import golden
import jax
import jax.numpy as jnp
import numpy as np

from jaxssl import losses

TEMPERATURES = dict(student_temperature=0.1, teacher_temperature=0.04)


def scores(seed, *shape):
    return 0.1 * jax.random.normal(jax.random.key(seed), shape)


def test_each_view_meets_its_own_answer():
    student, teacher = scores(0, 3, 4, 6), scores(1, 3, 4, 6)
    got = losses.search_distillation(student, teacher, **TEMPERATURES)
    s, t = np.asarray(student, np.float64) / 0.1, np.asarray(teacher, np.float64) / 0.04
    p = np.exp(t) / np.exp(t).sum(-1, keepdims=True)
    log_q = s - np.log(np.exp(s).sum(-1, keepdims=True))
    np.testing.assert_allclose(got, -(p * log_q).sum(-1).mean(), rtol=1e-5)


def test_no_gradient_to_the_teacher_and_none_where_they_agree():
    student, teacher = scores(0, 2, 4, 6), scores(1, 2, 4, 6)
    loss = lambda s, t: losses.search_distillation(s, t, **TEMPERATURES)
    to_student, to_teacher = jax.grad(loss, (0, 1))(student, teacher)
    assert not np.any(to_teacher) and np.abs(to_student).max() > 1e-3
    agreeing = jax.grad(loss)(teacher * 0.1 / 0.04, teacher)
    np.testing.assert_allclose(agreeing, 0, atol=1e-6)


def test_eight_devices():
    loss = lambda s, t: losses.search_distillation(s, t, **TEMPERATURES)
    golden.check_devices(loss, (scores(0, 2, 16, 6), scores(1, 2, 16, 6)), (1, 1))


def test_float32_under_bfloat16():
    student, teacher = (jnp.asarray(scores(i, 2, 4, 6), jnp.bfloat16) for i in (0, 1))
    value = losses.search_distillation(student, teacher, **TEMPERATURES)
    wide = (x.astype(jnp.float32) for x in (student, teacher))
    assert value.dtype == jnp.float32
    assert float(value) == float(losses.search_distillation(*wide, **TEMPERATURES))
