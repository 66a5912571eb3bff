"""Losses on the second moments of a batch: features that agree across views and do not repeat.

Where published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| Barlow Twins: biased standard deviation | unbiased: C_ii = (B - 1) / B for equal views |
| Barlow Twins: the plain sum over P^2 entries | times 0.024 (early code) or 0.1 (CIFAR-10) |
| VICReg: the two variance terms are averaged | summed: twice the weight |
| VICReg: the two covariance terms are summed | averaged: half the weight |
| VICReg: mean over B and P in the invariance | the mean squared norm, P times as much |
| mixed samples: the plain sum of both distances | half of it, its weight warmed up (ImageNet) |
| mixed samples: zA^T zB in the second target | zB^T zB, a slip of the ImageNet script |
| mixed samples: embeddings as they come | unit vectors before standardising (small images) |
| TiCo: the moment is a constant, this batch's part too | with a gradient: up to twice |
| MMCR: embeddings as they come, unless `normalize` | unit vectors (the official code) |
| MMCR: local term of student and teacher | of the student alone, at weight 0 as published |
"""

import chex
import jax
import jax.numpy as jnp

from jaxssl.losses.vectors import unit

HIGHEST = jax.lax.Precision.HIGHEST


def barlow_twins(z1: jax.Array, z2: jax.Array, *, off_diagonal_weight: float = 5e-3) -> jax.Array:
    """Squared distance of the views' cross-correlation matrix from the identity.

    L = sum_i (1 - C_ii)^2 + w sum_{i != j} C_ij^2 with C = u1^T u2 / B, where each feature is
    standardised over the batch, u = (z - mean) / sqrt(var + 1e-5), var biased. Zbontar et
    al., 2021, "Barlow Twins: self-supervised learning via redundancy reduction", arXiv 2103.03230.
    Symmetric; no view is a target. The value grows with P.

    Args:
      z1, z2: [B, P], two views of each sample; computed in float32.
      off_diagonal_weight: w, 5.1e-3 in the paper.

    Returns:
      Scalar, float32. P for constant embeddings, with zero gradient.

    >>> z = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> round(float(barlow_twins(z, -z)), 3)
    8.0
    """
    _check_pair(z1, z2)
    c = _correlation(_standardise(z1), _standardise(z2))
    diagonal = jnp.diagonal(c)
    return jnp.square(1 - diagonal).sum() + off_diagonal_weight * _off_diagonal(c)


def mixed_cross_correlation(
    z1: jax.Array,
    z2: jax.Array,
    mixed: jax.Array,
    mix_weight: jax.Array | float,
    mix_order: jax.Array,
) -> jax.Array:
    """How far embeddings of mixed samples are from the mixed embeddings, by cross-correlations.

    With standardised u1, u2, um (as in `barlow_twins`), t = a u1 + (1 - a) u2[π]:
    L = |um^T u1 / B - t^T u1 / B|^2 + |um^T u2 / B - t^T u2 / B|^2 (squared Frobenius norms).
    Bandara, De Melo and Patel, 2023, "Guarding Barlow Twins against overfitting with mixed
    samples", arXiv 2312.02151, whose weight is λ_reg times Barlow Twins' off-diagonal weight. The
    gradient flows through the targets too. A term of its own, to add to any loss.

    Args:
      z1, z2: [B, P], two views of each sample; computed in float32.
      mixed: [B, P], embeddings of a x1[n] + (1 - a) x2[π(n)].
      mix_weight: a in [0, 1], one number for the batch.
      mix_order: π, [B] integers, a permutation.

    Returns:
      Scalar, float32, >= 0.

    >>> z = jax.random.normal(jax.random.key(0), (16, 4))
    >>> float(mixed_cross_correlation(z, -z, z, 1.0, jnp.arange(16)))
    0.0
    """
    _check_pair(z1, z2)
    chex.assert_equal_shape((z1, mixed))
    chex.assert_shape(mix_order, (z1.shape[0],))
    u1, u2, um = _standardise(z1), _standardise(z2), _standardise(mixed)
    target = mix_weight * u1 + (1 - mix_weight) * u2[mix_order]
    gaps = [_correlation(um, u) - _correlation(target, u) for u in (u1, u2)]
    return jnp.square(gaps[0]).sum() + jnp.square(gaps[1]).sum()


def vicreg(
    z1: jax.Array,
    z2: jax.Array,
    *,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
) -> jax.Array:
    """Views that agree, features that vary and do not correlate.

    L = i mean_{n, p} (z1 - z2)^2 + v (h(z1) + h(z2)) / 2 + c (k(z1) + k(z2)), with the hinge
    h(z) = mean_p max(0, 1 - sqrt(var_p + 1e-4)) and k(z) = (1 / P) sum_{p != q} Cov_pq^2; var and
    Cov are unbiased. Bardes, Ponce and LeCun, 2022, "VICReg: variance-invariance-covariance
    regularization for self-supervised learning", arXiv 2105.04906, as its official code has it.

    Args:
      z1, z2: [B, P], two views of each sample; computed in float32.
      invariance_weight, variance_weight, covariance_weight: i, v, c.

    Returns:
      Scalar, float32.

    >>> round(float(vicreg(jnp.ones((4, 2)), jnp.ones((4, 2)))), 4)
    24.75
    """
    _check_pair(z1, z2)
    z1, z2 = z1.astype(jnp.float32), z2.astype(jnp.float32)
    hinges, covariances = zip(*(_variance_covariance(z) for z in (z1, z2)))
    return (
        invariance_weight * jnp.square(z1 - z2).mean()
        + variance_weight * sum(hinges) / 2
        + covariance_weight * sum(covariances)
    )


