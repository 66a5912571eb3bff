"""Terms in which a student predicts a teacher's distribution over prototypes, and KoLeo.

Where published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| `dino`: mean over all pairs of different views | the sum; or local and global pairs apart |
| `ibot`: mean over an image's masked patches, then over all images | mean over all masked patches |
| `sinkhorn_dino`: the rows of all views balanced together | `swav` balances each view apart |
| `sinkhorn_ibot`: the masked patches of the global batch | those of one device |
| `msn`: the entropy term is log K - H, at least 0 | -H, log K less; the same gradient |
| `koleo`: mean over samples, for each view | the sum over two views, twice as much |
"""

import chex
import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError
from jaxssl.losses.clustering import cross_views, sinkhorn
from jaxssl.losses.vectors import unit


def dino(
    student: jax.Array,
    teacher: jax.Array,
    *,
    center: jax.Array,
    student_temperature: float | jax.Array = 0.1,
    teacher_temperature: float | jax.Array = 0.04,
) -> jax.Array:
    """Cross-entropy of every student view with the centred, sharpened teacher of another view.

    L = mean_{a < Vt, v != a} mean_n -p_a[n] . log softmax(s_v[n] / t_s), with
    p_a = softmax((g_a - c) / t_t) without gradient. Caron et al., 2021, "Emerging properties in
    self-supervised vision transformers" (DINO), arXiv 2104.14294. The memory "center" gives c.

    Args:
      student: s [Vs, B, K]; computed in float32.
      teacher: g [Vt, B, K], of the first Vt of the student's views.
      center: c [K].
      student_temperature, teacher_temperature: t_s and t_t.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: more teacher than student views, or no pair of two different views.

    >>> s, g = jnp.ones((3, 2, 4)), jnp.ones((2, 2, 4))
    >>> round(float(dino(s, g, center=jnp.zeros(4))), 4)  # log 4
    1.3863
    """
    chex.assert_rank((student, teacher, center), (3, 3, 1))
    _check_views(student, teacher)
    targets = _sharpened(teacher, center, teacher_temperature)
    return cross_views(targets, _log_softmax(student, student_temperature))


def ibot(
    student: jax.Array,
    teacher: jax.Array,
    mask: jax.Array,
    *,
    center: jax.Array,
    student_temperature: float | jax.Array = 0.1,
    teacher_temperature: float | jax.Array = 0.04,
) -> jax.Array:
    """Cross-entropy of masked patches with the teacher's distribution at the same patch.

    L = mean_n sum_i m[n, i] CE(p[n, i], softmax(s[n, i] / t_s)) / max(1, sum_i m[n, i]), with
    p = softmax((g - c) / t_t) without gradient. An image without masked patches adds 0 and counts.
    Zhou et al., 2022, "iBOT: image BERT pre-training with online tokenizer", arXiv 2111.07832.

    Args:
      student: s [B, T, K], of the masked view; computed in float32.
      teacher: g [B, T, K], of the same view without mask.
      mask: m [B, T], true where the student's patch was masked.
      center: c [K].
      student_temperature, teacher_temperature: t_s and t_t.

    Returns:
      Scalar, float32.

    >>> scores, mask = jnp.ones((2, 3, 4)), jnp.array([[True, True, False], [False] * 3])
    >>> round(float(ibot(scores, scores, mask, center=jnp.zeros(4))), 4)  # half of log 4
    0.6931
    """
    chex.assert_rank((student, teacher, mask, center), (3, 3, 2, 1))
    chex.assert_equal_shape((student, teacher))
    chex.assert_shape(mask, student.shape[:2])
    targets = _sharpened(teacher, center, teacher_temperature)
    return _of_masked(targets, _log_softmax(student, student_temperature), mask)


def sinkhorn_dino(
    student: jax.Array,
    teacher: jax.Array,
    *,
    student_temperature: float | jax.Array = 0.1,
    teacher_temperature: float | jax.Array = 0.04,
    iterations: int = 3,
) -> jax.Array:
    """Cross-entropy of every student view with the teacher's balanced codes of another view.

    L = mean_{a < Vt, v != a} mean_n -q_a[n] . log softmax(s_v[n] / t_s), with q = sinkhorn(g / t_t)
    of the rows of all teacher views together, without gradient: `dino` without a center. Oquab et
    al., 2024, "DINOv2: learning robust visual features without supervision", arXiv 2304.07193.

    Args:
      student: s [Vs, B, K]; computed in float32.
      teacher: g [Vt, B, K], of the first Vt of the student's views.
      student_temperature, teacher_temperature: t_s and t_t.
      iterations: of `sinkhorn`.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: more teacher than student views, no pair of two different views, no iteration.

    >>> s, g = jnp.ones((3, 2, 4)), jnp.ones((2, 2, 4))
    >>> round(float(sinkhorn_dino(s, g)), 4)  # log 4
    1.3863
    """
    chex.assert_rank((student, teacher), 3)
    _check_views(student, teacher)
    every = jnp.ones(teacher.shape[:2], bool)
    targets = _balanced(teacher, every, teacher_temperature, iterations)
    return cross_views(targets, _log_softmax(student, student_temperature))


