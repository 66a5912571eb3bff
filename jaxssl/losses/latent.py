"""Terms whose targets are a teacher's features of the whole image, or its codes.

Where published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| `ijepa`: smooth L1, as its code has it | the squared distance, as its text has it |
| `dbot`: the unbiased variance of a token | the biased: targets larger by sqrt(D / (D - 1)) |
| `feature_matching`: the sum over D | the mean over D: 1 / D as much |
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_choice
from jaxssl.config.errors import ConfigError
from jaxssl.losses.classification import cross_entropies
from jaxssl.losses.combine import masked_mean
from jaxssl.losses.redundancy import squared_distance

NORMALIZE = ("layer", "instance", "none")
EPSILON = 1e-5
DBOT_EPSILON = 1e-6


def smooth_l1(x: jax.Array, y: jax.Array, beta: float | jax.Array) -> jax.Array:
    """Square near zero, absolute value beyond, element by element.

    e(d) = d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, with d = x - y. Girshick, 2015,
    "Fast R-CNN", arXiv 1504.08083, which has beta = 1.

    Args:
      x, y: of one shape; computed in float32.
      beta: positive, in units of x.

    Returns:
      Of the same shape, float32.

    Raises:
      ConfigError: a beta that is not positive.

    >>> smooth_l1(jnp.array([0.5, 1.0, 2.0]), jnp.zeros(3), 1.0).tolist()
    [0.125, 0.5, 1.5]
    """
    chex.assert_equal_shape((x, y))
    if isinstance(beta, int | float) and beta <= 0:
        raise ConfigError(f"beta: found {beta}, expected a positive number")
    distance = jnp.abs(x.astype(jnp.float32) - y.astype(jnp.float32))
    near = jnp.square(distance) / (2 * beta)
    return jnp.where(distance < beta, near, distance - beta / 2)


def data2vec(
    prediction: jax.Array,
    layers: jax.Array,
    mask: jax.Array,
    *,
    top_k: int = 6,
    beta: float | jax.Array = 2.0,
    normalize: str = "layer",
) -> jax.Array:
    """Smooth L1 distance of masked tokens from the mean of a teacher's last blocks.

    L = sum m mean_d e(x - y) / sum m with e of `smooth_l1` and y = LN(mean_{l > L - top_k} h_l),
    a layer normalisation without affine. Baevski et al., 2022, "data2vec: a general framework for
    self-supervised learning in speech, vision and language", arXiv 2202.03555. For speech every
    layer is normalised over time instead, channel by channel, before the mean. No gradient to the
    targets; the mean is over all masked tokens of the global batch.

    Args:
      prediction: x [B, T, D]; computed in float32.
      layers: h [B, L, T, D], outputs of the teacher's blocks for the whole image, the last one
        last.
      mask: m [B, T], true (or a weight) where a token was masked.
      top_k: how many of the last blocks count, from 1 to L.
      beta: of `smooth_l1`.
      normalize: "layer" (the mean, over D), "instance" (each layer, over T) or "none".

    Returns:
      Scalar, float32; 0 where nothing is masked.

    Raises:
      ConfigError: `top_k` outside 1..L, an unknown `normalize`, a beta that is not positive.

    >>> x, layers = jnp.zeros((1, 2, 2)), jnp.full((1, 3, 2, 2), 4.0)
    >>> mask = jnp.array([[True, False]])
    >>> float(data2vec(x, layers, mask, top_k=2, normalize="none"))
    3.0
    """
    chex.assert_rank((prediction, layers, mask), (3, 4, 2))
    chex.assert_shape(prediction, (layers.shape[0], *layers.shape[2:]))
    chex.assert_shape(mask, prediction.shape[:2])
    check_choice("normalize", normalize, NORMALIZE)
    depth = layers.shape[1]
    if not 1 <= top_k <= depth:
        raise ConfigError(f"top_k: found {top_k}, expected 1 to {depth}, the teacher's blocks")
    features = jax.lax.stop_gradient(layers[:, depth - top_k :]).astype(jnp.float32)
    if normalize == "instance":
        features = _standardised(features, axis=2)
    target = features.mean(1)
    if normalize == "layer":
        target = _standardised(target)
    return masked_mean(smooth_l1(prediction, target, beta).mean(-1), mask)


class Targeted(NamedTuple):
    """The loss, and the targets [B, T, D] of all tokens."""

    loss: jax.Array
    targets: jax.Array


def point2vec(
    prediction: jax.Array,
    layers: jax.Array,
    mask: jax.Array,
    *,
    beta: float | jax.Array = 2.0,
) -> Targeted:
    """`data2vec` whose targets are the normalised mean of normalised blocks.

    L = sum m mean_d e(x - y) / sum m with e of `smooth_l1` and y = LN(mean_l LN(h_l)), LN a layer
    normalisation without affine. Abou Zeid et al., 2023, "Point2Vec for self-supervised
    representation learning on point clouds", arXiv 2303.16570. No gradient to the targets.

    Args:
      prediction: x [B, T, D]; computed in float32.
      layers: h [B, L, T, D], outputs of the teacher's blocks that count.
      mask: m [B, T], true (or a weight) where a token was masked.
      beta: of `smooth_l1`.

    Returns:
      (loss, y).

    Raises:
      ConfigError: a beta that is not positive.

    >>> layers = jnp.array([[[[0.0, 4.0]], [[0.0, 2.0]]]])
    >>> loss, y = point2vec(jnp.zeros((1, 1, 2)), layers, jnp.ones((1, 1)))
    >>> round(float(loss), 3), y.round(3).ravel().tolist()
    (0.25, [-1.0, 1.0])
    """
    chex.assert_rank((prediction, layers, mask), (3, 4, 2))
    chex.assert_shape(prediction, (layers.shape[0], *layers.shape[2:]))
    chex.assert_shape(mask, prediction.shape[:2])
    blocks = jax.lax.stop_gradient(jnp.asarray(layers, jnp.float32))
    targets = _standardised(_standardised(blocks).mean(1))
    return Targeted(masked_mean(smooth_l1(prediction, targets, beta).mean(-1), mask), targets)


def ijepa(
    prediction: jax.Array, tokens: jax.Array, targets: jax.Array, *, beta: float | jax.Array = 1.0
) -> jax.Array:
    """Smooth L1 distance of predicted blocks of tokens from a teacher's normalised tokens.

    L = mean_{n, k, j, d} e(x[n, k, j] - LN(h[n])[targets[n, k, j]]) with e of `smooth_l1` and a
    layer normalisation without affine. Assran et al., 2023, "Self-supervised learning from images
    with a joint-embedding predictive architecture", arXiv 2301.08243. No gradient to the teacher.

    Args:
      prediction: x [B, K, M, D], K blocks of M tokens; computed in float32.
      tokens: h [B, T, D], the teacher's, of the whole image.
      targets: integers [B, K, M] in 0..T - 1, where the blocks' tokens are.
      beta: of `smooth_l1`.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: a beta that is not positive.

    >>> tokens = jnp.array([[[1.0, -1.0], [-1.0, 1.0]]])
    >>> blocks = jnp.array([[[[-1.0, 1.0]], [[1.0, -1.0]]]])  # token 1, then token 0
    >>> round(float(ijepa(blocks, tokens, jnp.array([[[1], [0]]]))), 4)
    0.0
    """
    chex.assert_rank((prediction, tokens, targets), (4, 3, 3))
    chex.assert_shape(prediction, (*targets.shape, tokens.shape[-1]))
    chex.assert_equal_shape_prefix((tokens, targets), 1)
    features = _standardised(jax.lax.stop_gradient(tokens).astype(jnp.float32))
    places = targets.reshape(len(targets), -1, 1)
    chosen = jnp.take_along_axis(features, places, axis=1).reshape(prediction.shape)
    return smooth_l1(prediction, chosen, beta).mean()


def dbot(
    prediction: jax.Array, features: jax.Array, mask: jax.Array, *, beta: float | jax.Array = 2.0
) -> jax.Array:
    """Smooth L1 distance of masked tokens from a teacher's standardised tokens.

    L = sum m mean_d e(x - y) / sum m with e of `smooth_l1` and, token by token,
    y = (h - its mean) / sqrt(its unbiased variance + 1e-6). Liu et al., 2022, "Exploring target
    representations for masked autoencoders" (dBOT), arXiv 2209.03917. h is the output of the
    teacher's last block before its final normalisation. No gradient to it; the mean is over all
    masked tokens of the global batch. With one more token than the mask has, the first is a class
    token, which counts as masked.

    Args:
      prediction: x [B, T, D] or [B, 1 + T, D]; computed in float32.
      features: h, of the same shape, of the whole image.
      mask: m [B, T], true (or a weight) where a token was masked.
      beta: of `smooth_l1`.

    Returns:
      Scalar, float32; 0 where nothing is masked and there is no class token.

    Raises:
      ConfigError: features of one number, another number of tokens, a beta that is not positive.

    >>> x, h = jnp.zeros((1, 1, 4)), jnp.array([[[1.0, 2.0, 3.0, 4.0]]])  # y = ±1.1619, ±0.3873
    >>> round(float(dbot(x, h, jnp.array([[True]]))), 4)
    0.1875
    """
    chex.assert_rank((prediction, features, mask), (3, 3, 2))
    chex.assert_equal_shape((prediction, features))
    chex.assert_equal_shape_prefix((prediction, mask), 1)
    if features.shape[-1] < 2:
        raise ConfigError("features: found tokens of 1 number, expected 2 or more to normalise")
    first = prediction.shape[1] - mask.shape[1]
    if first not in (0, 1):
        raise ConfigError(
            f"prediction: found {prediction.shape[1]} tokens, expected the {mask.shape[1]} of the "
            "mask, or these and a class token"
        )
    target = jax.lax.stop_gradient(features).astype(jnp.float32)
    spread = jnp.sqrt(target.var(-1, ddof=1, keepdims=True) + DBOT_EPSILON)
    target = (target - target.mean(-1, keepdims=True)) / spread
    counted = jnp.pad(mask.astype(jnp.float32), ((0, 0), (first, 0)), constant_values=1.0)
    return masked_mean(smooth_l1(prediction, target, beta).mean(-1), counted)


def feature_matching(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Squared distance from a teacher's embedding, summed over features: no gradient to it.

    L = mean_n |h[n] - g[n]|^2, for embeddings of the whole image. Lee et al., 2023,
    "Self-distillation for further pre-training of transformers", arXiv 2210.02871. A mean over
    the D features would silently be 1 / D as strong.

    Args:
      student: h [B, D]; computed in float32.
      teacher: g [B, D].

    Returns:
      Scalar, float32.

    >>> float(feature_matching(jnp.ones((4, 192)), jnp.zeros((4, 192))))
    192.0
    """
    return squared_distance(student, jax.lax.stop_gradient(teacher))


def masked_cross_entropy(logits: jax.Array, codes: jax.Array, mask: jax.Array) -> jax.Array:
    """Cross-entropy of masked tokens with the code of each.

    L = sum m -log softmax(l)[z] / sum m, over all masked tokens of the global batch. Bao et al.,
    2022, "BEiT: BERT pre-training of image transformers", arXiv 2106.08254.

    Args:
      logits: l [B, T, K]; computed in float32.
      codes: z, integers [B, T] in 0..K - 1.
      mask: m [B, T], true (or a weight) where a token was masked.

    Returns:
      Scalar, float32; 0 where nothing is masked.

    >>> mask = jnp.array([[True, False]])
    >>> round(float(masked_cross_entropy(jnp.zeros((1, 2, 4)), jnp.array([[3, 0]]), mask)), 4)
    1.3863
    """
    chex.assert_rank((logits, codes, mask), (3, 2, 2))
    chex.assert_shape((codes, mask), logits.shape[:2])
    return masked_mean(cross_entropies(logits, codes), mask)


def _standardised(x: jax.Array, axis: int = -1) -> jax.Array:
    """Layer normalisation without affine, or the same over another axis."""
    centred = x - x.mean(axis, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axis, keepdims=True) + EPSILON)