def tico(
    z1: jax.Array,
    z2: jax.Array,
    covariance: jax.Array,
    *,
    beta: float = 0.9,
    rho: float = 8.0,
    stop_target: bool = False,
) -> jax.Array:
    """Views that agree, and a running second moment that spreads over all directions.

    L = 1 - mean_n u1.u2 + ρ mean_n u1^T C u1 with unit vectors u and
    C = β C_old + (1 - β) u1^T u1 / B. Zhu et al., 2022, "TiCo: transformation invariance and
    covariance contrast for self-supervised visual representation learning", arXiv 2206.10698. C is
    a constant, the part of this batch too; the gradient flows to z2 unless `stop_target`.

    Args:
      z1, z2: [B, P], two views of each sample; computed in float32.
      covariance: C_old, [P, P]; no gradient. The next is C: the memory `second_moment` of z1 with
        `momentum` β keeps it.
      beta: β in [0, 1].
      rho: ρ.
      stop_target: whether z2, of a network without teacher, gets no gradient.

    Returns:
      Scalar, float32.

    >>> z = jnp.eye(2)
    >>> float(tico(z, z, jnp.eye(2) / 2, beta=0.5, rho=8.0))
    4.0
    """
    _check_pair(z1, z2)
    width = z1.shape[1]
    chex.assert_shape(covariance, (width, width))
    u1, u2 = unit(z1), unit(jax.lax.stop_gradient(z2) if stop_target else z2)
    old = covariance.astype(jnp.float32)
    c = jax.lax.stop_gradient(beta * old + (1 - beta) * _correlation(u1, u1))
    contrast = (jnp.matmul(u1, c, precision=HIGHEST) * u1).sum(1).mean()
    return 1 - (u1 * u2).sum(1).mean() + rho * contrast


def mmcr(
    online: jax.Array, target: jax.Array, *, local_weight: float = 0.0, normalize: bool = False
) -> jax.Array:
    """The extent of the samples' centroids, as a nuclear norm, and of the views of each sample.

    L = -|C|_* + w mean_n |U_n|_*, where U_n [2V, P] holds the embeddings of sample n, online and
    target, and C [B, P] the means of U_n; |.|_* sums the singular values. Yerxa et al., 2023,
    "Learning efficient coding of natural images with maximum manifold capacity
    representations", arXiv 2303.03307. Given `online` twice, C is that of the form without a slow
    copy of the network, and |U_n|_* counts sqrt(2) times.

    Args:
      online, target: [B, V, P]; computed in float32. Gradient flows to both.
      local_weight: w; 0, as published for ImageNet, leaves the B small decompositions out.
      normalize: make unit vectors of the embeddings first, as published. Without, they must come
        with a bounded norm: the loss falls without end as they grow.

    Returns:
      Scalar, float32; for unit vectors at least -B for B <= P.

    >>> z = 5 * jnp.eye(3)[:, None]
    >>> round(float(mmcr(z, z, normalize=True)), 4)
    -3.0
    """
    chex.assert_rank((online, target), 3)
    chex.assert_equal_shape((online, target))
    both = jnp.concatenate([online, target], axis=1).astype(jnp.float32)
    if normalize:
        both = unit(both)
    value = -_nuclear_norm(both.mean(1))
    if isinstance(local_weight, int | float) and local_weight == 0:
        return value
    return value + local_weight * _nuclear_norm(both).mean()


def squared_distance(z1: jax.Array, z2: jax.Array) -> jax.Array:
    """Mean squared distance of two views: L = mean_n |z1[n] - z2[n]|^2, summed over features.

    The invariance of T-REGS (Mordacq et al., 2025, "T-REGS: minimum spanning tree regularization
    for self-supervised learning", arXiv 2510.23484). VICReg's is a mean over features too: 1 / P of
    it. Symmetric, with gradient to both.

    Args:
      z1, z2: [B, P]; computed in float32.

    Returns:
      Scalar, float32.

    >>> float(squared_distance(jnp.ones((4, 2)), jnp.zeros((4, 2))))
    2.0
    """
    _check_pair(z1, z2)
    return jnp.square(z1.astype(jnp.float32) - z2.astype(jnp.float32)).sum(1).mean()


def _check_pair(z1: jax.Array, z2: jax.Array) -> None:
    chex.assert_rank((z1, z2), 2)
    chex.assert_equal_shape((z1, z2))


def _standardise(z: jax.Array) -> jax.Array:
    """Batch normalisation without scale and bias."""
    z = z.astype(jnp.float32)
    centred = z - z.mean(0)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(0) + 1e-5)


def _correlation(u: jax.Array, v: jax.Array) -> jax.Array:
    """u^T v / B, [P, P]."""
    return jnp.matmul(u.T, v, precision=HIGHEST) / u.shape[0]


def _off_diagonal(c: jax.Array) -> jax.Array:
    """The sum of squares outside of the diagonal."""
    return jnp.square(jnp.where(jnp.eye(c.shape[0], dtype=bool), 0.0, c)).sum()


def _variance_covariance(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """VICReg's h(z) and k(z)."""
    batch, width = z.shape
    centred = z - z.mean(0)
    covariance = jnp.matmul(centred.T, centred, precision=HIGHEST) / (batch - 1)
    deviation = jnp.sqrt(jnp.square(centred).sum(0) / (batch - 1) + 1e-4)
    return jax.nn.relu(1 - deviation).mean(), _off_diagonal(covariance) / width


def _nuclear_norm(x: jax.Array) -> jax.Array:
    """The sum of the singular values of [..., M, P]."""
    with jax.default_matmul_precision("highest"):
        return jnp.linalg.svd(x, compute_uv=False).sum(-1)
