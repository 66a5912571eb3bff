"""Where in a picture something is: heat maps, and descriptors that know how sure they are.

Where published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| `heatmap_cross_entropy`: the softmax over all places of a map | over a batch |
| `keypoint_mse`: the mean over all maps, hidden ones too | over the visible ones |
| `introspection`: the mean over all pairs, ignored ones too | positives and negatives apart |
"""

import chex
import jax
import jax.numpy as jnp

from jaxssl.losses.classification import log_probabilities
from jaxssl.losses.vectors import unit

HIGHEST = jax.lax.Precision.HIGHEST


def heatmap_cross_entropy(
    student: jax.Array,
    teacher: jax.Array,
    *,
    student_temperature: float = 0.06,
    teacher_temperature: float = 0.06,
) -> jax.Array:
    """Cross-entropy of where a student says something is with where a teacher does.

    L = -mean_n sum_u softmax_u(t_n / T_t)[u] log softmax_u(s_n / T_s)[u], over all places u of a
    map. Tong et al., 2025, "GeoDistill: geometry-guided self-distillation for weakly supervised
    cross-view localization", arXiv 2507.10935. Its least value is the teacher's entropy.

    Args:
      student: s [B, H, W], scores; computed in float32.
      teacher: t [B, H, W], without gradient.
      student_temperature, teacher_temperature: T_s and T_t.

    Returns:
      Scalar, float32.

    >>> s = jnp.log(jnp.array([[[3.0, 1.0]]]))
    >>> value = heatmap_cross_entropy(s, s, student_temperature=1.0, teacher_temperature=1.0)
    >>> round(float(value), 4)
    0.5623
    """
    chex.assert_rank((student, teacher), 3)
    chex.assert_equal_shape((student, teacher))
    flat = lambda x: x.reshape(x.shape[0], -1)
    p = jnp.exp(log_probabilities(flat(jax.lax.stop_gradient(teacher)), teacher_temperature))
    return -(p * log_probabilities(flat(student), student_temperature)).sum(-1).mean()


def keypoint_mse(prediction: jax.Array, target: jax.Array, weight: jax.Array) -> jax.Array:
    """Mean squared error of heat maps, each by the weight of its keypoint.

    L = mean_{b, u, k} w_bk (y_bk[u] - t_bk[u])^2, over all maps: hidden ones, of weight 0, count in
    the mean. Xiao, Wu, Wei, 2018, "Simple baselines for human pose estimation and tracking", arXiv
    1804.06208, in the form of mmpose.

    Args:
      prediction: y [B, H, W, K]; computed in float32.
      target: t [B, H, W, K], without gradient.
      weight: w [B, K], 1 where visible; without gradient.

    Returns:
      Scalar, float32.

    >>> y, w = jnp.ones((1, 2, 2, 2)), jnp.array([[1.0, 0.0]])
    >>> float(keypoint_mse(y, 0 * y, w))
    0.5
    """
    chex.assert_rank((prediction, target, weight), (4, 4, 2))
    chex.assert_equal_shape((prediction, target))
    chex.assert_shape(weight, (prediction.shape[0], prediction.shape[3]))
    t, w = (jax.lax.stop_gradient(jnp.asarray(x, jnp.float32)) for x in (target, weight))
    return (w[:, None, None] * jnp.square(jnp.asarray(prediction, jnp.float32) - t)).mean()


def introspection(
    features1: jax.Array,
    features2: jax.Array,
    sigma1: jax.Array,
    sigma2: jax.Array,
    labels: jax.Array,
) -> jax.Array:
    """Whether two places match, and how sure each is that its match will be right.

    L = mean over pairs of e / σ + log σ + log(1 - exp(-1 / σ)), the negative log density of an
    error e in 0 ... 1 that falls off with the scale σ = (σ_u + σ_u') / 2. With s = max(0, cos),
    e = 1 - s for a match, s for none, 0 where it does not matter. Novotny et al., 2018,
    "Self-supervised learning of geometrically stable features through probabilistic introspection",
    arXiv 1804.01552. Finite for small σ, where log(exp(1 / σ) - 1) overflows.

    Args:
      features1, features2: [B, N, C] and [B, M, C], made unit vectors; computed in float32.
      sigma1, sigma2: [B, N] and [B, M], positive.
      labels: integers [B, N, M]: 1 for a match, -1 for none, 0 for neither.

    Returns:
      Scalar, float32; 0 for σ without bounds.

    >>> f, one = jnp.ones((1, 1, 2)), jnp.ones((1, 1))
    >>> round(float(introspection(f, f, one, one, jnp.ones((1, 1, 1), int))), 4)
    -0.4587
    """
    chex.assert_rank((features1, features2, sigma1, sigma2, labels), (3, 3, 2, 2, 3))
    (batch, first, _), second = features1.shape, features2.shape[1]
    chex.assert_equal_shape_suffix((features1, features2), 1)
    chex.assert_shape((sigma1, sigma2), ((batch, first), (batch, second)))
    chex.assert_shape(labels, (batch, first, second))
    cosines = jnp.einsum("bnc,bmc->bnm", unit(features1), unit(features2), precision=HIGHEST)
    alike = jnp.maximum(cosines, 0.0)
    labels = jnp.asarray(labels)
    error = jnp.where(labels > 0, 1 - alike, jnp.where(labels < 0, alike, 0.0))
    sigma = (jnp.asarray(sigma1, jnp.float32)[:, :, None] + sigma2[:, None]) / 2
    return (error / sigma + jnp.log(sigma) + jnp.log(-jnp.expm1(-1 / sigma))).mean()
