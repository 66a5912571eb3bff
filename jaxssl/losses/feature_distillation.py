"""Distillation of features: a student's maps or embeddings against those of a teacher.

No gradient reaches the teacher. Where published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| `attention_transfer`: the mean of squares, as its code | the norm, as its text |
| `nst` keeps the teacher's own constant term | without it: the value may be below 0 |
| `vid` leaves log 2 pi out, and is finite for any scale | log(1 + exp(s)), infinite above 88 |
| `nd`: the norm of the same image | of the class mean |
| `running_standardisation`: the statistics before the update, the unbiased deviation | after it |
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError
from jaxssl.losses.latent import smooth_l1
from jaxssl.losses.vectors import norm, unit

HIGHEST = jax.lax.Precision.HIGHEST
COSINE_EPSILON = 1e-8


class Standardised(NamedTuple):
    """The features, and the statistics for those of the next step."""

    features: jax.Array
    mean: jax.Array
    std: jax.Array


def hint(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Mean squared distance of a student's features, through its regressor, from a teacher's.

    L = mean (s - t)^2 over everything. Romero et al., 2015, "FitNets: hints for thin deep nets",
    arXiv 1412.6550.

    Args:
      student: s, any shape; computed in float32.
      teacher: t, of that shape, without gradient.

    Returns:
      Scalar, float32.

    >>> float(hint(jnp.ones((2, 3, 3, 4)), jnp.zeros((2, 3, 3, 4))))
    1.0
    """
    chex.assert_equal_shape((student, teacher))
    teacher = jax.lax.stop_gradient(teacher).astype(jnp.float32)
    return jnp.square(student.astype(jnp.float32) - teacher).mean()


def chunk_mse(
    student: jax.Array, teacher: jax.Array, *, chunk: int = 0, num_chunks: int = 1
) -> jax.Array:
    """Mean squared distance of one of several small students from its part of the feature.

    L = mean (s - t[:, c w : (c + 1) w])^2, w = D / n. Malik et al., 2020, "Teacher-class network: a
    neural network compression mechanism", arXiv 2004.03281. Of chunks of equal width, the mean is
    `hint` of the students side by side.

    Args:
      student: s [B, D / n]; computed in float32.
      teacher: t [B, D], without gradient.
      chunk: c, from 0.
      num_chunks: n, a divisor of D.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: a chunk that is none of n, or n that does not divide D.

    >>> float(chunk_mse(jnp.ones((1, 2)), jnp.array([[0.0, 0.0, 1.0, 3.0]]), chunk=1, num_chunks=2))
    2.0
    """
    chex.assert_rank((student, teacher), 2)
    if num_chunks < 1 or teacher.shape[1] % num_chunks:
        raise ConfigError(
            f"num_chunks: found {num_chunks}, expected a divisor of the width {teacher.shape[1]}"
        )
    if not 0 <= chunk < num_chunks:
        raise ConfigError(f"chunk: found {chunk}, expected 0 to {num_chunks - 1}")
    width = teacher.shape[1] // num_chunks
    return hint(student, teacher[:, chunk * width : (chunk + 1) * width])


def attention_transfer(student: jax.Array, teacher: jax.Array, *, power: int = 2) -> jax.Array:
    """Distance of where two maps are strong, whatever their channels.

    L = mean_{n, i} (a_n[i] - b_n[i])^2, where a is mean_c s^p over all places, of unit length, and
    b that of t. The larger map is first averaged down to the places of the smaller. Zagoruyko,
    Komodakis, 2017, "Paying more attention to attention: improving the performance of convolutional
    neural networks via attention transfer", arXiv 1612.03928, whose text has the norm.

    Args:
      student: s [B, H, W, C]; computed in float32.
      teacher: t [B, H', W', C'], without gradient.
      power: p.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: maps of which neither side divides the other.

    >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
    >>> float(attention_transfer(3 * x, x)) < 1e-12
    True
    """
    s, t = _of_one_size(student, teacher)
    attention = lambda x: unit((x**power).mean(-1).reshape(len(x), -1))
    return jnp.square(attention(s) - attention(t)).mean()


