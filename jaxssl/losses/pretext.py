"""Terms of classic pretext tasks, whose labels come from how the input was made.

The number of a permutation (jigsaw) is a label as any other: `label_smoothing_cross_entropy`.
"""

import chex
import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError


def view_index(logits: jax.Array) -> jax.Array:
    """Cross-entropy of every view with its own number: which of the V rotations was it.

    L = mean_{v, n} -log softmax(l[v, n])[v]; log V by chance. Gidaris et al., 2018, "Unsupervised
    representation learning by predicting image rotations", arXiv 1803.07728: V = 4 views of one
    image, turned by 0, 90, 180 and 270 degrees, all in one batch.

    Args:
      logits: l [V, B, V]; computed in float32.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: another number of classes than views.

    >>> round(float(view_index(jnp.zeros((4, 2, 4)))), 4)  # log 4
    1.3863
    """
    chex.assert_rank(logits, 3)
    return _own_number(logits, "views", axis=0)


def relative_location(logits: jax.Array) -> jax.Array:
    """Cross-entropy of every neighbour of a tile with its own place around it.

    L = mean_{n, k} -log softmax(l[n, k])[k]; log K by chance. Doersch et al., 2015, "Unsupervised
    visual representation learning by context prediction", arXiv 1505.05192, with K = 8.

    Args:
      logits: l [B, K, K], of the neighbours at the places 0 to K - 1; computed in float32.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: another number of classes than neighbours.

    >>> round(float(relative_location(jnp.zeros((2, 8, 8)))), 4)  # log 8
    2.0794
    """
    chex.assert_rank(logits, 3)
    return _own_number(logits, "neighbours", axis=1)


def weighted_cross_entropy(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Cross-entropy with soft targets, times the weight of each target's likeliest class.

    L = mean_{n, t} -w[argmax_k z[n, t, k]] z[n, t] . log softmax(l[n, t]). Zhang et al., 2016,
    "Colorful image colorization", arXiv 1603.08511. No gradient to targets and weights.

    Args:
      logits: l [B, T, K]; computed in float32.
      targets: z [B, T, K], distributions.
      weights: w [K], as `rebalancing_weights` gives.

    Returns:
      Scalar, float32.

    >>> targets = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
    >>> value = weighted_cross_entropy(jnp.zeros((1, 2, 2)), targets, jnp.array([1.0, 3.0]))
    >>> round(float(value), 4)  # 2 log 2
    1.3863
    """
    chex.assert_rank((logits, targets, weights), (3, 3, 1))
    chex.assert_equal_shape((logits, targets))
    chex.assert_equal_shape_suffix((logits, weights), 1)
    targets, weights = jax.lax.stop_gradient((targets, weights))
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    each = -(targets.astype(jnp.float32) * log_probabilities).sum(-1)
    return (weights.astype(jnp.float32)[targets.argmax(-1)] * each).mean()


def rebalancing_weights(frequencies: jax.Array, *, mix: float | jax.Array = 0.5) -> jax.Array:
    """Class weights that make rare classes count more, and 1 on average over the samples.

    w[k] = c / ((1 - mix) p[k] + mix / K) with c such that sum_k p[k] w[k] = 1. Zhang et al., 2016,
    "Colorful image colorization", arXiv 1603.08511.

    Args:
      frequencies: p [K], of sum 1.
      mix: of the uniform distribution; 1 gives weights of 1, and 0 divides by p.

    Returns:
      [K], float32.

    >>> [round(float(w), 4) for w in rebalancing_weights(jnp.array([0.7, 0.3]))]
    [0.8696, 1.3043]
    """
    chex.assert_rank(frequencies, 1)
    p = frequencies.astype(jnp.float32)
    # A class that no sample has may weigh anything: without mix, not infinity.
    weights = 1 / jnp.maximum((1 - mix) * p + mix / len(p), 1e-12)
    return weights / (p * weights).sum()


def colorization(
    logits: jax.Array, targets: jax.Array, *, mix: float | jax.Array = 0.5
) -> jax.Array:
    """`weighted_cross_entropy` with soft colour bins, rebalanced by their frequency in the batch.

    The weights are `rebalancing_weights` of mean_{n, t} z[n, t] over the global batch. Zhang et
    al., 2016, "Colorful image colorization", arXiv 1603.08511, with the frequencies of the whole
    data set, smoothed, in place of the batch's.

    Args:
      logits: l [B, T, K]; computed in float32.
      targets: z [B, T, K], distributions.
      mix: of `rebalancing_weights`; 1 for none.

    Returns:
      Scalar, float32.

    >>> targets = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
    >>> round(float(colorization(jnp.zeros((1, 2, 2)), targets)), 4)  # log 2
    0.6931
    """
    chex.assert_rank((logits, targets), 3)
    frequencies = targets.astype(jnp.float32).mean((0, 1))
    return weighted_cross_entropy(logits, targets, rebalancing_weights(frequencies, mix=mix))


def _own_number(logits: jax.Array, of: str, axis: int) -> jax.Array:
    """Mean cross-entropy with the class i where the index on `axis` is i."""
    count = logits.shape[axis]
    if logits.shape[-1] != count:
        raise ConfigError(
            f"logits: found {logits.shape[-1]} classes, expected {count}, one for each of the {of}"
        )
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.diagonal(log_probabilities, axis1=axis, axis2=2).mean()
