"""Distillation of outputs: a student learns what a teacher, or its own past, says of the classes.

No gradient reaches the teacher. Where published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| `kd`, `sla`: the sum over classes, the mean over samples, times T^2 | a mean over classes: 1 / K |
| `dkd` in log space: finite for any logits | -1000 on the target: nan once a probability is 0 |
| `dist` times T^2 | the segmentation code has no T |
| `ps_kd`: one cross-entropy with mixed targets | two terms |
| `teacher_dropping`: over all kept losses of the batch | the mean of each image's mean |
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxssl.losses.classification import (
    cross_entropies,
    divergences,
    kl_divergence,
    log_probabilities,
)
from jaxssl.losses.combine import masked_mean
from jaxssl.losses.vectors import norm

HIGHEST = jax.lax.Precision.HIGHEST


class Aggregated(NamedTuple):
    """The loss, and the logits that the views of an image agree on, [B, N], without gradient."""

    loss: jax.Array
    aggregated: jax.Array


def kd(student: jax.Array, teacher: jax.Array, *, temperature: float = 4.0) -> jax.Array:
    """Knowledge distillation: the divergence of softened outputs, times the temperature squared.

    L = T^2 mean_n sum_k p_n[k] (log p_n[k] - log q_n[k]), p = softmax(t / T), q = softmax(s / T).
    Hinton, Vinyals, Dean, 2015, "Distilling the knowledge in a neural network", arXiv 1503.02531.
    The factor keeps the gradient of one scale at every T. A mean over classes, as the default
    reduction of some libraries has it, is smaller by K.

    Args:
      student: logits s [B, K]; computed in float32.
      teacher: logits t [B, K], without gradient.
      temperature: T, positive.

    Returns:
      Scalar, float32, at least 0.

    >>> round(float(kd(jnp.zeros((1, 2)), jnp.array([[2.0, 0.0]]), temperature=4.0)), 4)
    0.4848
    """
    divergence = kl_divergence(
        student, teacher, student_temperature=temperature, teacher_temperature=temperature
    )
    return temperature**2 * divergence


def dkd(
    student: jax.Array,
    teacher: jax.Array,
    labels: jax.Array,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> jax.Array:
    """Decoupled distillation: whether it is the label, and which of the others it could be.

    L = T^2 mean_n (α KL(b || b') + β KL(o || o')), with b = (p_y, 1 - p_y) and o the softmax of the
    K - 1 other logits, of t / T; b' and o' are those of s / T. Zhao et al., 2022, "Decoupled
    knowledge distillation", arXiv 2203.08679. KL of all classes is KL(b || b') +
    (1 - p_y) KL(o || o').

    Args:
      student: logits s [B, K], K at least 2; computed in float32.
      teacher: logits t [B, K], without gradient.
      labels: y, integers [B].
      alpha: α.
      beta: β.
      temperature: T.

    Returns:
      Scalar, float32, at least 0.

    >>> p, q = jnp.array([[0.7, 0.2, 0.1]]), jnp.array([[0.5, 0.3, 0.2]])
    >>> loss = dkd(jnp.log(q), jnp.log(p), jnp.array([0]), alpha=1.0, beta=8.0, temperature=1.0)
    >>> round(float(loss), 5)  # 0.082283 + 8 * 0.009466
    0.15801
    """
    chex.assert_rank((student, teacher, labels), (2, 2, 1))
    chex.assert_equal_shape((student, teacher))
    chex.assert_equal_shape_prefix((student, labels), 1)
    is_label = jax.nn.one_hot(labels, student.shape[1], dtype=bool)

    def decoupled(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = jnp.asarray(logits, jnp.float32) / temperature
        others = jnp.where(is_label, -jnp.inf, logits)
        all_of, rest = (jax.nn.logsumexp(x, axis=-1) for x in (logits, others))
        own = jnp.where(is_label, logits, 0.0).sum(-1)
        return jnp.stack([own - all_of, rest - all_of], -1), jax.nn.log_softmax(others)

    (b, o), (b_student, o_student) = decoupled(jax.lax.stop_gradient(teacher)), decoupled(student)
    each = alpha * divergences(b, b_student) + beta * divergences(o, o_student)
    return temperature**2 * each.mean()


def dist(
    student: jax.Array,
    teacher: jax.Array,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
) -> jax.Array:
    """Correlation, in place of divergence, of probabilities: within a sample and within a class.

    L = T^2 [β (1 - mean_n r(p_n, q_n)) + γ (1 - mean_k r(p[:, k], q[:, k]))] with Pearson's
    r(x, y) = x.y / (|x| |y| + 1e-8) of centred x and y, p = softmax(t / T) and q = softmax(s / T).
    Huang et al., 2022, "Knowledge distillation from a stronger teacher" (DIST), arXiv 2205.10536.
    A batch of one has no correlation within a class: that term is γ.

    Args:
      student: logits s [B, K]; computed in float32.
      teacher: logits t [B, K], without gradient.
      beta: β, of the relations between classes.
      gamma: γ, of the relations between samples.
      temperature: T.

    Returns:
      Scalar, float32, from 0 to 2 T^2 (β + γ).

    >>> t = jnp.array([[2.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    >>> abs(round(float(dist(t + 7.0, t)), 4))
    0.0
    """
    chex.assert_rank((student, teacher), 2)
    chex.assert_equal_shape((student, teacher))
    p = jnp.exp(log_probabilities(jax.lax.stop_gradient(teacher), temperature))
    q = jnp.exp(log_probabilities(student, temperature))
    inter, intra = 1 - _correlations(q, p).mean(), 1 - _correlations(q.T, p.T).mean()
    return temperature**2 * (beta * inter + gamma * intra)


def ps_kd(
    logits: jax.Array, labels: jax.Array, previous: jax.Array, *, alpha: float | jax.Array
) -> jax.Array:
    """Cross-entropy with labels mixed with what the model itself said an epoch ago.

    L = -mean_n sum_k ((1 - α) [k = y_n] + α P_n[k]) log softmax(l_n)[k]. Kim et al., 2021,
    "Self-knowledge distillation with progressive refinement of targets" (PS-KD), arXiv 2006.12000,
    where α grows with the epoch, α_T (t + 1) / E. There is no temperature, and no second term.

    Args:
      logits: l [B, K]; computed in float32.
      labels: y, integers [B].
      previous: probabilities P [B, K], without gradient.
      alpha: α of this epoch, from 0 to 1.

    Returns:
      Scalar, float32.

    >>> logits, past = jnp.array([[1.0, 0.0, -1.0]]), jnp.array([[0.5, 0.3, 0.2]])
    >>> round(float(ps_kd(logits, jnp.array([0]), past, alpha=0.4)), 5)
    0.68761
    """
    chex.assert_rank((logits, labels, previous), (2, 1, 2))
    chex.assert_equal_shape((logits, previous))
    chex.assert_equal_shape_prefix((logits, labels), 1)
    past = jax.lax.stop_gradient(previous).astype(jnp.float32)
    own = cross_entropies(logits, labels)
    return ((1 - alpha) * own - alpha * (past * log_probabilities(logits)).sum(-1)).mean()


def sla(
    joint: jax.Array, single: jax.Array, labels: jax.Array, *, temperature: float = 1.0
) -> Aggregated:
    """Self-supervised label augmentation: classes times transformations, and their distillation.

    L = mean_{n, j} CE(l_n[j], y_n M + j) + mean_n CE(s_n, y_n) + kd(s, a), where
    a_n[c] = mean_j l_n[j][c M + j] is what the M transformed copies agree on, without gradient, and
    `kd` has T. Lee, Hwang, Shin, 2020, "Self-supervised label augmentation via input
    transformations", arXiv 1910.05872.

    Args:
      joint: l [B, M, N M], of every transformed copy, the identity first; computed in float32.
      single: s [B, N], of the image as it is.
      labels: y, integers [B].
      temperature: T.

    Returns:
      (loss, aggregated a [B, N]).

    >>> loss, aggregated = sla(jnp.zeros((2, 4, 12)), jnp.zeros((2, 3)), jnp.array([0, 2]))
    >>> round(float(loss), 4), aggregated.shape  # log 12 + log 3
    (3.5835, (2, 3))
    """
    chex.assert_rank((joint, single, labels), (3, 2, 1))
    batch, copies, classes = *joint.shape[:2], single.shape[1]
    chex.assert_shape((joint, single), ((batch, copies, classes * copies), (batch, classes)))
    chex.assert_shape(labels, (batch,))
    joint = jnp.asarray(joint, jnp.float32)
    augmented = labels[:, None] * copies + jnp.arange(copies)
    by_class = jax.lax.stop_gradient(joint).reshape(batch, copies, classes, copies)
    aggregated = jnp.diagonal(by_class, axis1=1, axis2=3).mean(-1)
    loss = cross_entropies(joint, augmented).mean() + cross_entropies(single, labels).mean()
    return Aggregated(loss + kd(single, aggregated, temperature=temperature), aggregated)


def lelp_targets(
    logits: jax.Array,
    embeddings: jax.Array,
    means: jax.Array,
    directions: jax.Array,
    *,
    temperature: float = 1.0,
    subclass_temperature: float = 1.0,
) -> jax.Array:
    """A teacher's classes, each divided by where its embedding lies on a few directions.

    P_n[c, s] = softmax(l_n / T)[c] softmax_s(u_cs . (h_n - m_c) / β). Loo, Iliopoulos, Hu, Vee,
    2024, "Linear projections of teacher embeddings for few-class distillation" (LELP), arXiv
    2409.20449.
    The sum over s is the teacher's softened class; one subclass is plain distillation.

    Args:
      logits: l [B, C], of the teacher; computed in float32, without gradient.
      embeddings: h [B, D].
      means: m [C, D], of each class.
      directions: u [C, D, S], a projection that the training set was fitted with.
      temperature: T.
      subclass_temperature: β.

    Returns:
      float32 [B, C, S]; each sample's sum is 1.

    >>> p = jnp.log(jnp.array([[0.7, 0.3]]))
    >>> u = jnp.array([[[1.0, -1.0]], [[0.0, 0.0]]])
    >>> targets = lelp_targets(p, jnp.ones((1, 1)), jnp.zeros((2, 1)), u)
    >>> [round(float(x), 4) for x in targets.ravel()]
    [0.6166, 0.0834, 0.15, 0.15]
    """
    chex.assert_rank((logits, embeddings, means, directions), (2, 2, 2, 3))
    batch, classes, width = *logits.shape, embeddings.shape[1]
    chex.assert_shape((embeddings, means), ((batch, width), (classes, width)))
    chex.assert_shape(directions, (classes, width, None))
    l, h, m, u = (
        jax.lax.stop_gradient(jnp.asarray(x, jnp.float32))
        for x in (logits, embeddings, means, directions)
    )
    z = jnp.einsum("bcd,cds->bcs", h[:, None] - m, u, precision=HIGHEST)
    return jax.nn.softmax(l / temperature)[..., None] * jax.nn.softmax(z / subclass_temperature)


def teacher_dropping(losses: jax.Array, keep: jax.Array) -> jax.Array:
    """The mean of the losses of several teachers that are kept; an image's largest always is.

    L = sum_{t, n} c_t[n] L_t[n] / sum_{t, n} c_t[n], c = keep or t = argmax_t' L_t'[n]. Sariyildiz
    et al., 2024, "UNIC: universal classification models via multi-teacher distillation", arXiv
    2408.05088. Divided once, for the whole batch.

    Args:
      losses: [T, B], of each teacher and image; computed in float32.
      keep: bool [T, B], drawn.

    Returns:
      Scalar, float32.

    >>> losses = jnp.array([[1.0, 4.0], [3.0, 2.0]])
    >>> float(teacher_dropping(losses, jnp.zeros((2, 2), bool)))
    3.5
    """
    chex.assert_rank((losses, keep), 2)
    chex.assert_equal_shape((losses, keep))
    largest = jnp.arange(losses.shape[0])[:, None] == jnp.argmax(losses, axis=0)
    return masked_mean(losses, jnp.asarray(keep).astype(bool) | largest)


def _correlations(x: jax.Array, y: jax.Array) -> jax.Array:
    """Pearson's, of the rows [N, M] of x and y: [N]."""
    x, y = (v - v.mean(-1, keepdims=True) for v in (x, y))
    return (x * y).sum(-1) / ((norm(x) * norm(y))[..., 0] + 1e-8)
