"""Cross-entropies of independent yes-or-no answers that count less what is already known.

Where published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| `sigmoid_focal`: p_t = p t + (1 - p) (1 - t) of soft targets | exp(-BCE) |
| `sigmoid_focal`, `quality_focal`: the mean over all entries | the sum, over the number of boxes |
| `gaussian_focal`: over the number of peaks | over all entries; p within 1e-4 of 0 and 1 |

The factors are powers of probabilities taken from their logarithms: exact, and finite in their
gradient, where 1 - p rounds to 0.
"""

import chex
import jax
import jax.numpy as jnp


def sigmoid_focal(
    logits: jax.Array, targets: jax.Array, *, alpha: float | None = 0.25, gamma: float = 2.0
) -> jax.Array:
    """Binary cross-entropy in which an answer counts less the better it is known.

    L = mean a (1 - p_t)^γ BCE(x, t), p_t = p t + (1 - p) (1 - t), a = α t + (1 - α) (1 - t),
    p = sigmoid(x). Lin et al., 2017, "Focal loss for dense object detection", arXiv 1708.02002.
    With γ = 0 and α = 1/2 it is half the plain cross-entropy.

    Args:
      logits: x, any shape; computed in float32.
      targets: t from 0 to 1, of a shape that broadcasts to that of `logits`; no gradient.
      alpha: α, of the answer 1; None for no balance.
      gamma: γ, 0 or more.

    Returns:
      Scalar, float32.

    >>> round(float(sigmoid_focal(jnp.zeros(4), jnp.array([1, 0, 1, 0]), alpha=0.5)), 6)
    0.086643
    """
    x, t = _answers(logits, targets)
    yes, no = jax.nn.log_sigmoid(x), jax.nn.log_sigmoid(-x)
    missed = jnp.exp(gamma * jnp.logaddexp(yes + jnp.log1p(-t), no + jnp.log(t)))
    balance = 1.0 if alpha is None else alpha * t + (1 - alpha) * (1 - t)
    return -(balance * missed * (t * yes + (1 - t) * no)).mean()


def quality_focal(logits: jax.Array, targets: jax.Array, *, beta: float = 2.0) -> jax.Array:
    """Binary cross-entropy with soft targets, weighted by how far off the answer is.

    L = mean |t - p|^β BCE(x, t), p = sigmoid(x). Li et al., 2020, "Generalized focal loss", arXiv
    2006.04388.

    Args:
      logits: x, any shape; computed in float32.
      targets: t from 0 to 1, e.g. a box's overlap; no gradient.
      beta: β, 1 or more.

    Returns:
      Scalar, float32.

    >>> round(float(quality_focal(jnp.zeros(2), jnp.array([0.5, 1.0]))), 4)  # log 2 / 8
    0.0866
    """
    x, t = _answers(logits, targets)
    entropy = -(t * jax.nn.log_sigmoid(x) + (1 - t) * jax.nn.log_sigmoid(-x))
    return (jnp.abs(t - jax.nn.sigmoid(x)) ** beta * entropy).mean()


def gaussian_focal(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Focal loss of maps with a Gaussian around each peak: near a peak, a yes is forgiven.

    L = -1 / max(1, peaks) sum ([t = 1] (1 - p)^2 log p + [t < 1] (1 - t)^4 p^2 log(1 - p)),
    p = sigmoid(x). Zhou, Wang, Krähenbühl, 2019, "Objects as points" (CenterNet), arXiv 1904.07850.

    Args:
      logits: x [B, H, W, K]; computed in float32.
      targets: t [B, H, W, K] from 0 to 1, exactly 1 at a peak; no gradient.

    Returns:
      Scalar, float32.

    >>> x = jnp.zeros((1, 1, 1, 1))
    >>> round(float(gaussian_focal(x, x + 1)), 4)  # log 2 / 4
    0.1733
    """
    chex.assert_rank((logits, targets), 4)
    chex.assert_equal_shape((logits, targets))
    x, t = _answers(logits, targets)
    yes, no, peak = jax.nn.log_sigmoid(x), jax.nn.log_sigmoid(-x), t == 1
    each = jnp.where(peak, jnp.exp(2 * no) * yes, (1 - t) ** 4 * jnp.exp(2 * yes) * no)
    return -each.sum() / jnp.maximum(peak.sum(), 1)


def _answers(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    x = jnp.asarray(logits, jnp.float32)
    t = jnp.broadcast_to(jnp.asarray(targets, jnp.float32), x.shape)
    return x, jax.lax.stop_gradient(t)