def nst(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Neuron selectivity transfer: the discrepancy of two sets of channels, by a squared kernel.

    L = mean_n [mean_{c, c'} k(s_c, s_c') + mean k(t_c, t_c') - 2 mean k(s_c, t_c')] with
    k(a, b) = (a . b)^2 of channels as vectors over places, of unit length. The larger map is first
    averaged down. Huang, Wang, 2017, "Like what you like: knowledge distill via neuron selectivity
    transfer", arXiv 1707.01219.

    Args:
      student: s [B, H, W, C]; computed in float32.
      teacher: t [B, H', W', C'], without gradient.

    Returns:
      Scalar, float32, at least 0.

    Raises:
      ConfigError: maps of which neither side divides the other.

    >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
    >>> abs(float(nst(x[..., ::-1], x))) < 1e-6  # the order of channels does not matter
    True
    """
    s, t = (
        unit(jnp.moveaxis(x.reshape(len(x), -1, x.shape[-1]), 1, 2))
        for x in _of_one_size(student, teacher)
    )

    def kernel(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.square(jnp.einsum("bcp,bdp->bcd", a, b, precision=HIGHEST)).mean()

    return kernel(s, s) + kernel(t, t) - 2 * kernel(s, t)


def vid(
    prediction: jax.Array, teacher: jax.Array, log_scale: jax.Array, *, epsilon: float = 1e-5
) -> jax.Array:
    """Variational information distillation: a Gaussian likelihood with a variance per channel.

    L = mean 1/2 ((y - t)^2 / v + log v), v = log(1 + exp s) + ε. Ahn et al., 2019, "Variational
    information distillation for knowledge transfer", arXiv 1904.05835.

    Args:
      prediction: y [B, H, W, C], of the student's regressor; computed in float32.
      teacher: t [B, H, W, C], without gradient.
      log_scale: s [C], learned.
      epsilon: ε, the least variance.

    Returns:
      Scalar, float32.

    >>> x = jnp.zeros((1, 2, 2, 3))
    >>> round(float(vid(x + 1, x, jnp.full(3, 0.5413), epsilon=0.0)), 3)  # v = 1
    0.5
    """
    chex.assert_rank((prediction, teacher, log_scale), (4, 4, 1))
    chex.assert_equal_shape((prediction, teacher))
    chex.assert_shape(log_scale, prediction.shape[-1:])
    teacher = jax.lax.stop_gradient(teacher).astype(jnp.float32)
    variance = jax.nn.softplus(jnp.asarray(log_scale, jnp.float32)) + epsilon
    squares = jnp.square(prediction.astype(jnp.float32) - teacher)
    return 0.5 * (squares / variance + jnp.log(variance)).mean()


def explanation_cosine(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """One less the cosine of two explanations of the teacher's class.

    L = mean_n (1 - s_n . t_n / (max(|s_n|, 1e-8) max(|t_n|, 1e-8))) of flattened maps. Parchami-
    Araghi et al., 2024, "Good teachers explain: explanation-enhanced knowledge distillation", arXiv
    2402.03119. A map of zeros has the cosine 0, and no gradient.

    Args:
      student: s [B, H, W], or with more axes; computed in float32.
      teacher: t, of that shape, without gradient.

    Returns:
      Scalar, float32, from 0 to 2.

    >>> x = jnp.arange(4.0).reshape(1, 2, 2)
    >>> abs(round(float(explanation_cosine(2 * x, x)), 5)), float(explanation_cosine(x, 0 * x))
    (0.0, 1.0)
    """
    chex.assert_equal_shape((student, teacher))
    flat = lambda x: x.reshape(x.shape[0], -1)
    return 1 - _cosines(flat(student), flat(jax.lax.stop_gradient(teacher))).mean()


def nd(
    student: jax.Array, teacher: jax.Array, class_means: jax.Array, labels: jax.Array
) -> jax.Array:
    """Norm and direction: a feature toward its class mean, and as long as the teacher's.

    L = mean_n (1 - s_n . e_y / max(|s_n|, |t_n|)), e_c = m_c / |m_c|. Wang et al., 2023, "Improving
    knowledge distillation via regularizing feature norm and direction" (KD++), arXiv 2305.17007.
    Shorter than the teacher's, the gradient is -e_y / |t|; longer, only the direction counts.

    Args:
      student: s [B, D], of the width of the teacher; computed in float32.
      teacher: t [B, D], without gradient.
      class_means: m [K, D], of the teacher's features on the training set; no gradient.
      labels: y, integers [B].

    Returns:
      Scalar, float32, from 0 to 2.

    >>> s, t = jnp.array([[3.0, 4.0]]), jnp.array([[0.0, 2.0]])
    >>> round(float(nd(s, t, jnp.eye(2), jnp.array([0]))), 4)
    0.4
    """
    chex.assert_rank((student, teacher, class_means, labels), (2, 2, 2, 1))
    chex.assert_equal_shape((student, teacher))
    chex.assert_equal_shape_suffix((student, class_means), 1)
    chex.assert_equal_shape_prefix((student, labels), 1)
    teacher, class_means = jax.lax.stop_gradient((teacher, class_means))
    direction = unit(jnp.asarray(class_means))[labels]
    longest = jnp.maximum(norm(student), norm(teacher))[:, 0]
    along = (student.astype(jnp.float32) * direction).sum(-1)
    return 1 - (along / jnp.where(longest > 0, longest, 1.0)).mean()


def unic_distance(
    student: jax.Array,
    teacher: jax.Array,
    *,
    cosine_weight: float = 0.5,
    smooth_weight: float = 0.5,
) -> jax.Array:
    """Cosine and smooth L1 distance of tokens from a teacher's standardised ones.

    L = mean over tokens of a (1 - cos(s, t)) + b mean_d h(s_d - t_d), h of `smooth_l1` with beta 1.
    Sariyildiz et al., 2024, "UNIC: universal classification models via multi-teacher distillation",
    arXiv 2408.05088; there for class tokens and patches apart.

    Args:
      student: s [B, D] or [B, T, D]; computed in float32.
      teacher: t, of that shape, as `running_standardisation` gives it; without gradient.
      cosine_weight, smooth_weight: a and b.

    Returns:
      Scalar, float32.

    >>> round(float(unic_distance(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]]))), 4)
    0.75
    """
    chex.assert_rank((student, teacher), {2, 3})
    chex.assert_equal_shape((student, teacher))
    teacher = jax.lax.stop_gradient(teacher)
    apart = 1 - _cosines(student, teacher)
    smooth = smooth_l1(student, teacher, 1.0).mean(-1)
    return (cosine_weight * apart + smooth_weight * smooth).mean()


def running_standardisation(
    features: jax.Array,
    mean: jax.Array,
    std: jax.Array,
    *,
    momentum: float | jax.Array,
    epsilon: float = 1e-6,
) -> Standardised:
    """Features of a teacher by running statistics, and these after the batch.

    y = (x - μ) / (σ + ε); μ' = (1 - m) μ + m mean(x); σ' = (1 - m) σ + m (std(x) + ε), over the
    global batch and all tokens, with the unbiased deviation. Sariyildiz et al., 2024, "UNIC:
    universal classification models via multi-teacher distillation", arXiv 2408.05088. ε is added
    twice, as there.

    Args:
      features: x [B, D] or [B, T, D]; computed in float32, without gradient.
      mean, std: μ and σ [D], 0 and 1 at the start.
      momentum: m, from 0 to 1; 0 keeps the statistics.
      epsilon: ε.

    Returns:
      (y, new mean, new std), float32.

    >>> x = jnp.array([[1.0], [3.0]])
    >>> y, mean, std = running_standardisation(x, jnp.zeros(1), jnp.ones(1), momentum=1.0)
    >>> float(mean[0]), round(float(std[0]), 4)
    (2.0, 1.4142)
    """
    chex.assert_rank((features, mean, std), ({2, 3}, 1, 1))
    chex.assert_shape((mean, std), features.shape[-1:])
    x, mean, std = (
        jax.lax.stop_gradient(jnp.asarray(a, jnp.float32)) for a in (features, mean, std)
    )
    rows = x.reshape(-1, x.shape[-1])
    new_mean = (1 - momentum) * mean + momentum * rows.mean(0)
    new_std = (1 - momentum) * std + momentum * (rows.std(0, ddof=1) + epsilon)
    return Standardised((x - mean) / (std + epsilon), new_mean, new_std)


def _cosines(s: jax.Array, t: jax.Array) -> jax.Array:
    """Of the last axis; 0 where one is all zeros."""
    s, t = s.astype(jnp.float32), t.astype(jnp.float32)
    lengths = jnp.maximum(norm(s), COSINE_EPSILON) * jnp.maximum(norm(t), COSINE_EPSILON)
    return (s * t).sum(-1) / lengths[..., 0]


def _of_one_size(student: jax.Array, teacher: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both maps in float32, the larger averaged down; the teacher's without gradient."""
    chex.assert_rank((student, teacher), 4)
    chex.assert_equal_shape_prefix((student, teacher), 1)
    height, width = (min(student.shape[i], teacher.shape[i]) for i in (1, 2))

    def pooled(x: jax.Array) -> jax.Array:
        batch, h, w, channels = x.shape
        if h % height or w % width:
            raise ConfigError(f"maps: found sides {h} and {w}, expected multiples of those of both")
        blocks = x.astype(jnp.float32).reshape(
            batch, height, h // height, width, w // width, channels
        )
        return blocks.mean((2, 4))

    return pooled(student), pooled(jax.lax.stop_gradient(teacher))
