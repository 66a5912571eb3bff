"""Learning from which of several answers is better: pairs, and groups with rewards.

Where published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| `dpo`: sums of log-probabilities over the answer | means: another β |
| `grpo_advantages`: the unbiased deviation | the biased: sqrt(M / (M - 1)) as much |
| `grpo` "sequence": the mean of each answer's mean | "token": over all; over a fixed length |
"""

import chex
import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_choice
from jaxssl.losses.combine import masked_mean

MEANS = ("sequence", "token")


def dpo(
    chosen: jax.Array,
    rejected: jax.Array,
    reference_chosen: jax.Array,
    reference_rejected: jax.Array,
    *,
    beta: float = 0.1,
) -> jax.Array:
    """Direct preference optimisation: the better answer gains more over a reference.

    L = -mean_n log sigmoid(β [(c_n - c'_n) - (r_n - r'_n)]), summed log-probabilities of the chosen
    and the rejected answer, primed those of the reference. Rafailov et al., 2023, "Direct
    preference optimization: your language model is secretly a reward model", arXiv 2305.18290.

    Args:
      chosen, rejected: c and r [B], in nats; computed in float32.
      reference_chosen, reference_rejected: c' and r' [B], without gradient.
      beta: β.

    Returns:
      Scalar, float32; log 2 for the reference itself.

    >>> zero = jnp.zeros(1)
    >>> round(float(dpo(zero + 2, zero - 1, zero, zero)), 6)
    0.554355
    """
    arrays = (chosen, rejected, reference_chosen, reference_rejected)
    chex.assert_rank(arrays, 1)
    chex.assert_equal_shape(arrays)
    better, worse, *reference = (jnp.asarray(x, jnp.float32) for x in arrays)
    before, after = jax.lax.stop_gradient(reference)
    return -jax.nn.log_sigmoid(beta * ((better - before) - (worse - after))).mean()


def grpo_advantages(rewards: jax.Array, *, epsilon: float = 1e-4) -> jax.Array:
    """How much better than its group each answer is, in standard deviations.

    A = (r - mean) / (std + ε), over each group, with the unbiased deviation. Shao et al., 2024,
    "DeepSeekMath: pushing the limits of mathematical reasoning in open language models", arXiv
    2402.03300.

    Args:
      rewards: r [groups, members], at least 2 members; computed in float32, without gradient.
      epsilon: ε.

    Returns:
      float32 [groups, members]; 0 where all rewards of a group are equal.

    >>> [round(float(a), 4) for a in grpo_advantages(jnp.array([[1.0, 0.0, 0.0, 1.0]]))[0]]
    [0.8659, -0.8659, -0.8659, 0.8659]
    """
    chex.assert_rank(rewards, 2)
    chex.assert_axis_dimension_gt(rewards, 1, 1)
    r = jax.lax.stop_gradient(jnp.asarray(rewards, jnp.float32))
    # From the first: equal rewards then have no mean that differs by rounding.
    r = r - r[:, :1]
    centred = r - r.mean(1, keepdims=True)
    return centred / (r.std(1, ddof=1, keepdims=True) + epsilon)


def grpo(
    log_probabilities: jax.Array,
    old: jax.Array,
    reference: jax.Array,
    advantages: jax.Array,
    mask: jax.Array,
    *,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    kl_weight: float = 0.0,
    mean: str = "sequence",
) -> jax.Array:
    """Group relative policy optimisation: a clipped policy gradient, near a reference.

    L = mean of -min(ρ A, clip(ρ, 1 - ε, 1 + ε') A) + w (e^d - d - 1), ρ = exp(l - l_old),
    d = l_ref - l. Shao et al., 2024, "DeepSeekMath: pushing the limits of mathematical reasoning in
    open language models", arXiv 2402.03300; the mean over all tokens is that of DAPO, Yu et al.,
    2025, arXiv 2503.14476.

    Args:
      log_probabilities: l [B, T], of the tokens of each answer, in nats; computed in float32.
      old: l_old [B, T], when they were drawn; without gradient.
      reference: l_ref [B, T], without gradient.
      advantages: A [B], without gradient.
      mask: [B, T], true where a token is part of the answer.
      epsilon_low, epsilon_high: ε and ε'.
      kl_weight: w.
      mean: "sequence", over each answer's tokens and then over all B, an empty answer being 0; or
        "token", over the tokens of all answers.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: an unknown mean.

    >>> l, mask = jnp.zeros((2, 3)), jnp.array([[1, 1, 0], [1, 1, 1]])
    >>> each = [grpo(l, l, l, jnp.array([1.0, -3.0]), mask, mean=mean) for mean in MEANS]
    >>> [round(float(x), 4) for x in each]
    [1.0, 1.4]
    """
    check_choice("mean", mean, MEANS)
    chex.assert_rank((log_probabilities, old, reference, advantages, mask), (2, 2, 2, 1, 2))
    chex.assert_equal_shape((log_probabilities, old, reference, mask))
    chex.assert_equal_shape_prefix((log_probabilities, advantages), 1)
    kept = jnp.asarray(mask).astype(bool)
    # What is beyond the answer may be anything.
    l, before, guide = (
        jnp.where(kept, jnp.asarray(x, jnp.float32), 0.0)
        for x in (log_probabilities, old, reference)
    )
    before, guide, a = jax.lax.stop_gradient(
        (before, guide, jnp.asarray(advantages, jnp.float32)[:, None])
    )
    ratio, gap = jnp.exp(l - before), guide - l
    clipped = jnp.clip(ratio, 1 - epsilon_low, 1 + epsilon_high)
    each = -jnp.minimum(ratio * a, clipped * a) + kl_weight * (jnp.expm1(gap) - gap)
    if mean == "token":
        return masked_mean(each, kept)
    return ((each * kept).sum(1) / jnp.maximum(kept.sum(1), 1)).mean()
