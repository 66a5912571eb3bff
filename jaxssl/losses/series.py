"""Contrasts of series: in time and among samples, across views and at several scales.

Where published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| `ts2vec`: dot products, no temperature, over the number of scales | cosines; the sum |
| `ts_tcc_temporal`: a softmax over predictions, as its code | over futures, as its text |
| `isoalign`: the distances are divided by B once more, as published | means |
"""

import chex
import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError
from jaxssl.losses.contrastive import nt_xent
from jaxssl.losses.vectors import unit

HIGHEST = jax.lax.Precision.HIGHEST


def ts2vec(
    z1: jax.Array, z2: jax.Array, *, alpha: float = 0.5, temporal_unit: int = 0
) -> jax.Array:
    """Hierarchical contrast: among the series at one time, and among the times of one series.

    L = mean over scales d of α I_d + (1 - α) T_d: I_d is the cross-entropy that a series has of
    its other view among the 2 B - 1 others at the same time, T_d that of the same time of the
    other view among the 2 T - 1 others of the same series, both of dot products and means over
    both directions. Each next scale is the maximum over pairs of times, the last of an odd number
    dropped; a single time has no T_d, and counts. Yue et al., 2022, "TS2Vec: towards universal
    representation of time series", arXiv 2106.10466.

    Args:
      z1, z2: [B, T, C], the overlap of two crops; computed in float32.
      alpha: α, from 0 to 1.
      temporal_unit: the first scale, from 0, that is contrasted in time.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: a weight outside 0 ... 1.

    >>> z = jnp.ones((2, 4, 3))
    >>> round(float(ts2vec(z, z)), 4)  # ((log 3 + log 7) / 2 + log 3 + log 3 / 2) / 3
    1.0567
    """
    chex.assert_rank((z1, z2), 3)
    chex.assert_equal_shape((z1, z2))
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha: found {alpha}, expected 0 to 1")
    a, b = jnp.asarray(z1, jnp.float32), jnp.asarray(z2, jnp.float32)
    total, scale = jnp.zeros(()), 0
    while True:
        instances = _contrast(jnp.swapaxes(a, 0, 1), jnp.swapaxes(b, 0, 1))
        total = total + alpha * instances
        if a.shape[1] > 1 and scale >= temporal_unit:
            total = total + (1 - alpha) * _contrast(a, b)
        scale += 1
        if a.shape[1] == 1:
            return total / scale
        a, b = _halved(a), _halved(b)


def ts_tcc_temporal(context: jax.Array, future: jax.Array, predictors: jax.Array) -> jax.Array:
    """Which sample's prediction, from the context of one view, is of a future of the other view.

    L = -1 / (B K) sum_{k, b} log softmax_b'(z_k[b] . W_k c[b'])[b]. Eldele et al., 2021,
    "Time-series representation learning via temporal and contextual contrasting" (TS-TCC), arXiv
    2106.14112. The softmax is over predictions, as in its code; so a bias of the predictors would
    have no gradient. Sum it over both directions.

    Args:
      context: c [B, H], of one view up to some time; computed in float32.
      future: z [K, B, C], the other view's features 1 ... K times later.
      predictors: W [K, C, H].

    Returns:
      Scalar, float32.

    >>> value = ts_tcc_temporal(jnp.ones((4, 2)), jnp.ones((1, 4, 3)), jnp.ones((1, 3, 2)))
    >>> round(float(value), 4)  # log 4
    1.3863
    """
    chex.assert_rank((context, future, predictors), (2, 3, 3))
    (batch, hidden), (ahead, _, width) = context.shape, future.shape
    chex.assert_shape((future, predictors), ((ahead, batch, width), (ahead, width, hidden)))
    c, z, w = (jnp.asarray(x, jnp.float32) for x in (context, future, predictors))
    guesses = jnp.einsum("kch,bh->kbc", w, c, precision=HIGHEST)
    logits = jnp.einsum("kac,kbc->kab", z, guesses, precision=HIGHEST)
    own = jnp.diagonal(logits, axis1=1, axis2=2)
    return (jax.nn.logsumexp(logits, axis=-1) - own).mean()


def ts_tcc_contextual(z1: jax.Array, z2: jax.Array, *, temperature: float = 0.2) -> jax.Array:
    """The contextual contrast of TS-TCC: `nt_xent` of the contexts of both views.

    L = nt_xent(z1, z2). Eldele et al., 2021, "Time-series representation learning via temporal and
    contextual contrasting" (TS-TCC), arXiv 2106.14112.

    Args:
      z1, z2: [B, P], projected; computed in float32.
      temperature: of `nt_xent`.

    Returns:
      Scalar, float32.

    >>> round(float(ts_tcc_contextual(jnp.ones((2, 3)), jnp.ones((2, 3)))), 4)  # log 3
    1.0986
    """
    return nt_xent(z1, z2, temperature=temperature)


def isoalign(
    time: jax.Array,
    scalogram: jax.Array,
    fourier: jax.Array,
    mapped_scalogram: jax.Array,
    mapped_fourier: jax.Array,
    *,
    temperature: float = 0.15,
) -> jax.Array:
    """Three transforms of a signal contrasted in pairs, and two mapped to from the first.

    L = N(t, w) + N(t, f) + N(w, f) + 1 / B (mean |m_w - w| + mean |m_f - f|) with N of `nt_xent`,
    t, w and f of unit length, and means over B and P. Demirel, Holz, 2025, "Learning without
    augmenting: unsupervised time series representation learning via frame projections" (IsoAlign),
    arXiv 2510.22655. The mapped ones are not normalised; the second division by B makes their terms
    small; no gradient is stopped.

    Args:
      time, scalogram, fourier: t, w and f [B, P]; computed in float32.
      mapped_scalogram, mapped_fourier: m_w and m_f [B, P], made of t.
      temperature: of `nt_xent`.

    Returns:
      Scalar, float32.

    >>> z = jnp.eye(2)
    >>> round(float(isoalign(z, z, z, z, z)), 4)  # 3 log(1 + 2 exp(-1 / 0.15))
    0.0076
    """
    arrays = (time, scalogram, fourier, mapped_scalogram, mapped_fourier)
    chex.assert_rank(arrays, 2)
    chex.assert_equal_shape(arrays)
    t, w, f = unit(time), unit(scalogram), unit(fourier)
    pairs = [nt_xent(a, b, temperature=temperature) for a, b in ((t, w), (t, f), (w, f))]
    gaps = jnp.abs(mapped_scalogram - w).mean() + jnp.abs(mapped_fourier - f).mean()
    return sum(pairs[1:], pairs[0]) + gaps / len(t)


def _contrast(a: jax.Array, b: jax.Array) -> jax.Array:
    """Of [G, N, C]: each of the 2 N against the 2 N - 1 others of its group; 0 for N = 1."""
    both = jnp.concatenate([a, b], 1)
    logits = jnp.einsum("gnc,gmc->gnm", both, both, precision=HIGHEST)
    logits = jnp.where(jnp.eye(both.shape[1], dtype=bool), -jnp.inf, logits)
    return (jax.nn.logsumexp(logits, axis=-1)).mean() - (a * b).sum(-1).mean()


def _halved(z: jax.Array) -> jax.Array:
    """The maximum over pairs of times."""
    batch, times, channels = z.shape
    return z[:, : times // 2 * 2].reshape(batch, times // 2, 2, channels).max(2)
