"""Which samples to learn from next: by the scores, or the losses, that they had before."""

import chex
import jax
import jax.numpy as jnp


def curriculum_selection(
    scores: jax.Array, *, round: int, step: float = 20
) -> tuple[jax.Array, jax.Array]:
    """The samples whose score is in the top `step` x `round` per cent, ties included.

    s_n >= T_r, T_r = percentile(s, max(0, 100 - step r)), linearly interpolated. Cascante-Bonilla,
    Tan, Qi, Ordonez, 2021, "Curriculum labeling: revisiting pseudo-labeling for semi-supervised
    learning", arXiv 2001.06001.

    Args:
      scores: [N], e.g. the largest probability of each sample.
      round: r, from 1.
      step: per cent more in each round.

    Returns:
      Which of them, bool [N], and the threshold T_r.

    >>> curriculum_selection(jnp.array([0.5, 0.6, 0.7, 0.8, 0.9]), round=2)[0].tolist()
    [False, False, False, True, True]
    """
    chex.assert_rank(scores, 1)
    scores = scores.astype(jnp.float32)
    place = jnp.maximum(0.0, 100.0 - jnp.asarray(step * round)) / 100 * (len(scores) - 1)
    low = jnp.floor(place).astype(jnp.int32)
    high = jnp.minimum(low + 1, len(scores) - 1)
    ordered = jnp.sort(scores)
    threshold = ordered[low] + (ordered[high] - ordered[low]) * (place - low)
    return scores >= threshold, threshold


def self_paced_weights(
    losses: jax.Array, pace: jax.Array, annotated: jax.Array, *, cost: float = 1.0
) -> jax.Array:
    """The weights of self-paced learning: easy samples first, annotated ones always.

    v_nj = max(0, 1 - cost l_nj / pace_j), and 1 in the rows that are annotated: the minimiser of
    v l + pace (v^2 / 2 - v) / cost over 0 <= v <= 1. Kumar, Packer, Koller, 2010, "Self-paced
    learning for latent variable models", with the linear regulariser of Jiang et al., 2014.

    Args:
      losses: [N, J], of each sample under each of J models or classes.
      pace: [J], positive; it grows in training.
      annotated: bool [N].
      cost: how much a loss counts.

    Returns:
      [N, J], float32, from 0 to 1.

    >>> l, yes = jnp.array([[0.5], [3.0], [3.0]]), jnp.array([False, False, True])
    >>> self_paced_weights(l, jnp.array([1.0]), yes).ravel().tolist()
    [0.5, 0.0, 1.0]
    """
    chex.assert_rank((losses, pace, annotated), (2, 1, 1))
    weights = jnp.maximum(0.0, 1 - cost * losses.astype(jnp.float32) / pace)
    return jnp.where(annotated[:, None], 1.0, weights)
