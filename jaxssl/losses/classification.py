"""Cross-entropies: with labels, or with the softened outputs of a teacher."""

import chex
import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError


def label_smoothing_cross_entropy(
    logits: jax.Array, labels: jax.Array, *, smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy with a target that keeps 1 - a on the label and spreads a over all classes.

    L = mean_n [lse(l_n) - (1 - a) l_n[y_n] - a mean_k l_n[k]]. Szegedy et al., 2016, "Rethinking
    the inception architecture for computer vision", arXiv 1512.00567. With the sample's index as
    its label, K = N and a = 0.8 it is the loss of Ibrahim et al., 2024, "Occam's razor for self
    supervised learning: what is sufficient to learn good representations?", arXiv 2406.10743. Some
    implementations spread a over the K - 1 other classes: a smoothing of a K / (K - 1) here.

    Args:
      logits: [B, K]; computed in float32.
      labels: integers [B], 0 to K - 1.
      smoothing: a, from 0 to 1.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: a smoothing outside 0..1.

    >>> logits, labels = jnp.array([[2.0, 0.0]]), jnp.array([0])
    >>> round(float(label_smoothing_cross_entropy(logits, labels, smoothing=0.8)), 4)
    0.9269
    """
    chex.assert_rank((logits, labels), (2, 1))
    chex.assert_equal_shape_prefix((logits, labels), 1)
    if isinstance(smoothing, int | float) and not 0 <= smoothing <= 1:
        raise ConfigError(f"smoothing: found {smoothing}, expected 0 to 1")
    logits = logits.astype(jnp.float32)
    own = _own(logits, labels)
    kept = (1 - smoothing) * own + smoothing * logits.mean(-1)
    return (jax.nn.logsumexp(logits, axis=-1) - kept).mean()


def kl_divergence(
    student: jax.Array,
    teacher: jax.Array,
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> jax.Array:
    """Kullback-Leibler divergence of a student's softmax from a teacher's, which gets no gradient.

    L = mean_n sum_k p_n[k] (log p_n[k] - log q_n[k]), p = softmax(t / T_t), q = softmax(s / T_s):
    the cross-entropy less the teacher's entropy, with the same gradient, but 0 where they agree.
    Hinton et al., 2015, "Distilling the knowledge in a neural network", arXiv 1503.02531, with
    T_s = T_t = T and times T^2; that factor is left to the weight here.

    Args:
      student: [B, K], logits; computed in float32.
      teacher: [B, K], logits.
      student_temperature: T_s, positive.
      teacher_temperature: T_t, positive.

    Returns:
      Scalar, float32, at least 0.

    >>> float(kl_divergence(jnp.ones((2, 4)), jnp.zeros((2, 4))))  # a shift changes nothing
    0.0
    """
    chex.assert_rank((student, teacher), 2)
    chex.assert_equal_shape((student, teacher))
    log_p = log_probabilities(jax.lax.stop_gradient(teacher), teacher_temperature)
    log_q = log_probabilities(student, student_temperature)
    return divergences(log_p, log_q).mean()


def cross_entropies(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Each sample's lse(l) - l[y]: logits [..., K] and integers [...] give float32 [...].

    >>> [round(float(x), 4) for x in cross_entropies(jnp.zeros((2, 4)), jnp.array([0, 3]))]
    [1.3863, 1.3863]
    """
    logits = jnp.asarray(logits, jnp.float32)
    return jax.nn.logsumexp(logits, axis=-1) - _own(logits, labels)


def log_probabilities(logits: jax.Array, temperature: float | jax.Array = 1.0) -> jax.Array:
    """log softmax(l / T) over the last axis, in float32.

    >>> float(log_probabilities(jnp.array([0.0]), 2.0)[0])
    0.0
    """
    return jax.nn.log_softmax(jnp.asarray(logits, jnp.float32) / temperature)


def divergences(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """sum_k p_k (log p_k - log q_k) over the last axis; what p rules out adds nothing.

    >>> p, q = jnp.array([1.0, 0.0]), jnp.array([0.5, 0.5])
    >>> round(float(divergences(jnp.log(p), jnp.log(q))), 4)
    0.6931
    """
    possible = log_p > -jnp.inf
    gap = jnp.where(possible, log_p - jnp.where(possible, log_q, 0.0), 0.0)
    return (jnp.exp(log_p) * gap).sum(-1)


def _own(values: jax.Array, labels: jax.Array) -> jax.Array:
    """values[..., y], of the label of each sample."""
    return jnp.take_along_axis(values, labels[..., None], axis=-1)[..., 0]
