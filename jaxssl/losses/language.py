"""Next tokens: their likelihood, and a teacher's distribution of them.

Means are over the tokens that a mask keeps, of the whole batch. Where published forms differ, these
follow the first column:

| here | elsewhere |
|---|---|
| `forward_kl`, `reverse_kl`, `generalized_jsd`: no T^2 | times T^2, as `kd` |
| `generalized_jsd` tends to 0 at both ends of β | there the plain divergences |
| `token_nll`: 0 where no token counts | nan |
| `skd_accept` tests the drafted token | a second draw |
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxssl.losses.classification import cross_entropies, divergences, log_probabilities
from jaxssl.losses.combine import masked_mean

LEAST = -1e30


class Accepted(NamedTuple):
    """The tokens that go on, int32 [B, T], and which of the draft they kept, bool [B, T]."""

    tokens: jax.Array
    accepted: jax.Array


class Evolved(NamedTuple):
    """The loss, and how hard each token is, [B, T], without gradient."""

    loss: jax.Array
    difficulty: jax.Array


def forward_kl(
    student: jax.Array, teacher: jax.Array, mask: jax.Array, *, temperature: float = 1.0
) -> jax.Array:
    """Divergence of a student's next tokens from a teacher's: it covers what the teacher may say.

    L = mean over kept tokens of KL(p || q), p = softmax(t / T), q = softmax(s / T). Kim, Rush,
    2016, "Sequence-level knowledge distillation", arXiv 1606.07947.

    Args:
      student: logits s [B, T, V]; computed in float32.
      teacher: logits t [B, T, V], without gradient.
      mask: [B, T], true where a token counts.
      temperature: T; without T^2.

    Returns:
      Scalar, float32, at least 0; 0 where no token counts.

    >>> t, s = jnp.log(jnp.array([[[0.9, 0.1]]])), jnp.log(jnp.array([[[0.6, 0.4]]]))
    >>> round(float(forward_kl(s, t, jnp.ones((1, 1)))), 5)
    0.22629
    """
    log_q, log_p = _both(student, teacher, mask, temperature)
    return masked_mean(divergences(log_p, log_q), mask)


def reverse_kl(
    student: jax.Array, teacher: jax.Array, mask: jax.Array, *, temperature: float = 1.0
) -> jax.Array:
    """Divergence of a teacher's next tokens from a student's: it says only what the teacher may.

    L = mean over kept tokens of KL(q || p), p = softmax(t / T), q = softmax(s / T). Gu et al.,
    2024, "MiniLLM: knowledge distillation of large language models", arXiv 2306.08543.

    Args:
      student: logits s [B, T, V]; computed in float32.
      teacher: logits t [B, T, V], without gradient.
      mask: [B, T], true where a token counts.
      temperature: T; without T^2.

    Returns:
      Scalar, float32, at least 0; 0 where no token counts.

    >>> t, s = jnp.log(jnp.array([[[0.9, 0.1]]])), jnp.log(jnp.array([[[0.6, 0.4]]]))
    >>> round(float(reverse_kl(s, t, jnp.ones((1, 1)))), 5)
    0.31124
    """
    log_q, log_p = _both(student, teacher, mask, temperature)
    return masked_mean(divergences(log_q, log_p), mask)


def generalized_jsd(
    student: jax.Array,
    teacher: jax.Array,
    mask: jax.Array,
    *,
    beta: float = 0.5,
    temperature: float = 1.0,
) -> jax.Array:
    """Divergence of both from their mixture: between `forward_kl` and `reverse_kl`, and bounded.

    L = mean over kept tokens of β KL(p || m) + (1 - β) KL(q || m), m = β p + (1 - β) q. Agarwal et
    al., 2024, "On-policy distillation of language models" (GKD), arXiv 2306.13649. Over β it tends
    to `forward_kl` for β to 0, over 1 - β to `reverse_kl` for β to 1.

    Args:
      student: logits s [B, T, V]; computed in float32.
      teacher: logits t [B, T, V], without gradient.
      mask: [B, T], true where a token counts.
      beta: β, from 0 to 1.
      temperature: T; without T^2.

    Returns:
      Scalar, float32, from 0 to log 2; 0 where no token counts.

    >>> t, s = jnp.array([[[200.0, 0.0]]]), jnp.array([[[0.0, 200.0]]])
    >>> round(float(generalized_jsd(s, t, jnp.ones((1, 1)))), 4)  # log 2
    0.6931
    """
    log_q, log_p = _both(student, teacher, mask, temperature)
    b = jnp.asarray(beta, jnp.float32)
    log_m = jnp.logaddexp(log_p + jnp.log(b), log_q + jnp.log1p(-b))
    each = b * divergences(log_p, log_m) + (1 - b) * divergences(log_q, log_m)
    return masked_mean(each, mask)


def token_nll(logits: jax.Array, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean negative log-likelihood of the tokens that count, each said by the place before it.

    L = sum_{t > 0} m_t (-log softmax(l_{t - 1})[y_t]) / sum_{t > 0} m_t, in nats: the first token
    has no prediction, and does not count.

    Args:
      logits: l [B, T, V]; computed in float32.
      tokens: y, integers [B, T].
      mask: m [B, T], true where a token counts, e.g. of a response.

    Returns:
      Scalar, float32; 0 where no token counts.

    >>> tokens = jnp.array([[0, 3, 1]])
    >>> round(float(token_nll(jnp.zeros((1, 3, 4)), tokens, jnp.array([[1, 1, 0]]))), 4)  # log 4
    1.3863
    """
    chex.assert_rank((logits, tokens, mask), (3, 2, 2))
    chex.assert_equal_shape_prefix((logits, tokens, mask), 2)
    return masked_mean(cross_entropies(logits[:, :-1], tokens[:, 1:]), mask[:, 1:])


