"""Distillation between two networks through what one finds in the other's map of features."""

import chex
import jax
import jax.numpy as jnp


def search_distillation(
    student: jax.Array,
    teacher: jax.Array,
    *,
    student_temperature: float | jax.Array,
    teacher_temperature: float | jax.Array,
) -> jax.Array:
    """Cross-entropy of each view's scores against what its own query found, without a center.

    L = -mean_{v, n} sum_k softmax(t[v, n] / τ_t)[k] log softmax(s[v, n] / τ_s)[k]. Song, Xie,
    Zhang, Luo, 2023, "Multi-mode online knowledge distillation for self-supervised visual
    representation learning", arXiv 2304.06461: view v of the student meets the answer to the query
    of the same view v, unlike in `dino`, where only different views meet.

    Args:
      student: s [V, B, K]; computed in float32.
      teacher: t [V, B, K]; gets no gradient.
      student_temperature: τ_s.
      teacher_temperature: τ_t.

    Returns:
      Scalar, float32.

    >>> uniform = jnp.zeros((8, 2, 4))
    >>> loss = search_distillation(
    ...     uniform, uniform, student_temperature=0.1, teacher_temperature=0.04)
    >>> round(float(loss), 4)  # log 4
    1.3863
    """
    chex.assert_rank((student, teacher), 3)
    chex.assert_equal_shape((student, teacher))
    target = jax.nn.softmax(teacher.astype(jnp.float32) / teacher_temperature)
    scores = jax.nn.log_softmax(student.astype(jnp.float32) / student_temperature)
    return -(jax.lax.stop_gradient(target) * scores).sum(-1).mean()