def sinkhorn_ibot(
    student: jax.Array,
    teacher: jax.Array,
    mask: jax.Array,
    *,
    student_temperature: float | jax.Array = 0.1,
    teacher_temperature: float | jax.Array = 0.04,
    iterations: int = 3,
) -> jax.Array:
    """Cross-entropy of masked patches with the teacher's balanced codes at the same patch.

    L = mean_n sum_i m[n, i] CE(q[n, i], softmax(s[n, i] / t_s)) / max(1, sum_i m[n, i]), with
    q = sinkhorn(g / t_t) of all masked patches of the global batch together, without gradient;
    patches that are not masked take no part in it. Of a stack of views, all images of all views
    are one batch, and the masked patches of all views are balanced together. Oquab et al., 2024,
    "DINOv2: learning robust visual features without supervision", arXiv 2304.07193.

    Args:
      student: s [B, T, K] or [V, B, T, K], of the masked views; computed in float32.
      teacher: g, of the same shape, of the same views without mask.
      mask: m [B, T] or [V, B, T], true where the student's patch was masked.
      student_temperature, teacher_temperature: t_s and t_t.
      iterations: of `sinkhorn`.

    Returns:
      Scalar, float32; 0 where nothing is masked.

    Raises:
      ConfigError: no iteration.

    >>> scores, mask = jnp.ones((2, 3, 4)), jnp.array([[True, True, False], [False] * 3])
    >>> round(float(sinkhorn_ibot(scores, scores, mask)), 4)  # half of log 4
    0.6931
    """
    chex.assert_rank((student, teacher, mask), ({3, 4}, {3, 4}, {2, 3}))
    chex.assert_equal_shape((student, teacher))
    chex.assert_shape(mask, student.shape[:-1])
    targets = _balanced(teacher, mask, teacher_temperature, iterations)
    return _of_masked(targets, _log_softmax(student, student_temperature), mask)


def msn(
    anchors: jax.Array,
    targets: jax.Array,
    prototypes: jax.Array,
    *,
    temperature: float | jax.Array = 0.1,
    sharpen_temperature: float | jax.Array = 0.25,
    iterations: int = 3,
    entropy_weight: float | jax.Array = 1.0,
) -> jax.Array:
    """Cross-entropy of masked anchors with a teacher's sharpened prototypes, and an entropy term.

    p(z) = softmax(cos(z, q) / t); L = mean_{v, n} CE(p+[n], p(z_v[n])) + w (log K - H(p_bar)), with
    p_bar the mean of p over all anchors, and p+ the target's p raised to 1 / T and renormalised,
    then balanced by `iterations` of `sinkhorn` where there are any; no gradient through p+. Assran
    et al., 2022, "Masked siamese networks for label-efficient learning", arXiv 2204.07141.

    Args:
      anchors: [V, B, P] or, view after view, [V B, P]; computed in float32.
      targets: [1, B, P] or [B, P].
      prototypes: q [K, P]; learned through the anchors.
      temperature: t.
      sharpen_temperature: T.
      iterations: of `sinkhorn` on the targets, 0 for none.
      entropy_weight: w.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: several target views, or anchors that are not a multiple of the targets.

    >>> z, q = jnp.ones((2, 3, 4)), jnp.eye(4)
    >>> value = msn(z, z[:1], q, iterations=0)  # every prototype alike: log 4, and no entropy lost
    >>> round(float(value), 4)
    1.3863
    """
    chex.assert_rank((anchors, targets, prototypes), ({2, 3}, {2, 3}, 2))
    chex.assert_equal_rank((anchors, targets))
    if targets.ndim == 3 and len(targets) != 1:
        raise ConfigError(f"targets: found {len(targets)} views, expected 1")
    targets = targets.reshape(targets.shape[-2:])
    if anchors.size % targets.size:
        raise ConfigError(
            f"anchors: found {anchors.shape[-2]} rows, expected a multiple of the "
            f"{len(targets)} targets"
        )
    anchors = anchors.reshape(-1, *targets.shape)

    def log_p(z: jax.Array, q: jax.Array) -> jax.Array:
        z, q = unit(z), unit(q)
        cosines = jnp.einsum("...p,kp->...k", z, q, precision=jax.lax.Precision.HIGHEST)
        return _log_softmax(cosines, temperature)

    sharp = jax.lax.stop_gradient(
        jax.nn.log_softmax(log_p(targets, prototypes) / sharpen_temperature)
    )
    wanted = jnp.exp(sharp)
    if iterations:
        wanted = sinkhorn(sharp, epsilon=1.0, iterations=iterations)
    log_anchors = log_p(anchors, prototypes)
    prediction = -(wanted * log_anchors).sum(-1).mean()
    log_mean = jax.nn.logsumexp(log_anchors, axis=(0, 1)) - jnp.log(
        float(anchors.shape[0] * anchors.shape[1])
    )
    lost_entropy = jnp.log(float(len(prototypes))) + (jnp.exp(log_mean) * log_mean).sum()
    return prediction + entropy_weight * lost_entropy