def skd_accept(
    draft: jax.Array,
    teacher: jax.Array,
    uniforms: jax.Array,
    *,
    k: int = 25,
    temperature: float = 0.2,
    top_p: float = 0.5,
) -> Accepted:
    """A student's tokens, but where a teacher would hardly say one: there the teacher's own.

    A drafted token stays if it is among the k most probable of the teacher; else it is the first,
    in the order of the vocabulary, whose cumulative probability exceeds the draw, under the
    teacher's softmax(l / T) cut to the fewest tokens of mass top_p. Xu et al., 2025, "Speculative
    knowledge distillation: bridging the teacher-student gap through interleaved sampling", arXiv
    2410.11325. Places are judged apart, by the logits given: an earlier replacement changes them.

    Args:
      draft: integers [B, T].
      teacher: logits l [B, T, V]; computed in float32, without gradient.
      uniforms: [B, T], draws from 0 to 1.
      k: how many are good enough; V accepts all.
      temperature: T, of the replacement.
      top_p: of the replacement; 1 cuts nothing.

    Returns:
      (tokens, accepted).

    >>> l = jnp.array([[[4.0, 3.0, 2.0, 1.0]] * 3])
    >>> tokens, accepted = skd_accept(jnp.array([[1, 0, 3]]), l, jnp.full((1, 3), 0.5), k=2)
    >>> tokens.tolist(), accepted.tolist()
    ([[1, 0, 0]], [[True, True, False]])
    """
    chex.assert_rank((draft, teacher, uniforms), (2, 3, 2))
    chex.assert_equal_shape_prefix((draft, teacher, uniforms), 2)
    logits = jax.lax.stop_gradient(jnp.asarray(teacher, jnp.float32))
    draft, places = jnp.asarray(draft), jnp.arange(logits.shape[-1])
    own = jnp.take_along_axis(logits, draft[..., None], axis=-1)
    better = (logits > own) | ((logits == own) & (places < draft[..., None]))
    accepted = better.sum(-1) < k
    p = jax.nn.softmax(logits / temperature)
    order = jnp.argsort(p, axis=-1)
    mass = jnp.cumsum(jnp.take_along_axis(p, order, axis=-1), axis=-1)
    # From the least probable up, what adds up to 1 - top_p is cut; the most probable never is.
    cut = (mass <= 1 - top_p) & (places < logits.shape[-1] - 1)
    p = jnp.where(jnp.take_along_axis(cut, jnp.argsort(order, axis=-1), axis=-1), 0.0, p)
    reached = jnp.cumsum(p, axis=-1)
    draw = jnp.asarray(uniforms, jnp.float32)[..., None] * reached[..., -1:]
    # Rounding may leave no token beyond a draw near 1: then it is the last possible one.
    last = (p > 0) & (jnp.cumsum(p[..., ::-1] > 0, axis=-1)[..., ::-1] == 1)
    replacement = jnp.argmax((reached > draw) | last, axis=-1)
    return Accepted(jnp.where(accepted, draft, replacement).astype(jnp.int32), accepted)


