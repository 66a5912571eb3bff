"""Scores of pairs: what was sought, or bought, against what was not.

Where published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| `adaptive_relevance_margin` with pos_axis "column", as its code | "row", as its text |
| `bpr` by log sigmoid | log(1e-10 + sigmoid): no gradient beyond a difference of 23 |
| `sampled_softmax`: the positive is corrected too, equal items are left out | neither |
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_choice
from jaxssl.config.errors import ConfigError
from jaxssl.losses.classification import divergences, log_probabilities
from jaxssl.losses.combine import masked_mean
from jaxssl.losses.vectors import unit

HIGHEST = jax.lax.Precision.HIGHEST
TARGETS = ("adaptive", "distributed")
ERRORS = ("l2", "l1", "soft")
AXES = ("column", "row")


class Mined(NamedTuple):
    """The loss; the weight of the teacher [B] and the negatives int32 [B, k], both ways."""

    loss: jax.Array
    row_weights: jax.Array
    column_weights: jax.Array
    row_negatives: jax.Array
    column_negatives: jax.Array


def adaptive_relevance_margin(
    query: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
    *,
    target: float | str = "adaptive",
    in_batch: bool = False,
    error: str = "l2",
    pos_axis: str = "column",
) -> jax.Array:
    """A margin between two documents as large as these are alike, by the encoder itself.

    L = mean e(cos(q_i, p_i) - cos(q_i, n_i) - μ_i), μ_i = (1 + cos(p_i, n_i)) / 2, e(t) = t^2, |t|
    or log(1 + exp(-t)). `in_batch`, over all pairs: e(P_k - cos(q_i, n_j) - μ_ij), μ_ij = (1 +
    cos(p_i, n_j)) / 2, with P_k = cos(q_k, p_k) and k = j, "column", as published, or i, "row".
    "distributed": e(M_j - μ_ij), the B margins against all targets. Gienapp et al., 2024, "Learning
    effective representations for retrieval using self-distillation with adaptive relevance
    margins", arXiv 2407.21515. The gradient flows through the target too.

    Args:
      query, positive, negative: q, p and n [B, P]; computed in float32.
      target: "adaptive", "distributed", or a number, the same margin for all.
      in_batch: whether the batch's other negatives count; not with "distributed".
      error: "l2", "l1" or "soft".
      pos_axis: "column" or "row"; for `in_batch` alone.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: an unknown target, error or axis, or "distributed" with `in_batch`.

    >>> q, n = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])
    >>> float(adaptive_relevance_margin(q, q, n))  # a margin of 1 against 1 / 2
    0.25
    """
    if isinstance(target, str):
        check_choice("target", target, TARGETS)
    check_choice("error", error, ERRORS)
    check_choice("pos_axis", pos_axis, AXES)
    if target == "distributed" and in_batch:
        raise ConfigError("in_batch: found True, expected False with target 'distributed'")
    chex.assert_rank((query, positive, negative), 2)
    chex.assert_equal_shape((query, positive, negative))
    q, p, n = unit(query), unit(positive), unit(negative)
    own = lambda a, b: (a * b).sum(-1)
    every = lambda a, b: jnp.matmul(a, b.T, precision=HIGHEST)
    if in_batch:
        found = own(q, p)[None if pos_axis == "column" else slice(None)]
        margins = (found if pos_axis == "column" else found[:, None]) - every(q, n)
    else:
        margins = own(q, p) - own(q, n)
    wanted: float | jax.Array
    if isinstance(target, str):
        alike = every if in_batch or target == "distributed" else own
        wanted = (1 + alike(p, n)) / 2
    else:
        wanted = target
    t = margins - wanted
    if error == "l2":
        return jnp.square(t).mean()
    return (jnp.abs(t) if error == "l1" else jax.nn.softplus(-t)).mean()


def margin_mse(
    positive: jax.Array,
    negative: jax.Array,
    teacher_positive: jax.Array,
    teacher_negative: jax.Array,
) -> jax.Array:
    """Mean squared distance of the margin between two documents from a teacher's.

    L = mean_n ((p_n - m_n) - (p'_n - m'_n))^2. Hofstätter et al., 2020, "Improving efficient neural
    ranking models with cross-architecture knowledge distillation", arXiv 2010.02666.

    Args:
      positive, negative: scores p and m [B]; computed in float32.
      teacher_positive, teacher_negative: p' and m' [B], without gradient.

    Returns:
      Scalar, float32.

    >>> one = jnp.ones(2)
    >>> float(margin_mse(3 * one, one, one, one))
    4.0
    """
    arrays = (positive, negative, teacher_positive, teacher_negative)
    chex.assert_rank(arrays, 1)
    chex.assert_equal_shape(arrays)
    p, m, *teacher = (jnp.asarray(x, jnp.float32) for x in arrays)
    wanted, unwanted = jax.lax.stop_gradient(teacher)
    return jnp.square((p - m) - (wanted - unwanted)).mean()


def bpr(positive: jax.Array, negative: jax.Array, mask: jax.Array) -> jax.Array:
    """Bayesian personalised ranking: what was chosen scores above what was not.

    L = mean over kept pairs of -log sigmoid(p - m). Rendle et al., 2009, "BPR: Bayesian
    personalized ranking from implicit feedback", arXiv 1205.2618.

    Args:
      positive, negative: scores p and m, of one shape; computed in float32.
      mask: of that shape, true where a pair counts.

    Returns:
      Scalar, float32; 0 where no pair counts.

    >>> round(float(bpr(jnp.zeros(2), jnp.zeros(2), jnp.array([True, False]))), 4)  # log 2
    0.6931
    """
    chex.assert_equal_shape((positive, negative, mask))
    gap = jnp.asarray(positive, jnp.float32) - jnp.asarray(negative, jnp.float32)
    return masked_mean(jax.nn.softplus(-gap), mask)


def sampled_softmax(
    query: jax.Array,
    candidates: jax.Array,
    ids: jax.Array,
    log_probability: jax.Array,
    *,
    temperature: float = 1.0,
) -> jax.Array:
    """Cross-entropy of a query with its item among the batch's, corrected for how often each comes.

    L = mean_n [lse_j(l_nj) - l_nn], l_nj = q_n . c_j / T - log P_j, over j = n and the items of
    another id. Yi et al., 2019, "Sampling-bias-corrected neural modeling for large corpus item
    recommendations".

    Args:
      query: q [B, P]; computed in float32.
      candidates: c [B, P], the item of each query; not normalised here.
      ids: integers [B], of the items.
      log_probability: log P [B], of an item to be in a batch; without gradient.
      temperature: T.

    Returns:
      Scalar, float32.

    >>> q, ids = jnp.zeros((3, 2)), jnp.array([7, 7, 8])
    >>> round(float(sampled_softmax(q, q, ids, jnp.zeros(3))), 4)  # (2 log 2 + log 3) / 3
    0.8283
    """
    chex.assert_rank((query, candidates, ids, log_probability), (2, 2, 1, 1))
    chex.assert_equal_shape((query, candidates))
    chex.assert_equal_shape_prefix((query, ids, log_probability), 1)
    q, c = jnp.asarray(query, jnp.float32), jnp.asarray(candidates, jnp.float32)
    often = jax.lax.stop_gradient(jnp.asarray(log_probability, jnp.float32))
    logits = jnp.matmul(q, c.T, precision=HIGHEST) / temperature - often
    ids, itself = jnp.asarray(ids), jnp.eye(len(q), dtype=bool)
    same = (ids[:, None] == ids) & ~itself
    own = jnp.diagonal(logits)
    return (jax.nn.logsumexp(jnp.where(same, -jnp.inf, logits), axis=-1) - own).mean()


def dcd(
    student: jax.Array,
    teacher: jax.Array,
    ids: jax.Array,
    *,
    k: int = 3,
    temperature: float = 1.0,
    distillation_temperature: float = 1.0,
) -> Mined:
    """Contrast with the negatives that a teacher finds hardest, and its scores where they help.

    L = mean (w L_kd + (1 - w) L_con), of each row over its own column and the k others of another
    id that score highest with the teacher: L_con = -log softmax(s / T)[own], L_kd = T_d^2 KL(p, q)
    of p = softmax(t / T_d) and q = softmax(s / T_d), and without gradient w = p[own] (1 - softmax(s
    / T)[own]); likewise of columns, and the mean of both. After Rao et al., 2023, "Dynamic
    contrastive distillation for image-text retrieval", arXiv 2207.01426; the forms of the weight
    and of the terms are this library's, since no code is known.

    Args:
      student: s [B, B], the score of image i with text j; computed in float32.
      teacher: t [B, B], without gradient.
      ids: integers [B], of the images: texts of the same one are no negatives.
      k: how many negatives, below B.
      temperature: T.
      distillation_temperature: T_d.

    Returns:
      (loss, weights of rows, of columns, negatives of rows, of columns).

    Raises:
      ConfigError: k outside 1 ... B - 1.

    >>> t = jnp.array([[9.0, 1.0, 5.0], [0.0, 9.0, 2.0], [3.0, 4.0, 9.0]])
    >>> found = dcd(t, t, jnp.arange(3), k=1)
    >>> found.row_negatives.ravel().tolist(), found.column_negatives.ravel().tolist()
    ([2, 2, 1], [2, 2, 0])
    """
    chex.assert_rank((student, teacher, ids), (2, 2, 1))
    batch = ids.shape[0]
    chex.assert_shape((student, teacher), (batch, batch))
    if not 1 <= k < batch:
        raise ConfigError(f"k: found {k}, expected 1 to {batch - 1}")
    s = jnp.asarray(student, jnp.float32)
    t = jax.lax.stop_gradient(jnp.asarray(teacher, jnp.float32))
    ids = jnp.asarray(ids)
    other = ids[:, None] != ids

    def of_rows(s: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        negatives = jax.lax.top_k(jnp.where(other, t, -jnp.inf), k)[1]
        chosen = jnp.concatenate([jnp.arange(batch)[:, None], negatives], 1)
        # Of fewer than k others, the rest is no candidate.
        valid = jnp.take_along_axis(other, chosen, axis=1).at[:, 0].set(True)
        scores, guide = (
            jnp.where(valid, jnp.take_along_axis(x, chosen, axis=1), -jnp.inf) for x in (s, t)
        )
        log_q, log_p = (log_probabilities(x, distillation_temperature) for x in (scores, guide))
        contrast = -log_probabilities(scores, temperature)[:, 0]
        distilled = distillation_temperature**2 * divergences(log_p, log_q)
        missed = -jnp.expm1(-jax.lax.stop_gradient(contrast))
        weights = missed * jnp.exp(log_p[:, 0])
        loss = (weights * distilled + (1 - weights) * contrast).mean()
        return loss, weights, negatives.astype(jnp.int32)

    rows, columns = of_rows(s, t), of_rows(s.T, t.T)
    return Mined((rows[0] + columns[0]) / 2, rows[1], columns[1], rows[2], columns[2])
