"""Consistency of what a network says of a sample under views, noise or weights that differ.

Where published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| `mixmatch_consistency`, `mean_teacher`: the mean over samples and classes | the sum over classes |
| `uda_supervised`: masks by the label's probability, over those kept | the largest one, over B |
| `uda_consistency`: sharpened targets, the mask from the unsharpened, mean over B | not sharpened |
| `vat`: directions of unit length for each sample of any shape | USB: of images alone |
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_choice
from jaxssl.losses.classification import cross_entropies, divergences, log_probabilities
from jaxssl.losses.combine import masked_mean
from jaxssl.losses.pseudo_labels import PseudoLabelled
from jaxssl.losses.vectors import unit

SCHEDULES = ("linear", "exp", "log")


class Supervised(NamedTuple):
    """The loss, and which labelled samples still teach, [B] in 0 ... 1."""

    loss: jax.Array
    mask: jax.Array


def mixmatch_targets(logits: jax.Array, *, temperature: float = 0.5) -> jax.Array:
    """The mean of what is said of several views, sharpened.

    q = norm(p^(1 / T)), p = mean_v softmax(l_v), norm divides by the sum. Berthelot et al., 2019,
    "MixMatch: a holistic approach to semi-supervised learning", arXiv 1905.02249.

    Args:
      logits: l [V, B, K]; computed in float32, without gradient.
      temperature: T; 1 leaves the mean as it is.

    Returns:
      float32 [B, K], rows of sum 1.

    >>> [round(float(x), 4) for x in mixmatch_targets(jnp.log(jnp.array([[[0.6, 0.4]]])))[0]]
    [0.6923, 0.3077]
    """
    chex.assert_rank(logits, 3)
    log_p = log_probabilities(jax.lax.stop_gradient(logits))
    # Of logarithms: a small probability to a large power is 0 before it is divided.
    return jax.nn.softmax(jax.nn.logsumexp(log_p, axis=0) / temperature)


def mixmatch_consistency(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean squared distance of probabilities from targets.

    L = mean_{n, k} (softmax(l_n)[k] - q_n[k])^2. Berthelot et al., 2019, "MixMatch: a holistic
    approach to semi-supervised learning", arXiv 1905.02249, with a weight of 100 for this mean.

    Args:
      logits: l [B, K]; computed in float32.
      targets: q [B, K], probabilities, without gradient.

    Returns:
      Scalar, float32, from 0 to 2 / K.

    >>> float(mixmatch_consistency(jnp.zeros((1, 2)), jnp.array([[1.0, 0.0]])))
    0.25
    """
    chex.assert_rank((logits, targets), 2)
    chex.assert_equal_shape((logits, targets))
    targets = jax.lax.stop_gradient(jnp.asarray(targets, jnp.float32))
    return jnp.square(jax.nn.softmax(jnp.asarray(logits, jnp.float32)) - targets).mean()