def self_evolution_kd(
    student: jax.Array,
    teacher: jax.Array,
    mask: jax.Array,
    labels: jax.Array,
    *,
    label_weight: float = 0.5,
    hard_fraction: float = 0.5,
    prior_ratio: float = 0.5,
) -> Evolved:
    """Distillation in which hard tokens are met halfway: the target is mixed into the student.

    L = mean over kept tokens of KL(g || r), g = a [y] + (1 - a) softmax(t), q = softmax(s); r is
    (1 - λ) q + λ g of hard tokens and q of the others. Hard are those whose difficulty KL(g || q)
    is at or above the linear quantile 1 - ρ of kept tokens; none for ρ = 0. Song et al., 2025,
    "Self-evolution knowledge distillation for LLM-based machine translation", arXiv 2412.15303,
    which gives no constants: the rule for hard tokens and a fixed λ are this library's.

    Args:
      student: logits s [B, T, V]; computed in float32.
      teacher: logits t [B, T, V], without gradient.
      mask: [B, T], true where a token counts.
      labels: y, integers [B, T].
      label_weight: a, from 0, all teacher, to 1, all label.
      hard_fraction: ρ, from 0 to 1.
      prior_ratio: λ, from 0 to 1.

    Returns:
      (loss, difficulty).

    >>> t, s = jnp.log(jnp.array([[[0.7, 0.2, 0.1]]])), jnp.log(jnp.array([[[0.1, 0.1, 0.8]]]))
    >>> loss, difficulty = self_evolution_kd(s, t, jnp.ones((1, 1)), jnp.array([[1]]))
    >>> round(float(loss), 5), round(float(difficulty[0, 0]), 5)
    (0.37104, 1.37489)
    """
    chex.assert_rank(labels, 2)
    log_q, log_p = _both(student, teacher, mask, 1.0)
    chex.assert_equal_shape_prefix((student, labels), 2)
    kept = jnp.asarray(mask).astype(bool)
    named = jax.nn.one_hot(labels, student.shape[-1])
    g = label_weight * named + (1 - label_weight) * jnp.exp(log_p)
    possible = g > 0
    log_g = jnp.where(possible, jnp.log(jnp.where(possible, g, 1.0)), LEAST)
    apart = lambda log_r: (g * jnp.where(possible, log_g - log_r, 0.0)).sum(-1)
    difficulty = jax.lax.stop_gradient(apart(log_q))
    hard = (difficulty >= _quantile(difficulty, kept, 1 - hard_fraction)) & (hard_fraction > 0)
    ratio = jnp.asarray(prior_ratio, jnp.float32)
    mixed = jnp.logaddexp(jnp.log1p(-ratio) + log_q, jnp.log(ratio) + log_g)
    return Evolved(masked_mean(apart(jnp.where(hard[..., None], mixed, log_q)), kept), difficulty)


def _both(
    student: jax.Array, teacher: jax.Array, mask: jax.Array, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of both, those of the teacher without gradient."""
    chex.assert_rank((student, teacher, mask), (3, 3, 2))
    chex.assert_equal_shape((student, teacher))
    chex.assert_equal_shape_prefix((student, mask), 2)
    log_p = log_probabilities(jax.lax.stop_gradient(teacher), temperature)
    return log_probabilities(student, temperature), log_p


def _quantile(values: jax.Array, kept: jax.Array, share: float) -> jax.Array:
    """The linear quantile of the values that are kept."""
    ordered = jnp.sort(jnp.where(kept, values, jnp.inf), axis=None)
    place = share * jnp.maximum(kept.sum() - 1, 0)
    low = jnp.floor(place).astype(jnp.int32)
    high = jnp.minimum(low + 1, jnp.maximum(kept.sum() - 1, 0))
    return ordered[low] + jnp.where(high > low, (place - low) * (ordered[high] - ordered[low]), 0.0)
