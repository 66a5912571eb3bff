"""Vectors as entries of a codebook: choosing them, keeping them in use, moving them.

Where published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| `codebook_diversity`: of the mean softmax, without noise and temperature | of the samples |
| `vector_quantize`: means over everything | the sum over D |
| `codebook_ema`: every code decays | `dinosr`: those in use |
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxssl.losses.vectors import nearest

HIGHEST = jax.lax.Precision.HIGHEST


class Sampled(NamedTuple):
    """Vectors of drawn codes, [B, T, G D], and the codes, int32 [B, T, G]."""

    vectors: jax.Array
    codes: jax.Array


class Quantized(NamedTuple):
    """The loss, the vectors in place of the features, and their codes, int32 [...]."""

    loss: jax.Array
    quantized: jax.Array
    codes: jax.Array


class MovedCodebook(NamedTuple):
    """The codebook [K, D] after a batch, the codes [N] of its features, and the new statistics."""

    codebook: jax.Array
    codes: jax.Array
    sums: jax.Array
    counts: jax.Array


def codebook_diversity(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """The share of all codes that are not in use, by the perplexity of what is said of the batch.

    L = (G V - sum_g exp H(p_g)) / (G V), p_g the mean of softmax(l_g) over masked frames of the
    global batch, H(p) = -sum_v p_v log(p_v + 1e-7). Baevski et al., 2020, "wav2vec 2.0: a framework
    for self-supervised learning of speech representations", arXiv 2006.11477.

    Args:
      logits: l [B, T, G, V], of G codebooks; computed in float32.
      mask: [B, T], true where a frame counts.

    Returns:
      Scalar, float32, from 0, all alike, to 1 - 1 / V.

    >>> round(float(codebook_diversity(jnp.zeros((1, 2, 1, 4)), jnp.ones((1, 2), bool))), 4)
    0.0
    """
    chex.assert_rank((logits, mask), (4, 2))
    chex.assert_equal_shape_prefix((logits, mask), 2)
    p = jax.nn.softmax(jnp.asarray(logits, jnp.float32))
    weights = jnp.asarray(mask).astype(jnp.float32)
    mean = (p * weights[..., None, None]).sum((0, 1)) / jnp.maximum(weights.sum(), 1e-6)
    perplexity = jnp.exp(-(mean * jnp.log(mean + 1e-7)).sum(-1))
    return 1 - perplexity.sum() / mean.size


def gumbel_quantize(
    logits: jax.Array,
    codebook: jax.Array,
    noise: jax.Array,
    *,
    temperature: float | jax.Array,
    hard: bool = True,
) -> Sampled:
    """Vectors of codes drawn in proportion to their probability, with a gradient to the logits.

    p_g = softmax((l_g + noise_g) / T); the vector of group g is sum_v p_gv C_gv. With `hard` p is
    one-hot at its largest entry, with the gradient of the soft one. Jang, Gu, Poole, 2017,
    "Categorical reparameterization with Gumbel-softmax", arXiv 1611.01144, as in Baevski et al.,
    2020, "wav2vec 2.0", arXiv 2006.11477.

    Args:
      logits: l [B, T, G, V]; computed in float32.
      codebook: C [G, V, D].
      noise: [B, T, G, V], standard Gumbel: `jax.random.gumbel`.
      temperature: T.
      hard: whether one code counts, or a mixture.

    Returns:
      (vectors, group after group, [B, T, G D]; codes [B, T, G]).

    >>> logits = jnp.array([[[[0.0, 5.0]]]])
    >>> codebook = jnp.array([[[1.0], [2.0]]])
    >>> vectors, codes = gumbel_quantize(logits, codebook, 0 * logits, temperature=1.0)
    >>> vectors.ravel().tolist(), codes.ravel().tolist()
    ([2.0], [1])
    """
    chex.assert_rank((logits, codebook, noise), (4, 3, 4))
    chex.assert_equal_shape((logits, noise))
    chex.assert_shape(codebook, (*logits.shape[2:], None))
    scores = (jnp.asarray(logits, jnp.float32) + jax.lax.stop_gradient(noise)) / temperature
    soft, codes = jax.nn.softmax(scores), scores.argmax(-1).astype(jnp.int32)
    choice = soft
    if hard:
        choice = jax.nn.one_hot(codes, soft.shape[-1]) + (soft - jax.lax.stop_gradient(soft))
    chosen = jnp.einsum(
        "btgv,gvd->btgd", choice, jnp.asarray(codebook, jnp.float32), precision=HIGHEST
    )
    return Sampled(chosen.reshape(*chosen.shape[:2], -1), codes)


def vector_quantize(
    features: jax.Array, codebook: jax.Array, *, commitment_weight: float = 0.25
) -> Quantized:
    """Features replaced by the nearest vectors of a codebook, and what draws both together.

    L = mean (sg(x) - C_z)^2 + w mean (x - sg(C_z))^2, z = argmin_k |x - C_k|^2, sg without
    gradient. The vectors handed on are x + sg(C_z - x): their gradient is that of x. Van den Oord,
    Vinyals, Kavukcuoglu, 2017, "Neural discrete representation learning", arXiv 1711.00937.

    Args:
      features: x [..., D]; computed in float32.
      codebook: C [K, D].
      commitment_weight: w.

    Returns:
      (loss, vectors [..., D], codes z [...]).

    >>> loss, vectors, codes = vector_quantize(jnp.array([[0.9]]), jnp.array([[0.0], [1.0]]))
    >>> round(float(loss), 4), vectors.tolist(), codes.tolist()
    (0.0125, [[1.0]], [1])
    """
    chex.assert_rank(codebook, 2)
    chex.assert_equal_shape_suffix((features, codebook), 1)
    x, c = jnp.asarray(features, jnp.float32), jnp.asarray(codebook, jnp.float32)
    stop = jax.lax.stop_gradient
    codes = nearest(stop(x), stop(c))
    chosen = c[codes]
    loss = jnp.square(stop(x) - chosen).mean()
    loss = loss + commitment_weight * jnp.square(x - stop(chosen)).mean()
    return Quantized(loss, x + stop(chosen - x), codes)


def codebook_ema(
    features: jax.Array,
    sums: jax.Array,
    counts: jax.Array,
    *,
    decay: float | jax.Array = 0.99,
    epsilon: float = 1e-5,
) -> MovedCodebook:
    """One step of a codebook that follows the mean of the features that chose it.

    z_i = argmin_k |x_i - S_k / n_k|^2, by the statistics of before; n' = d n + (1 - d) number of
    members, S' = d S + (1 - d) their sum; C_k = S'_k / m_k, m_k = (n'_k + ε) / (N + K ε) N with N
    the sum of n'. Van den Oord, Vinyals, Kavukcuoglu, 2017, "Neural discrete representation
    learning", arXiv 1711.00937, appendix A.1. Every code decays, in use or not. No gradient.

    Args:
      features: x [N, D], of the global batch; computed in float32.
      sums: S [K, D].
      counts: n [K].
      decay: d.
      epsilon: ε, of the smoothing.

    Returns:
      (C, z, S', n').

    >>> x, s = jnp.array([[1.0], [9.0]]), jnp.array([[0.0], [8.0]])
    >>> codebook, codes, *_ = codebook_ema(x, s, jnp.ones(2), decay=0.5, epsilon=0.0)
    >>> codebook.ravel().tolist(), codes.tolist()
    ([0.5, 8.5], [0, 1])
    """
    chex.assert_rank((features, sums, counts), (2, 2, 1))
    size, width = sums.shape
    chex.assert_shape((features, counts), ((None, width), (size,)))
    x, s, n = (jax.lax.stop_gradient(jnp.asarray(a, jnp.float32)) for a in (features, sums, counts))
    codes = nearest(x, _over(s, n))
    members = jax.nn.one_hot(codes, size)
    n = decay * n + (1 - decay) * members.sum(0)
    s = decay * s + (1 - decay) * jnp.matmul(members.T, x, precision=HIGHEST)
    total = n.sum()
    smoothed = (n + epsilon) / (total + size * epsilon) * total
    return MovedCodebook(_over(s, smoothed), codes, s, n)


def _over(sums: jax.Array, counts: jax.Array) -> jax.Array:
    """Means [K, D]; of a code that nothing ever chose, its sum."""
    return sums / jnp.where(counts > 0, counts, 1.0)[:, None]
