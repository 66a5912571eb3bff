"""Losses of unlabelled samples whose targets are what a network makes of another view of them.

Each is a cross-entropy with the most probable class of a weak view, weighted by how sure that view
is, and a mean over all samples, not over those that count. They differ in who is sure; what they
remember of earlier batches comes in and goes out. Where published forms differ, these follow the
first column:

| here | elsewhere |
|---|---|
| `flexmatch`: thresholds from before the batch | the others: from after it |
| `freematch`: the mean of the confidences, or a quantile | USB: their 0.8 quantile |
| `softmatch` weighs probabilities as they are | after they were aligned to uniform classes |
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxssl.losses.classification import cross_entropies

MOST = 0.95
TINY = 1e-12


class PseudoLabelled(NamedTuple):
    """The loss, and which samples counted, [B] in 0 ... 1."""

    loss: jax.Array
    mask: jax.Array


class FlexMatched(NamedTuple):
    """The loss, the table after the batch, which samples counted, and the class status used."""

    loss: jax.Array
    selected: jax.Array
    mask: jax.Array
    status: jax.Array


class FreeMatched(NamedTuple):
    """The loss, which samples counted, and the state after the batch."""

    loss: jax.Array
    mask: jax.Array
    threshold: jax.Array
    class_mean: jax.Array
    histogram: jax.Array


class SoftMatched(NamedTuple):
    """The loss, how much each sample counted, and the state after the batch."""

    loss: jax.Array
    weights: jax.Array
    mean: jax.Array
    variance: jax.Array


def fixmatch(student: jax.Array, teacher: jax.Array, *, threshold: float) -> PseudoLabelled:
    """Cross-entropy of a strong view with the class of a weak view that is sure of it.

    L = (1 / B) sum_n [max_k p_n[k] >= t] (lse(s_n) - s_n[argmax_k p_n[k]]), p = softmax(teacher),
    which gets no gradient: the mean over all samples, not over those that count. Sohn et al., 2020,
    FixMatch: simplifying semi-supervised learning with consistency and confidence, arXiv
    2001.07685.

    Args:
      student: [B, K], logits of the strong view; computed in float32.
      teacher: [B, K], logits of the weak view.
      threshold: t, of the largest probability; above 1 no sample counts.

    Returns:
      (loss, mask [B]), float32.

    >>> sure, unsure = jnp.array([4.0, 0.0]), jnp.array([0.1, 0.0])
    >>> loss, mask = fixmatch(jnp.zeros((2, 2)), jnp.stack([sure, unsure]), threshold=0.95)
    >>> round(float(loss), 4), mask.tolist()  # log 2, of one of two samples
    (0.3466, [1.0, 0.0])
    """
    p, label, confidence = _pseudo(student, teacher)
    del p
    mask = (confidence >= threshold).astype(jnp.float32)
    return PseudoLabelled(_weighted(student, label, mask), mask)


def flexmatch(
    student: jax.Array,
    teacher: jax.Array,
    index: jax.Array,
    selected: jax.Array,
    *,
    threshold: float,
    warmup: bool = True,
) -> FlexMatched:
    """`fixmatch` with a lower threshold for classes that few samples were sure of so far.

    mask_n = [max p_n >= t b / (2 - b)] with b the status of the class c = argmax p_n: b_c = σ_c /
    max(max σ, samples never sure), σ_c the number of samples whose last sure label is c; without
    `warmup` the never sure do not enter. Then the samples with max p_n >= t write their label into
    the table. Zhang et al., 2021, "FlexMatch: boosting semi-supervised learning with curriculum
    pseudo labeling", arXiv 2110.08263.

    Args:
      student: [B, K], logits of the strong view; computed in float32.
      teacher: [B, K], logits of the weak view, without gradient.
      index: integers [B], the samples' rows in the table.
      selected: integers [N], the last sure label of every sample, -1 for none.
      threshold: t.
      warmup: whether samples that were never sure keep all thresholds low.

    Returns:
      (loss, new selected [N], mask [B], status b [K] that was used).

    >>> table = jnp.array([0, 0, 1, -1])
    >>> flexmatch(jnp.zeros((1, 2)), jnp.array([[0.0, 9.0]]), jnp.array([3]), table,
    ...           threshold=0.95).selected.tolist()
    [0, 0, 1, 1]
    """
    _, label, confidence = _pseudo(student, teacher)
    chex.assert_rank((index, selected), 1)
    chex.assert_equal_shape_prefix((student, index), 1)
    index, selected = jnp.asarray(index), jnp.asarray(selected)
    counts = jax.nn.one_hot(selected, student.shape[1]).sum(0)  # -1 is of no class
    most = counts.max()
    if warmup:
        most = jnp.maximum(most, (selected < 0).sum())
    status = counts / jnp.maximum(most, 1)
    own = status[label]
    mask = (confidence >= threshold * own / (2 - own)).astype(jnp.float32)
    rows = jnp.where(confidence >= threshold, label, selected[index]).astype(selected.dtype)
    loss = _weighted(student, label, mask)
    return FlexMatched(loss, selected.at[index].set(rows), mask, status)


def freematch(
    student: jax.Array,
    teacher: jax.Array,
    class_mean: jax.Array,
    histogram: jax.Array,
    threshold: jax.Array,
    *,
    momentum: float = 0.999,
    quantile: float | None = None,
    clip: bool = False,
) -> FreeMatched:
    """`fixmatch` with a threshold that follows the confidence, scaled class by class.

    t' = m t + (1 - m) mean_n max p_n, c' = m c + (1 - m) mean_n p_n, h' = m h + (1 - m) (share of
    each arg-max); mask_n = [max p_n >= t' c'_y / max c'], y = argmax p_n: the state of after the
    batch. Wang et al., 2023, "FreeMatch: self-adaptive thresholding for semi-supervised learning",
    arXiv 2205.07246. All of the state is 1 / K at the start.

    Args:
      student: [B, K], logits of the strong view; computed in float32.
      teacher: [B, K], logits of the weak view, without gradient.
      class_mean, histogram: c and h [K].
      threshold: t, a scalar.
      momentum: m.
      quantile: of the confidences, in place of their mean.
      clip: whether t' is kept within 0 ... 0.95.

    Returns:
      (loss, mask [B], t', c', h').

    >>> logits, even = jnp.log(jnp.array([[0.6, 0.4]])), jnp.full(2, 0.5)
    >>> state = freematch(logits, logits, even, even, jnp.array(0.5), momentum=0.9)
    >>> round(float(state.threshold), 4), state.mask.tolist()
    (0.51, [1.0])
    """
    p, label, confidence = _pseudo(student, teacher)
    classes = student.shape[1]
    chex.assert_shape((class_mean, histogram), (classes,))
    chex.assert_rank(threshold, 0)
    level = confidence.mean() if quantile is None else jnp.quantile(confidence, quantile)
    shares = jax.nn.one_hot(label, classes).mean(0)
    threshold, class_mean, histogram = (
        momentum * jax.lax.stop_gradient(jnp.asarray(old, jnp.float32)) + (1 - momentum) * new
        for old, new in ((threshold, level), (class_mean, p.mean(0)), (histogram, shares))
    )
    if clip:
        threshold = jnp.clip(threshold, 0.0, MOST)
    own = threshold * (class_mean / class_mean.max())[label]
    mask = (confidence >= own).astype(jnp.float32)
    return FreeMatched(_weighted(student, label, mask), mask, threshold, class_mean, histogram)


def freematch_fairness(
    student: jax.Array, class_mean: jax.Array, histogram: jax.Array, mask: jax.Array
) -> jax.Array:
    """Keeps what a network says of the classes, over how often it says it, from being even.

    L = sum_k a_k log(b_k + 1e-12), a = norm(c / h), b = norm(mean of q over kept samples / share of
    each arg-max among them), q = softmax(s), norm divides by the sum, and 1 / 0 is 0. Wang et al.,
    2023, "FreeMatch: self-adaptive thresholding for semi-supervised learning", arXiv 2205.07246;
    USB gives it the weight 0.001. To be minimised as it stands: only 1e-12 bounds it below.

    Args:
      student: s [B, K], logits of the strong view; computed in float32.
      class_mean, histogram: c and h [K] of `freematch`, without gradient.
      mask: [B], true where a sample counts.

    Returns:
      Scalar, float32; 0 where no sample counts.

    >>> logits, even = jnp.eye(2), jnp.full(2, 0.5)
    >>> round(float(freematch_fairness(logits, even, even, jnp.array([True, True]))), 4)
    -0.6931
    """
    chex.assert_rank((student, class_mean, histogram, mask), (2, 1, 1, 1))
    chex.assert_shape((class_mean, histogram), student.shape[1:])
    chex.assert_equal_shape_prefix((student, mask), 1)
    kept = jnp.asarray(mask).astype(bool).astype(jnp.float32)[:, None]
    number = jnp.maximum(kept.sum(), 1)
    q = jax.nn.softmax(jnp.asarray(student, jnp.float32))
    said = jax.nn.one_hot(q.argmax(-1), q.shape[1])
    mean, shares = (q * kept).sum(0) / number, (said * kept).sum(0) / number

    def modulated(mean: jax.Array, shares: jax.Array) -> jax.Array:
        ratio = jnp.where(shares > 0, mean / jnp.where(shares > 0, shares, 1.0), 0.0)
        total = ratio.sum()
        return ratio / jnp.where(total > 0, total, 1.0)

    fixed = jax.lax.stop_gradient((jnp.asarray(class_mean), jnp.asarray(histogram)))
    a, b = modulated(*fixed), modulated(mean, jax.lax.stop_gradient(shares))
    return jnp.where(kept.any(), (a * jnp.log(b + TINY)).sum(), 0.0)


def softmatch(
    student: jax.Array,
    teacher: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    *,
    momentum: float = 0.999,
    n_sigma: float = 2,
) -> SoftMatched:
    """Cross-entropy with the class of a weak view, weighted by a Gaussian of its confidence.

    w_n = exp(-min(max p_n - μ', 0)^2 n^2 / (2 v')), with the mean μ' = m μ + (1 - m) mean(max p)
    and likewise v' of the unbiased variance of the batch; 1 above the mean. Chen et al., 2023,
    "SoftMatch: addressing the quantity-quality trade-off in semi-supervised learning", arXiv
    2301.10921. At the start μ = 1 / K and v = 1.

    Args:
      student: [B, K], logits of the strong view; computed in float32.
      teacher: [B, K], logits of the weak view, without gradient; at least 2 samples.
      mean, variance: μ and v, scalars.
      momentum: m.
      n_sigma: n.

    Returns:
      (loss, weights w [B], μ', v').

    >>> logits = jnp.log(jnp.array([[0.8, 0.2], [0.9, 0.1]]))
    >>> state = softmatch(logits, logits, jnp.array(0.9), jnp.array(0.01), momentum=1.0)
    >>> [round(float(w), 4) for w in state.weights]
    [0.1353, 1.0]
    """
    _, label, confidence = _pseudo(student, teacher)
    chex.assert_rank((mean, variance), 0)
    mean, variance = (
        momentum * jax.lax.stop_gradient(jnp.asarray(old, jnp.float32)) + (1 - momentum) * new
        for old, new in ((mean, confidence.mean()), (variance, confidence.var(ddof=1)))
    )
    below = jnp.minimum(confidence - mean, 0.0)
    weights = jnp.exp(-jnp.square(below) * n_sigma**2 / (2 * variance))
    return SoftMatched(_weighted(student, label, weights), weights, mean, variance)


def _pseudo(student: jax.Array, teacher: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Probabilities [B, K] of the weak view, its classes [B] and how sure it is, no gradient."""
    chex.assert_rank((student, teacher), 2)
    chex.assert_equal_shape((student, teacher))
    p = jax.nn.softmax(jax.lax.stop_gradient(jnp.asarray(teacher, jnp.float32)))
    return p, p.argmax(-1), p.max(-1)


def _weighted(student: jax.Array, label: jax.Array, weights: jax.Array) -> jax.Array:
    return (weights * cross_entropies(student, label)).mean()
