"""Distillation of relations: how the samples of a batch lie to each other, or to a memory.

No gradient reaches the teacher, but for the embedding layer that `crd` trains on it. Where
published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| `similarity_preserving`: the sum over B^2 | batch means of rows: the same |
| `rkd_distance`, `rkd_angle`: the mean over all pairs and triples | without the diagonal |
| `correlation_congruence`: the mean of squares, as its text | a norm over B^2 |
| `pkt`: the mean over B^2 | the sum over rows: B times as much |
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_choice
from jaxssl.losses.latent import smooth_l1
from jaxssl.losses.vectors import norm, unit

HIGHEST = jax.lax.Precision.HIGHEST
KERNELS = ("bilinear", "gaussian")


class Contrasted(NamedTuple):
    """The loss, and the memories of both networks after the batch, [N, D] of unit rows."""

    loss: jax.Array
    memory_student: jax.Array
    memory_teacher: jax.Array


def similarity_preserving(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Distance of two matrices of how alike the samples of a batch are.

    L = sum_ij (G_ij - H_ij)^2 / B^2, G the Gram matrix s s^T with rows of unit length, H that of t.
    Tung, Mori, 2019, "Similarity-preserving knowledge distillation", arXiv 1907.09682.

    Args:
      student: s [B, ...], flattened after the batch; computed in float32.
      teacher: t [B, ...], of any other shape, without gradient.

    Returns:
      Scalar, float32.

    >>> x = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    >>> float(similarity_preserving(3 * x, x)) < 1e-12
    True
    """
    s, t = _rows(student, teacher)
    return jnp.square(_directions(_gram(s)) - _directions(_gram(t))).mean()


def rkd_distance(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Relational distillation of distances between samples, each over their mean.

    L = mean_ij h(d_ij / d - e_ij / e), d_ij = |s_i - s_j|, d the mean of those above 0, e of the
    teacher's, h of `smooth_l1` with beta 1. Park et al., 2019, "Relational knowledge distillation",
    arXiv 1904.05068. The mean takes part in the gradient.

    Args:
      student: s [B, ...], flattened after the batch; computed in float32.
      teacher: t [B, ...], without gradient.

    Returns:
      Scalar, float32.

    >>> x = jnp.array([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]])
    >>> float(rkd_distance(2 * x[:, ::-1] + 1, x)) < 1e-12  # rotation, scale and shift
    True
    """

    def distances(x: jax.Array) -> jax.Array:
        d = norm(x[:, None] - x[None])[..., 0]
        apart = d > 0
        mean = d.sum() / jnp.maximum(apart.sum(), 1)
        return d / jnp.where(mean > 0, mean, 1.0)

    s, t = _rows(student, teacher)
    return smooth_l1(distances(s), distances(t), 1.0).mean()


def rkd_angle(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Relational distillation of the angles of all triples of samples.

    L = mean_ijk h(cos_ijk - cos'_ijk), cos_ijk of s_j - s_i and s_k - s_i, 0 where one of them is
    zero, h of `smooth_l1` with beta 1. Park et al., 2019, "Relational knowledge distillation",
    arXiv 1904.05068. Two equal samples give no gradient through their difference; the official
    code gives one of 1e10.

    Args:
      student: s [B, ...], flattened after the batch; computed in float32.
      teacher: t [B, ...], without gradient.

    Returns:
      Scalar, float32.

    >>> x = jnp.array([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]])
    >>> float(rkd_angle(2 * x[:, ::-1] + 1, x)) < 1e-12  # rotation, scale and shift
    True
    """

    def cosines(x: jax.Array) -> jax.Array:
        direction = _directions(x[:, None] - x[None])
        return jnp.einsum("ijd,ikd->ijk", direction, direction, precision=HIGHEST)

    s, t = _rows(student, teacher)
    return smooth_l1(cosines(s), cosines(t), 1.0).mean()


def correlation_congruence(
    student: jax.Array,
    teacher: jax.Array,
    *,
    kernel: str = "gaussian",
    gamma: float = 0.4,
    order: int = 2,
) -> jax.Array:
    """Mean squared distance of the kernel matrices of two batches of unit vectors.

    L = mean_ij (k(s_i . s_j) - k(t_i . t_j))^2, k(g) = g or, "gaussian", the Taylor series
    exp(-2 γ) sum_{p <= P} (2 γ g)^p / p! of exp(-γ |x - y|^2). Peng et al., 2019, "Correlation
    congruence for knowledge distillation", arXiv 1904.01802. torchdistill has the norm of the
    difference over B^2, not its square.

    Args:
      student: s [B, D], rows of unit length; computed in float32.
      teacher: t [B, D'], rows of unit length, without gradient.
      kernel: "bilinear" or "gaussian".
      gamma: γ, of the Gaussian kernel.
      order: P, of its series.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: an unknown kernel.

    >>> float(correlation_congruence(jnp.eye(2), jnp.ones((2, 1)), kernel="bilinear"))
    0.5
    """
    check_choice("kernel", kernel, KERNELS)
    chex.assert_rank((student, teacher), 2)

    def matrix(x: jax.Array) -> jax.Array:
        gram = _gram(x)
        if kernel == "bilinear":
            return gram
        term = jnp.ones_like(gram)
        series = term
        for p in range(1, order + 1):
            term = term * (2 * gamma / p) * gram
            series = series + term
        return jnp.exp(-2.0 * gamma) * series

    s, t = _rows(student, teacher)
    return jnp.square(matrix(s) - matrix(t)).mean()


