"""Learning from one's own predictions: losses that forgive wrong ones, and how far to trust them.

Where published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| `t_similarity` is to be minimised: heads are to differ | its negative is subtracted: the same |
| `generalized_cross_entropy` of hard labels | of soft ones |
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxssl.losses.classification import cross_entropies, log_probabilities


class Similarity(NamedTuple):
    """How much an ensemble agrees on each sample, [B], and on each of its classes, [B, K]."""

    similarity: jax.Array
    classwise: jax.Array


def t_similarity(logits: jax.Array) -> Similarity:
    """How much the heads of an ensemble agree: a confidence that overconfident heads do not have.

    s_n = 1 / (M (M - 1)) sum_{m != m'} sum_k p_m[n, k] p_m'[n, k], p = softmax. Odonnat, Feofanov,
    Redko, 2024, "Leveraging ensemble diversity for robust self-training in the presence of sample
    selection bias", arXiv 2310.14814. Its mean over unlabelled samples, minimised, makes the heads
    differ where no label says what is right.

    Args:
      logits: [M, B, K], M at least 2 heads; computed in float32.

    Returns:
      (s [B], from 0 to 1; its parts by class [B, K], of which it is the sum).

    >>> p = jnp.array([[[0.8, 0.2]], [[0.6, 0.4]], [[0.5, 0.5]]])
    >>> round(float(t_similarity(jnp.log(p)).similarity[0]), 4)
    0.52
    """
    chex.assert_rank(logits, 3)
    heads = logits.shape[0]
    chex.assert_axis_dimension_gt(logits, 0, 1)
    p = jnp.exp(log_probabilities(logits))
    # The sum of the other heads; the square of the sum less the squares would cancel.
    others = jnp.einsum("mh,hbk->mbk", 1.0 - jnp.eye(heads), p, precision="highest")
    classwise = (p * others).sum(0) / (heads * (heads - 1))
    return Similarity(classwise.sum(-1), classwise)


def generalized_cross_entropy(logits: jax.Array, labels: jax.Array, *, q: float = 0.8) -> jax.Array:
    """Between cross-entropy, q to 0, and the mean absolute error, q = 1: bounded for wrong labels.

    L = mean_n (1 - p_n[y_n]^q) / q, p = softmax(l). Zhang, Sabuncu, 2018, "Generalized cross
    entropy loss for training deep neural networks with noisy labels", arXiv 1805.07836.

    Args:
      logits: l [B, K]; computed in float32.
      labels: y, integers [B].
      q: above 0.

    Returns:
      Scalar, float32, from 0 to 1 / q.

    >>> round(float(generalized_cross_entropy(jnp.zeros((1, 2)), jnp.array([0]))), 5)
    0.53206
    """
    chex.assert_rank((logits, labels), (2, 1))
    chex.assert_equal_shape_prefix((logits, labels), 1)
    return (-jnp.expm1(-q * cross_entropies(logits, labels)) / q).mean()


def rpl(student: jax.Array, teacher: jax.Array, *, q: float = 0.8) -> jax.Array:
    """Robust pseudo-labelling: `generalized_cross_entropy` with the teacher's most probable class.

    L = mean_n (1 - p_n[c_n]^q) / q, c_n = argmax t_n. Rusak et al., 2022, "If your data
    distribution shifts, use self-learning", arXiv 2104.12928. The teacher may be the student.

    Args:
      student: logits s [B, K]; computed in float32.
      teacher: logits t [B, K], without gradient.
      q: above 0.

    Returns:
      Scalar, float32, from 0 to 1 / q.

    >>> round(float(rpl(jnp.zeros((1, 2)), jnp.array([[0.0, 1.0]]))), 5)
    0.53206
    """
    chex.assert_rank((student, teacher), 2)
    chex.assert_equal_shape((student, teacher))
    labels = jnp.argmax(jax.lax.stop_gradient(jnp.asarray(teacher)), axis=-1)
    return generalized_cross_entropy(student, labels, q=q)


def entropy_minimisation(logits: jax.Array) -> jax.Array:
    """The mean entropy of what a network says.

    L = -mean_n sum_k p_n[k] log p_n[k], p = softmax(l), with gradient through both factors.
    Grandvalet, Bengio, 2005, "Semi-supervised learning by entropy minimization". It cannot leave a
    uniform prediction: the gradient is 0 there.

    Args:
      logits: l [B, K]; computed in float32.

    Returns:
      Scalar, float32, from 0 to log K.

    >>> round(float(entropy_minimisation(jnp.log(jnp.array([[0.5, 0.3, 0.2]])))), 5)
    1.02965
    """
    chex.assert_rank(logits, 2)
    log_p = log_probabilities(logits)
    return -(jnp.exp(log_p) * log_p).sum(-1).mean()