def mean_teacher(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Mean squared distance of a student's probabilities from its averaged self's.

    L = mean_{n, k} (softmax(s_n)[k] - softmax(t_n)[k])^2. Tarvainen, Valpola, 2017, "Mean teachers
    are better role models", arXiv 1703.01780. A later USB hands over the teacher's logits as the
    student's: that loss is always 0.

    Args:
      student: logits s [B, K]; computed in float32.
      teacher: logits t [B, K], without gradient.

    Returns:
      Scalar, float32, from 0 to 2 / K.

    >>> float(mean_teacher(jnp.zeros((1, 2)), jnp.array([[200.0, 0.0]])))
    0.25
    """
    return mixmatch_consistency(student, jax.nn.softmax(jnp.asarray(teacher, jnp.float32)))


def uda_supervised(logits: jax.Array, labels: jax.Array, *, threshold: float) -> Supervised:
    """Cross-entropy of labelled samples that the network does not know too well yet.

    L = sum_n m_n CE_n / max(1, sum_n m_n), m_n = [p_n[y_n] <= η], p = softmax(l). Xie et al., 2020,
    "Unsupervised data augmentation for consistency training" (UDA), arXiv 1904.12848: training
    signal annealing. `tsa_threshold` gives η.

    Args:
      logits: l [B, K]; computed in float32.
      labels: y, integers [B].
      threshold: η, of the probability of the label.

    Returns:
      (loss, mask m [B]).

    >>> loss, mask = uda_supervised(jnp.zeros((2, 2)), jnp.array([0, 1]), threshold=0.5)
    >>> round(float(loss), 4), mask.tolist()
    (0.6931, [1.0, 1.0])
    """
    chex.assert_rank((logits, labels), (2, 1))
    chex.assert_equal_shape_prefix((logits, labels), 1)
    each = cross_entropies(logits, labels)
    mask = (jnp.exp(-jax.lax.stop_gradient(each)) <= threshold).astype(jnp.float32)
    return Supervised(masked_mean(each, mask), mask)


def tsa_threshold(progress: jax.Array, *, schedule: str = "linear", num_classes: int) -> jax.Array:
    """How well a label may be known before it no longer teaches: from 1 / K to 1.

    η = s (1 - 1 / K) + 1 / K with s = t, "linear", e^(5 (t - 1)), "exp", or 1 - e^(-5 t), "log".
    Xie et al., 2020, "Unsupervised data augmentation for consistency training", arXiv 1904.12848.

    Args:
      progress: t = step / steps, any shape, from 0 to 1.
      schedule: one of the three: "exp" holds back longest, for the fewest labels.
      num_classes: K.

    Returns:
      Of the same shape, float32.

    Raises:
      ConfigError: an unknown schedule.

    >>> round(float(tsa_threshold(jnp.array(0.5), num_classes=10)), 4)
    0.55
    """
    check_choice("schedule", schedule, SCHEDULES)
    t = jnp.asarray(progress, jnp.float32)
    share = {
        "linear": lambda: t,
        "exp": lambda: jnp.exp(5 * (t - 1)),
        "log": lambda: -jnp.expm1(-5 * t),
    }[schedule]()
    return share * (1 - 1 / num_classes) + 1 / num_classes


def uda_consistency(
    student: jax.Array, teacher: jax.Array, *, temperature: float = 0.4, threshold: float = 0.8
) -> PseudoLabelled:
    """Divergence of a strong view from the sharpened probabilities of a weak one that is sure.

    L = (1 / B) sum_n m_n KL(softmax(t_n / T) || softmax(s_n)), m_n = [max softmax(t_n) > τ]. Xie et
    al., 2020, "Unsupervised data augmentation for consistency training" (UDA), arXiv 1904.12848.
    USB never applies T to the targets.

    Args:
      student: logits s [B, K], of the strong view; computed in float32.
      teacher: logits t [B, K], of the weak view, without gradient.
      temperature: T.
      threshold: τ.

    Returns:
      (loss, mask m [B]).

    >>> sure = jnp.array([[200.0, 0.0]])
    >>> loss, mask = uda_consistency(jnp.zeros((1, 2)), sure)
    >>> round(float(loss), 4), mask.tolist()
    (0.6931, [1.0])
    """
    chex.assert_rank((student, teacher), 2)
    chex.assert_equal_shape((student, teacher))
    teacher = jax.lax.stop_gradient(teacher)
    mask = (jnp.exp(log_probabilities(teacher)).max(-1) > threshold).astype(jnp.float32)
    each = divergences(log_probabilities(teacher, temperature), log_probabilities(student))
    return PseudoLabelled((mask * each).mean(), mask)


def vat(
    apply: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    direction: jax.Array,
    *,
    xi: float = 1e-2,
    epsilon: float = 6.0,
    iterations: int = 1,
) -> jax.Array:
    """Virtual adversarial training: what a network says against the small change it minds most.

    L = mean_n KL(softmax f(x_n) || softmax f(x_n + ε d_n)), where d starts as a random direction of
    unit length and is `iterations` times replaced by the direction of the gradient of
    KL(softmax f(x) || softmax f(x + ξ d)) by d. Miyato et al., 2018, "Virtual adversarial training:
    a regularization method for supervised and semi-supervised learning", arXiv 1704.03976. No
    gradient through the first term and d; a ξ far below 1e-3 drowns in float32.

    Args:
      apply: f, samples [B, ...] to logits [B, K]; the same function of x each time it is called.
      x: [B, ...]; computed in float32.
      direction: normal noise of the shape of x.
      xi: ξ, where the gradient is taken.
      epsilon: ε, the length of the change.
      iterations: of the power method.

    Returns:
      Scalar, float32, at least 0.

    >>> w = jnp.array([[1.0, -1.0], [0.0, 0.0]])
    >>> d = jnp.array([[0.3, 1.0]])
    >>> round(float(vat(lambda x: x @ w, jnp.zeros((1, 2)), d, epsilon=1.0)), 3)  # along axis 0
    0.434
    """
    chex.assert_equal_shape((x, direction))
    x = jnp.asarray(x, jnp.float32)
    clean = log_probabilities(jax.lax.stop_gradient(apply(x)))

    def moved(x: jax.Array, change: jax.Array) -> jax.Array:
        return divergences(clean, log_probabilities(apply(x + change))).mean()

    fixed, d = jax.lax.stop_gradient(x), _unit_samples(jax.lax.stop_gradient(direction))
    for _ in range(iterations):
        d = _unit_samples(jax.grad(lambda d: moved(fixed, xi * d))(d))
    return moved(x, epsilon * jax.lax.stop_gradient(d))


def _unit_samples(d: jax.Array) -> jax.Array:
    """Each sample as a vector of unit length, however small it was; zeros stay."""
    rows = jnp.asarray(d, jnp.float32).reshape(d.shape[0], -1)
    largest = jnp.abs(rows).max(-1, keepdims=True)
    return unit(rows / jnp.where(largest > 0, largest, 1.0)).reshape(d.shape)