def pkt(student: jax.Array, teacher: jax.Array, *, epsilon: float = 1e-7) -> jax.Array:
    """Divergence of the probabilities that a sample picks another as its neighbour.

    L = mean_ij P_ij log((P_ij + ε) / (Q_ij + ε)), with rows of Q the similarities (1 + cos) / 2 of
    the student's samples divided by their sum, P the teacher's, and cosines over |x| + ε.
    Passalis, Tefas, 2018, "Learning deep representations with probabilistic knowledge transfer",
    arXiv 1803.10837. A sample of zeros has the cosine 0; the official code gives it nan gradients.

    Args:
      student: s [B, D]; computed in float32.
      teacher: t [B, D'], without gradient.
      epsilon: ε.

    Returns:
      Scalar, float32.

    >>> x = jnp.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    >>> abs(float(pkt(3 * x, x))) < 1e-7
    True
    """
    chex.assert_rank((student, teacher), 2)

    def probabilities(x: jax.Array) -> jax.Array:
        similarity = (1 + _gram(x / (norm(x) + epsilon))) / 2
        return similarity / similarity.sum(1, keepdims=True)

    s, t = _rows(student, teacher)
    q, p = probabilities(s), probabilities(t)
    return (p * (jnp.log(p + epsilon) - jnp.log(q + epsilon))).mean()


def crd(
    student: jax.Array,
    teacher: jax.Array,
    memory_student: jax.Array,
    memory_teacher: jax.Array,
    index: jax.Array,
    *,
    temperature: float = 0.07,
    momentum: float = 0.5,
    num_data: int,
    normalizer_student: float | jax.Array,
    normalizer_teacher: float | jax.Array,
) -> Contrasted:
    """Contrastive distillation: tell a sample's own row of the other network's memory from noise.

    L = sum over both directions of mean_n [-log P_0 / (P_0 + c + ε) - sum_{j > 0} log c / (P_j + c
    + ε)], P_j = exp(cos(s_n, m_j) / T) / Z with m_j row index[n, j] of the teacher's memory and Z
    `normalizer_student`, and the other way round; c = K / num_data, ε = 1e-7. Then the own rows
    become unit(momentum m + (1 - momentum) s). Tian, Krishnan, Isola, 2020, "Contrastive
    representation distillation", arXiv 1910.10699. Both embeddings have a gradient, the memories
    none. Its first step sets Z to the mean of exp(cos / T) times the rows of the memory, for good.

    Args:
      student: s [B, D], the embedding of the student's feature; computed in float32.
      teacher: [B, D], that of the teacher's, whose linear layer learns.
      memory_student, memory_teacher: [N, D], rows of unit length.
      index: integers [B, K + 1], rows of the memories, the sample's own first.
      temperature: T.
      momentum: of the memories.
      num_data: how many samples there are.
      normalizer_student, normalizer_teacher: Z of either direction.

    Returns:
      (loss, new student memory, new teacher memory).

    >>> x, memory, index = jnp.ones((1, 1)), jnp.ones((3, 1)), jnp.array([[0, 1]])
    >>> z = float(jnp.exp(1.0))
    >>> loss, *_ = crd(x, x, memory, memory, index, temperature=1.0, num_data=1,
    ...                normalizer_student=z, normalizer_teacher=z)
    >>> round(float(loss), 4)  # each P is 1, as is c: 4 log 2
    2.7726
    """
    chex.assert_rank((student, teacher, memory_student, memory_teacher, index), 2)
    chex.assert_equal_shape((student, teacher))
    chex.assert_equal_shape((memory_student, memory_teacher))
    chex.assert_equal_shape_suffix((student, memory_student), 1)
    chex.assert_equal_shape_prefix((student, index), 1)
    s, t = unit(student), unit(teacher)
    of_student, of_teacher = (
        jax.lax.stop_gradient(jnp.asarray(m, jnp.float32)) for m in (memory_student, memory_teacher)
    )
    noise = (index.shape[1] - 1) / num_data

    def contrast(x: jax.Array, memory: jax.Array, normalizer: float | jax.Array) -> jax.Array:
        cosines = jnp.einsum("bd,bkd->bk", x, memory[index], precision=HIGHEST)
        p = jnp.exp(cosines / temperature) / normalizer
        # Each of the many terms is near 0: as a difference of logarithms it would be rounding.
        found = jnp.log1p((noise + 1e-7) / p[:, 0])
        return (found + jnp.log1p((p[:, 1:] + 1e-7) / noise).sum(-1)).mean()

    def moved(memory: jax.Array, x: jax.Array) -> jax.Array:
        own = index[:, 0]
        rows = momentum * memory[own] + (1 - momentum) * jax.lax.stop_gradient(x)
        return memory.at[own].set(unit(rows))

    loss = contrast(s, of_teacher, normalizer_student) + contrast(t, of_student, normalizer_teacher)
    return Contrasted(loss, moved(of_student, s), moved(of_teacher, t))


def _rows(student: jax.Array, teacher: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both as [B, D] in float32, the teacher's without gradient."""
    chex.assert_equal_shape_prefix((student, teacher), 1)
    flat = lambda x: x.reshape(x.shape[0], -1).astype(jnp.float32)
    return flat(student), flat(jax.lax.stop_gradient(teacher))


def _directions(x: jax.Array) -> jax.Array:
    """x / |x| over the last axis; a vector of zeros stays, without gradient."""
    length = norm(x)
    away = length > 0
    return jnp.where(away, x / jnp.where(away, length, 1.0), 0.0)


def _gram(x: jax.Array) -> jax.Array:
    return jnp.matmul(x, x.T, precision=HIGHEST)
