"""Bags of visual words: soft counts of a vocabulary's words in an image, as targets.

Gidaris et al., 2021, "OBoW: online bag-of-visual-words generation for self-supervised learning",
arXiv 2012.11552. `word_distances` -> `bag_of_words` -> `bag_divergence` are its equations in order;
`sampled_words` are the vectors that feed its vocabulary.

Where published forms differ, this one follows the first column:

| here | elsewhere |
|---|---|
| Kullback-Leibler divergence | cross-entropy: the same gradient, and the targets' entropy more |
| features are not normalised | unit vectors, with a temperature that is not relative |
| one group of views; the mean over its views | the sum over groups, each a mean |
"""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_choice
from jaxssl.config.errors import ConfigError

POOLS = ("max", "mean")


def word_distances(features: jax.Array, vocabulary: jax.Array) -> jax.Array:
    """Squared distances of local features from words, d[b, t, k] = |phi[b, t] - v[k]|^2.

    No gradient.

    Args:
      features: [B, T, D]; computed in float32, and not normalised.
      vocabulary: [K, D].

    Returns:
      [B, T, K], 0 or more.

    >>> word_distances(jnp.zeros((1, 1, 2)), jnp.array([[3.0, 4.0], [0.0, 1.0]])).tolist()
    [[[25.0, 1.0]]]
    """
    chex.assert_rank((features, vocabulary), (3, 2))
    chex.assert_equal_shape_suffix((features, vocabulary), 1)
    x, v = jax.lax.stop_gradient((features.astype(jnp.float32), vocabulary.astype(jnp.float32)))
    inner = jnp.einsum("btd,kd->btk", x, v, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.square(x).sum(-1)[..., None] + jnp.square(v).sum(-1)
    return jnp.maximum(squares - 2 * inner, 0.0)


def bag_of_words(
    distances: jax.Array,
    *,
    scale: float | jax.Array = 1.0,
    sharpness: float | None = 15.0,
    pool: str = "max",
) -> jax.Array:
    """The share of each word in an image.

    Codes s[b, t] = softmax_k(-(sharpness / scale) d[b, t, k]) are pooled over places,
    c[b, k] = max_t s[b, t, k], and t[b] = c[b] / sum_k c[b, k]. Gidaris et al., 2021, "OBoW",
    arXiv 2012.11552. No gradient.

    Args:
      distances: [B, T, K], from `word_distances`.
      scale: a typical distance from the nearest word, which makes `sharpness` free of units.
      sharpness: the paper's 1 / delta; None takes the nearest word alone.
      pool: "max", or "mean" over places.

    Returns:
      [B, K], rows of sum 1, 0 or more.

    Raises:
      ConfigError: an unknown pool, or a sharpness below 0.

    >>> d = jnp.array([[[0.0, 1.0, 1.0], [0.0, 2.0, 5.0], [3.0, 0.0, 9.0]]])
    >>> bag_of_words(d, sharpness=None).tolist()
    [[0.5, 0.5, 0.0]]
    """
    chex.assert_rank(distances, 3)
    check_choice("pool", pool, POOLS)
    d = jax.lax.stop_gradient(distances.astype(jnp.float32))
    if sharpness is None:
        codes = jax.nn.one_hot(d.argmin(-1), d.shape[-1])
    elif sharpness < 0:
        raise ConfigError(f"sharpness: found {sharpness}, expected 0 or more, or None")
    else:
        codes = jax.nn.softmax(-(sharpness / jax.lax.stop_gradient(scale)) * d)
    bag = codes.max(1) if pool == "max" else codes.mean(1)
    return bag / bag.sum(-1, keepdims=True)


def bag_divergence(logits: jax.Array, bags: jax.Array) -> jax.Array:
    """The divergence of predicted from true bags, the mean over the batch and its views.

    L = mean_{b, v} sum_k t[b, k] (log t[b, k] - log softmax(x[b, v])[k]); 0 only where the two are
    equal. Gidaris et al., 2021, "OBoW", arXiv 2012.11552. No gradient to the bags.

    Args:
      logits: x [B, V, K]; computed in float32.
      bags: t [B, K], rows of sum 1.

    Returns:
      Scalar, float32.

    >>> bag_divergence(jnp.zeros((1, 1, 4)), jnp.full((1, 4), 0.25)).item()
    0.0
    """
    chex.assert_rank((logits, bags), (3, 2))
    t = jax.lax.stop_gradient(bags.astype(jnp.float32))[:, None]
    log_t = jnp.log(jnp.where(t > 0, t, 1.0))  # 0 log 0 is 0
    divergence = (t * (log_t - jax.nn.log_softmax(logits.astype(jnp.float32)))).sum(-1)
    return divergence.mean()


def bag_perplexity(bags: jax.Array) -> jax.Array:
    """How many words a batch uses: exp(-sum_k m[k] log m[k]) of the mean bag m, from 1 to K.

    Args:
      bags: [B, K], rows of sum 1.

    >>> round(float(bag_perplexity(jnp.eye(4))), 4)
    4.0
    """
    chex.assert_rank(bags, 2)
    mean = bags.astype(jnp.float32).mean(0)
    return jnp.exp(-(mean * jnp.log(jnp.where(mean > 0, mean, 1.0))).sum())


def sampled_words(maps: jax.Array, keys: jax.Array, *, window: int = 3) -> jax.Array:
    """One vector of each feature map: the mean of a window at a random place, without gradient.

    w[b] = mean of window x window features, at a place drawn evenly among those where they fit.
    Gidaris et al., 2021, "OBoW", arXiv 2012.11552.

    Args:
      maps: [B, h, w, D]; computed in float32.
      keys: [B], one random key per map, so that its draw does not depend on the batch.
      window: side of the window.

    Returns:
      [B, D].

    Raises:
      ConfigError: a window larger than the maps.

    >>> sampled_words(jnp.ones((2, 3, 3, 4)), jax.random.split(jax.random.key(0), 2)).shape
    (2, 4)
    """
    chex.assert_rank(maps, 4)
    height, width = maps.shape[1:3]
    if not 1 <= window <= min(height, width):
        raise ConfigError(
            f"window: found {window}, expected 1 to {min(height, width)}, the map's side"
        )
    x = jax.lax.stop_gradient(maps.astype(jnp.float32))
    means = nn.avg_pool(x, (window, window))
    places = means.reshape(len(means), -1, means.shape[-1])
    draw = jax.vmap(lambda key: jax.random.randint(key, (), 0, places.shape[1]))(keys)
    return jnp.take_along_axis(places, draw[:, None, None], axis=1)[:, 0]