def koleo(z: jax.Array) -> jax.Array:
    """Minus the log distance to the nearest other sample: spreads embeddings over the sphere.

    L = -mean_n log(min_{m != n} |u_n - u_m| + 1e-8) with u = z / |z|. Sablayrolles et al., 2019,
    "Spreading vectors for similarity search", arXiv 1806.03198; on unit vectors as in Oquab et al.,
    2024, "DINOv2", arXiv 2304.07193. The neighbour moves too: it is found without gradient, but the
    gradient of the distance reaches both. Two equal samples add 18.4 and no gradient.

    Args:
      z: [N, P]; computed in float32. Only its own N rows are neighbours, so one view at a time.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: a single sample.

    >>> round(float(koleo(jnp.array([[1.0, 0.0], [0.0, 2.0]]))), 4)  # -log sqrt 2
    -0.3466
    """
    chex.assert_rank(z, 2)
    if len(z) < 2:
        raise ConfigError(f"z: found {len(z)} sample, expected at least 2")
    u = unit(z)
    fixed = jax.lax.stop_gradient(u)
    cosines = jnp.einsum("np,mp->nm", fixed, fixed, precision=jax.lax.Precision.HIGHEST)
    # A sample's nearest neighbour is another sample, even where one equals it.
    nearest = jnp.argmax(jnp.where(jnp.eye(len(z), dtype=bool), -jnp.inf, cosines), axis=1)
    squares = jnp.square(u - u[nearest]).sum(-1)
    apart = squares > 0
    distance = jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1.0)), 0.0)
    return -jnp.log(distance + 1e-8).mean()


def _sharpened(teacher: jax.Array, center: jax.Array, temperature: float | jax.Array) -> jax.Array:
    """softmax((g - c) / t), without gradient."""
    teacher, center = jax.lax.stop_gradient((teacher, center))
    scores = teacher.astype(jnp.float32) - center.astype(jnp.float32)
    return jax.nn.softmax(scores / temperature)


def _log_softmax(scores: jax.Array, temperature: float | jax.Array) -> jax.Array:
    return jax.nn.log_softmax(scores.astype(jnp.float32) / temperature)


def _check_views(student: jax.Array, teacher: jax.Array) -> None:
    chex.assert_equal_shape_suffix((student, teacher), 2)
    if len(teacher) > len(student):
        raise ConfigError(
            f"teacher: found {len(teacher)} views, expected at most the student's {len(student)}"
        )
    if len(student) < 2:
        raise ConfigError("student: found 1 view, expected at least 2")


def _balanced(
    teacher: jax.Array, mask: jax.Array, temperature: float | jax.Array, iterations: int
) -> jax.Array:
    """`sinkhorn` of the rows of g [..., K] that a mask [...] keeps; other rows mean nothing.

    The count of rows, which is not static, falls out where the rows are scaled to 1 last.
    """
    if iterations < 1:
        raise ConfigError(f"iterations: found {iterations}, expected at least 1")
    kept = mask.astype(bool)[..., None]
    log_q = jax.lax.stop_gradient(teacher).astype(jnp.float32) / temperature
    log_q = jnp.where(kept, log_q, 0.0)
    rows = tuple(range(log_q.ndim - 1))
    for _ in range(iterations):
        columns = jax.nn.logsumexp(log_q, axis=rows, b=kept.astype(jnp.float32))
        # Where no row is kept a column sums to 0, whose logarithm would make every row nan.
        log_q = log_q - jnp.where(kept.any(), columns, 0.0)
        log_q = log_q - jax.nn.logsumexp(log_q, axis=-1, keepdims=True)
    return jnp.exp(log_q)


def _of_masked(targets: jax.Array, log_probabilities: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean over images of the mean cross-entropy [..., T] of an image's masked patches."""
    each = -(targets * log_probabilities).sum(-1)
    weights = mask.astype(jnp.float32)
    return ((weights * each).sum(-1) / jnp.maximum(weights.sum(-1), 1.0)).mean()
