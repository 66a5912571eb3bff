"""Pairs of views as examples of "same sample" or "another"; `sigmoid_focal` tells which."""

import itertools

import chex
import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_choice
from jaxssl.config.errors import ConfigError

AGGREGATIONS = ("cat", "sum", "mean", "max")


def relation_pairs(features: jax.Array, *, aggregation: str = "cat") -> tuple[jax.Array, jax.Array]:
    """Every two views of a sample, and as many pairs of views of two samples.

    For the r-th of the V (V - 1) / 2 pairs of views a < b: positives (z[a, n], z[b, n]) and
    negatives (z[a, n], z[b, n - s]), where s = 1 + r mod (B - 1) turns the batch, so that no
    negative is of one sample and no two pairs of views that follow each other have the same
    negatives. Patacchiola and Storkey, 2020, "Self-supervised relational reasoning for
    representation learning", arXiv 2006.05849.

    Args:
      features: [V, B, D]; computed in float32.
      aggregation: how two become one: "cat" [2 D], a before b, or the symmetric "sum", "mean" or
        "max" [D].

    Returns:
      Pairs [B, V (V - 1), 2 D or D], the positives first, and their targets [V (V - 1)], 1 or 0.

    Raises:
      ConfigError: an unknown aggregation, one view, or a batch of one.

    >>> pairs, targets = relation_pairs(jnp.array([[[1.0], [2.0]], [[3.0], [4.0]]]))
    >>> pairs[0].tolist(), targets.tolist()
    ([[1.0, 3.0], [1.0, 4.0]], [1.0, 0.0])
    """
    chex.assert_rank(features, 3)
    views, batch, _ = features.shape
    check_choice("aggregation", aggregation, AGGREGATIONS)
    if views < 2:
        raise ConfigError(f"features: found {views} view, expected at least 2 to pair")
    if batch < 2:
        raise ConfigError(f"features: found a batch of {batch}, expected at least 2 for negatives")
    z = features.astype(jnp.float32)
    met = list(itertools.combinations(range(views), 2))
    first = jnp.stack([z[a] for a, _ in met], 1)
    same = jnp.stack([z[b] for _, b in met], 1)
    # A turn by a number known at compile time; its gradient is a turn back, where that of a gather
    # would be a sum in no fixed order.
    turns = [1 + r % (batch - 1) for r in range(len(met))]
    other = jnp.stack([jnp.roll(z[b], turn, 0) for (_, b), turn in zip(met, turns)], 1)
    pairs = jnp.concatenate([_joined(first, second, aggregation) for second in (same, other)], 1)
    return pairs, jnp.repeat(jnp.array([1.0, 0.0]), len(met), total_repeat_length=2 * len(met))


def _joined(a: jax.Array, b: jax.Array, aggregation: str) -> jax.Array:
    if aggregation == "cat":
        return jnp.concatenate([a, b], -1)
    if aggregation == "max":
        return jnp.maximum(a, b)
    return (a + b) * (0.5 if aggregation == "mean" else 1.0)
