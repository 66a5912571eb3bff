"""Prediction of frames of sound, masked or to come, by their vectors, their codes or themselves.

Where published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| means over all masked frames of the global batch | sums, divided by their number later |
| `wav2vec2_contrastive`: a negative equal to its positive is left out | counts as a negative |
| `cpc`: the mean over steps, scores a mean over D | their sum; dot products |
| `hubert`: masked frames alone; call it again for the others | a weighted sum of both |
| `apc`: frames beyond the length do not count | padding counts |
| `dinosr`: codes without a member stay | they decay, as in `codebook_ema` |
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError
from jaxssl.losses.classification import cross_entropies
from jaxssl.losses.combine import masked_mean
from jaxssl.losses.latent import masked_cross_entropy
from jaxssl.losses.vectors import nearest, unit

HIGHEST = jax.lax.Precision.HIGHEST


class Predictive(NamedTuple):
    """The mean over steps ahead, and the loss of each, [K]."""

    loss: jax.Array
    steps: jax.Array


class Clustered(NamedTuple):
    """The loss, and the sums and counts of the codebooks after the batch."""

    loss: jax.Array
    sums: jax.Array
    counts: jax.Array


def wav2vec2_contrastive(
    context: jax.Array,
    targets: jax.Array,
    negatives: jax.Array,
    mask: jax.Array,
    *,
    temperature: float = 0.1,
) -> jax.Array:
    """Cross-entropy of a masked frame's context with its quantised vector among those of others.

    L = mean over masked (b, t) of -log [e^(cos(c_t, q_t) / T) / (e^(cos(c_t, q_t) / T) + sum_n
    e^(cos(c_t, q_n) / T))], n the negatives whose vector is not that of q_t. Baevski et al., 2020,
    "wav2vec 2.0: a framework for self-supervised learning of speech representations", arXiv
    2006.11477. The targets have a gradient too: the quantiser learns.

    Args:
      context: c [B, T, D]; computed in float32.
      targets: q [B, T, D].
      negatives: integers [B, T, N], frames of the same utterance; one may come several times.
      mask: [B, T], true where the frame was masked.
      temperature: T.

    Returns:
      Scalar, float32; 0 where nothing is masked.

    >>> c, mask = jnp.eye(2)[None], jnp.array([[True, False]])
    >>> loss = wav2vec2_contrastive(c, c, jnp.array([[[1, 1], [0, 0]]]), mask, temperature=1.0)
    >>> round(float(loss), 4)  # log(1 + 2 / e)
    0.5514
    """
    chex.assert_rank((context, targets, negatives, mask), (3, 3, 3, 2))
    chex.assert_equal_shape((context, targets))
    chex.assert_equal_shape_prefix((context, negatives, mask), 2)
    batch, frames, _ = context.shape
    logits = jnp.einsum("btd,bsd->bts", unit(context), unit(targets), precision=HIGHEST)
    logits = logits / temperature
    # How often each frame is a negative: a gather of the vectors would scatter in the gradient.
    rows, times = jnp.arange(batch)[:, None, None], jnp.arange(frames)[:, None]
    counts = jnp.zeros((batch, frames, frames)).at[rows, times, negatives].add(1.0)
    equal = (targets[:, :, None] == targets[:, None]).all(-1)
    weights = jnp.where(equal, 0.0, counts) + jnp.eye(frames)
    positive = jnp.diagonal(logits, axis1=1, axis2=2)
    return masked_mean(jax.nn.logsumexp(logits, axis=-1, b=weights) - positive, mask)


def cpc(
    context: jax.Array, encoded: jax.Array, predictors: jax.Array, negatives: jax.Array
) -> Predictive:
    """Contrastive predictive coding: which of several frames comes k steps later.

    L = mean_k mean_{b, t} CE over (z_{t + k}, negatives) with the score mean_d z_d (W_k c_t)_d, for
    t < T - K. Van den Oord, Li, Vinyals, 2018, "Representation learning with contrastive predictive
    coding", arXiv 1807.03748, in the form of Rivière et al., 2020, arXiv 2002.02848: the mean over
    D is a temperature of D, and all steps share their negatives.

    Args:
      context: c [B, T, P]; computed in float32.
      encoded: z [B, T, D].
      predictors: W [K, D, P], for 1 ... K steps ahead.
      negatives: integers [B, T - K, N], places b T + t of the flattened batch.

    Returns:
      (mean over steps, that of each [K]).

    Raises:
      ConfigError: K is not below T.

    >>> c, w = jnp.ones((1, 3, 2)), jnp.zeros((1, 2, 2))
    >>> round(float(cpc(c, c, w, jnp.zeros((1, 2, 3), int)).loss), 4)  # log 4
    1.3863
    """
    chex.assert_rank((context, encoded, predictors, negatives), 3)
    chex.assert_equal_shape_prefix((context, encoded), 2)
    batch, frames, width = encoded.shape
    ahead = predictors.shape[0]
    if ahead >= frames:
        raise ConfigError(f"predictors: found {ahead} steps, expected fewer than {frames} frames")
    chex.assert_shape(predictors, (None, width, context.shape[2]))
    chex.assert_shape(negatives, (batch, frames - ahead, None))
    z, w = jnp.asarray(encoded, jnp.float32), jnp.asarray(predictors, jnp.float32)
    c = jnp.asarray(context, jnp.float32)[:, : frames - ahead]
    guesses = jnp.einsum("kdp,btp->kbtd", w, c, precision=HIGHEST)
    others = z.reshape(-1, width)[negatives]
    false = jnp.einsum("kbtd,btnd->kbtn", guesses, others, precision=HIGHEST) / width
    later = jnp.stack([z[:, k : k + frames - ahead] for k in range(1, ahead + 1)])
    true = (guesses * later).mean(-1)
    everything = jnp.concatenate([true[..., None], false], -1)
    steps = (jax.nn.logsumexp(everything, axis=-1) - true).mean((1, 2))
    return Predictive(steps.mean(), steps)


def hubert(
    context: jax.Array,
    embeddings: jax.Array,
    codes: jax.Array,
    mask: jax.Array,
    *,
    temperature: float = 0.1,
) -> jax.Array:
    """Cross-entropy of masked frames with the cluster of each, by cosines to its embedding.

    L = mean over masked (b, t) of -log softmax_k(cos(c_t, e_k) / T)[y_t]. Hsu et al., 2021,
    "HuBERT: self-supervised speech representation learning by masked prediction of hidden units",
    arXiv 2106.07447.

    Args:
      context: c [B, T, D], projected; computed in float32.
      embeddings: e [K, D], learned.
      codes: y, integers [B, T] in 0 ... K - 1.
      mask: [B, T], true where the frame was masked.
      temperature: T.

    Returns:
      Scalar, float32; 0 where nothing is masked.

    >>> c, mask = jnp.ones((1, 2, 3)), jnp.array([[True, False]])
    >>> round(float(hubert(c, jnp.ones((4, 3)), jnp.array([[0, 3]]), mask)), 4)  # log 4
    1.3863
    """
    chex.assert_rank((context, embeddings), (3, 2))
    chex.assert_equal_shape_suffix((context, embeddings), 1)
    cosines = jnp.einsum("btd,kd->btk", unit(context), unit(embeddings), precision=HIGHEST)
    return masked_cross_entropy(cosines / temperature, codes, mask)


def apc(
    prediction: jax.Array, frames: jax.Array, lengths: jax.Array, *, shift: int = 3
) -> jax.Array:
    """Autoregressive predictive coding: the absolute error of a frame some steps ahead.

    L = mean over t < length - n of |y_t - x_{t + n}|, over channels too. Chung et al., 2019, "An
    unsupervised autoregressive model for speech representation learning", arXiv 1904.03240.

    Args:
      prediction: y [B, T, C], y_t of frames up to t; computed in float32.
      frames: x [B, T, C], without gradient.
      lengths: integers [B], frames that count; one of at most n counts nothing.
      shift: n, at least 1, below T.

    Returns:
      Scalar, float32, in units of x; 0 where nothing counts.

    Raises:
      ConfigError: a shift outside 1 ... T - 1.

    >>> x = jnp.arange(4.0)[None, :, None]
    >>> float(apc(x, x, jnp.array([4]), shift=2))
    2.0
    """
    chex.assert_rank((prediction, frames, lengths), (3, 3, 1))
    chex.assert_equal_shape((prediction, frames))
    chex.assert_equal_shape_prefix((frames, lengths), 1)
    last = frames.shape[1] - shift
    if not 1 <= shift <= frames.shape[1] - 1:
        raise ConfigError(f"shift: found {shift}, expected 1 to {frames.shape[1] - 1}")
    y = jnp.asarray(prediction, jnp.float32)
    x = jax.lax.stop_gradient(jnp.asarray(frames, jnp.float32))
    counts = jnp.arange(last) < jnp.asarray(lengths)[:, None] - shift
    return masked_mean(jnp.abs(y[:, :last] - x[:, shift:]).mean(-1), counts)


def dinosr(
    logits: jax.Array,
    features: jax.Array,
    sums: jax.Array,
    counts: jax.Array,
    mask: jax.Array,
    *,
    decay: float | jax.Array = 0.9,
) -> Clustered:
    """Cross-entropy of masked frames with the codes of a teacher's layers, clustered as they come.

    L = mean_l mean over masked (b, t) of CE(o_l[b, t], z_l[b, t]), z the nearest of the codes
    S_lv / n_lv. Then, of the codes with members among the masked frames, S' = d S + (1 - d) sum of
    members, n' = d n + (1 - d) their number; the others stay. Liu et al., 2023, "DinoSR:
    self-distillation and online clustering for self-supervised speech representation learning",
    arXiv 2305.10005. No gradient to the features and the codebooks.

    Args:
      logits: o [L, B, T, V], a head of the student for each layer; computed in float32.
      features: [L, B, T, D], of the teacher.
      sums: S [L, V, D].
      counts: n [L, V], positive.
      mask: [B, T], true where the frame was masked.
      decay: d.

    Returns:
      (loss, S', n').

    >>> x = jnp.array([[[[1.0], [9.0]]]])
    >>> state = dinosr(jnp.zeros((1, 1, 2, 2)), x, jnp.array([[[0.0], [8.0]]]), jnp.ones((1, 2)),
    ...                jnp.array([[True, False]]))
    >>> round(float(state.loss), 4), [round(float(x), 2) for x in state.sums.ravel()]
    (0.6931, [0.1, 8.0])
    """
    chex.assert_rank((logits, features, sums, counts, mask), (4, 4, 3, 2, 2))
    layers, batch, frames, size = logits.shape
    chex.assert_shape(features, (layers, batch, frames, None))
    chex.assert_shape((sums, counts), ((layers, size, features.shape[-1]), (layers, size)))
    chex.assert_shape(mask, (batch, frames))
    x, s, n = (jax.lax.stop_gradient(jnp.asarray(a, jnp.float32)) for a in (features, sums, counts))
    codes = jax.vmap(nearest)(x, s / n[..., None])
    kept = jnp.asarray(mask).astype(jnp.float32)
    members = jax.nn.one_hot(codes, size) * kept[..., None]
    number = members.sum((1, 2))
    total = jnp.einsum("lbtv,lbtd->lvd", members, x, precision=HIGHEST)
    used = number > 0
    new_sums = jnp.where(used[..., None], decay * s + (1 - decay) * total, s)
    new_counts = jnp.where(used, decay * n + (1 - decay) * number, n)
    loss = masked_mean(cross_entropies(logits, codes).mean(0), mask)
    return Clustered(loss, new_sums, new_counts)
