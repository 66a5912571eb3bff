"""Losses of maps with one class for each place.

Where published forms differ, this one follows the first column:

| here | elsewhere |
|---|---|
| `dice` sums over the batch and its pixels, per class | image by image, then the mean |
| (2 I + s) / (P + T + s) | (I + s) / (I + FP / 2 + FN / 2 + s): half of our s is their s |
"""

import chex
import jax
import jax.numpy as jnp


def dice(logits: jax.Array, labels: jax.Array, *, smooth: float = 0.0) -> jax.Array:
    """One less the soft Dice coefficient of each class, averaged over classes.

    L = 1/K sum_k [T_k > 0] (1 - (2 I_k + s) / (P_k + T_k + s)), with p = softmax(l), I_k the sum of
    p_k over the places of class k, P_k that over all places and T_k the number of places of class
    k. A class that no place has adds 0, and counts in the mean. Milletari et al., 2016, "V-Net:
    fully convolutional neural networks for volumetric medical image segmentation", arXiv
    1606.04797, there with squares in the denominator; segmentation-models-pytorch's, there s is
    twice as large.

    Args:
      logits: [B, H, W, K]; computed in float32.
      labels: integers [B, H, W]; a place beyond 0 ... K - 1 is of no class and counts nowhere.
      smooth: s.

    Returns:
      Scalar, float32.

    >>> logits = jnp.array([[[[9.0, -9.0], [-9.0, 9.0]]]])
    >>> round(float(dice(logits, jnp.array([[[0, 1]]]))), 4)
    0.0
    """
    chex.assert_rank((logits, labels), (4, 3))
    chex.assert_equal_shape_prefix((logits, labels), 3)
    classes = logits.shape[-1]
    known = (labels >= 0) & (labels < classes)
    likely = jax.nn.softmax(logits.astype(jnp.float32)) * known[..., None]
    true = jax.nn.one_hot(labels, classes)  # rows of zeros where there is no class
    places = (0, 1, 2)
    shared, said, meant = ((x).sum(places) for x in (likely * true, likely, true))
    bottom = said + meant + smooth
    score = (2 * shared + smooth) / jnp.where(bottom > 0, bottom, 1.0)
    return jnp.where(meant > 0, 1 - score, 0.0).mean()
