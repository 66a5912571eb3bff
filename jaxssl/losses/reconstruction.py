"""Terms that compare a decoder's output with the input itself, or with what is computed from it.

Where published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| `mae`: the unbiased variance of a patch | the biased: targets larger by sqrt(D / (D - 1)) |
| `simmim`: masked tokens counted, the mean over C | pixels counted, divided by 3: the same value |
| `masked_squared_error`: the sum over C | the mean over C, as in `mae`: 1 / C as much |
"""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError
from jaxssl.losses.combine import masked_mean

EPSILON = 1e-6


def mae(
    prediction: jax.Array, target: jax.Array, mask: jax.Array, *, normalize_target: bool = True
) -> jax.Array:
    """Mean squared error on the masked patches, whose pixels may be standardised patch by patch.

    L = sum_{n, t} m[n, t] mean_d (x[n, t, d] - y[n, t, d])^2 / sum m, where y is the patch, or
    (patch - its mean) / sqrt(its variance + 1e-6) with the unbiased variance. He et al., 2022,
    "Masked autoencoders are scalable vision learners", arXiv 2111.06377. With the biased variance,
    as other implementations have it, y is larger by sqrt(D / (D - 1)). The mean is over all masked
    patches of the global batch. No gradient to the target. Without standardising, it is the mean
    over all masked pixels, or voxels, of a batch of images or volumes.

    Args:
      prediction: x [B, T, D]; computed in float32.
      target: [B, T, D], the patches.
      mask: m [B, T], true (or a weight) where a patch was masked.
      normalize_target: whether to standardise each patch.

    Returns:
      Scalar, float32; 0 where nothing is masked.

    Raises:
      ConfigError: patches of one number, which have no variance.

    >>> patches, mask = jnp.array([[[1.0, 3.0], [5.0, 5.0]]]), jnp.array([[True, False]])
    >>> float(mae(jnp.zeros((1, 2, 2)), patches, mask, normalize_target=False))
    5.0
    """
    chex.assert_rank((prediction, target, mask), (3, 3, 2))
    chex.assert_equal_shape((prediction, target))
    chex.assert_equal_shape_prefix((prediction, mask), 2)
    target = jax.lax.stop_gradient(target).astype(jnp.float32)
    if normalize_target:
        if target.shape[-1] < 2:
            raise ConfigError("target: found patches of 1 number, expected 2 or more to normalise")
        spread = jnp.sqrt(target.var(-1, ddof=1, keepdims=True) + EPSILON)
        target = (target - target.mean(-1, keepdims=True)) / spread
    errors = jnp.square(prediction.astype(jnp.float32) - target).mean(-1)
    return masked_mean(errors, mask)


def simmim(prediction: jax.Array, target: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean absolute error of the masked places.

    L = sum m |x - y| / (C (sum m + 1e-5)), over all places and channels of the global batch. Xie
    et al., 2022, "SimMIM: a simple framework for masked image modeling", arXiv 2111.09886: places
    are patches of C numbers, and counting their pixels instead gives the same value. Places that
    are single pixels of C channels give the reconstruction of Atito et al., 2021, "SiT:
    self-supervised vision transformer", arXiv 2104.03602, whose masks cut through patches; it has
    no 1e-5. With a mask of the prediction's own shape every number is a place. No gradient to the
    target.

    Args:
      prediction: x [B, ..., C]; computed in float32.
      target: y [B, ..., C].
      mask: m [B, ...], or [B, ..., C] with C places of one number each; true (or a weight) where
        a place was masked or overwritten.

    Returns:
      Scalar, float32; 0 where nothing is masked.

    >>> x, y = jnp.zeros((1, 2, 2)), jnp.array([[[1.0, -3.0], [9.0, 9.0]]])
    >>> round(float(simmim(x, y, jnp.array([[True, False]]))), 3)
    2.0
    """
    if mask.ndim == prediction.ndim:
        prediction, target = prediction[..., None], target[..., None]
    masked = mask.astype(jnp.float32).sum()
    differences = _differences(prediction, target, mask)
    # Not the absolute value of jax, whose slope is 1 where it is 0.
    errors = (differences * jnp.sign(differences)).mean(-1)
    return masked_mean(errors, mask) * masked / (masked + 1e-5)


def masked_squared_error(prediction: jax.Array, target: jax.Array, mask: jax.Array) -> jax.Array:
    """Squared distance from the target, summed over channels, mean over the masked places.

    L = sum_{n, t} m[n, t] |x[n, t] - y[n, t]|^2 / sum m. Wei et al., 2022, "Masked feature
    prediction for self-supervised visual pre-training" (MaskFeat), arXiv 2112.09133. With voxels
    of one channel as places it is the masked error of Wald et al., 2024, "Revisiting MAE
    pre-training for 3D medical image segmentation", arXiv 2410.23132; for voxels that come as
    tokens of D numbers, `mae` without standardising is that: 1 / D of this. No gradient to the
    target.

    Args:
      prediction: x [B, ..., C]; computed in float32.
      target: y [B, ..., C].
      mask: m [B, ...], true (or a weight) where a place was masked.

    Returns:
      Scalar, float32; 0 where nothing is masked.

    >>> x, y = jnp.zeros((1, 2, 2)), jnp.array([[[1.0, 3.0], [9.0, 9.0]]])
    >>> float(masked_squared_error(x, y, jnp.array([[True, False]])))
    10.0
    """
    return masked_mean(jnp.square(_differences(prediction, target, mask)).sum(-1), mask)


def _differences(prediction: jax.Array, target: jax.Array, mask: jax.Array) -> jax.Array:
    """x - y in float32, without gradient to y, of arguments of matching shapes."""
    chex.assert_equal_shape((prediction, target))
    chex.assert_shape(mask, prediction.shape[:-1])
    return prediction.astype(jnp.float32) - jax.lax.stop_gradient(target).astype(jnp.float32)


def inpainting_error(
    prediction: jax.Array,
    target: jax.Array,
    hole: jax.Array,
    *,
    overlap: int = 0,
    overlap_weight: float = 10.0,
) -> jax.Array:
    """Mean squared error in a hole, and, with a greater weight, on a border around it.

    L = sum_p w_p |y_p - x_p|^2 / (C sum_p [w_p > 0]), with w = 1 in the hole, `overlap_weight` at
    most `overlap` pixels along each axis from it, and 0 elsewhere. Pathak et al., 2016, "Context
    encoders", arXiv 1604.07379. No gradient to the target.

    Args:
      prediction: y [..., h, w, C]; computed in float32.
      target: x [..., h, w, C].
      hole: [..., h, w] bool.
      overlap: width of the border, in pixels.
      overlap_weight: of its errors.

    Returns:
      Scalar, float32; 0 where there is no hole.

    >>> y, x = jnp.zeros((1, 1, 3, 1)), jnp.array([[[[1.0], [2.0], [3.0]]]])
    >>> hole = jnp.array([[[True, False, False]]])
    >>> float(inpainting_error(y, x, hole)), float(inpainting_error(y, x, hole, overlap=1))
    (1.0, 20.5)
    """
    chex.assert_equal_shape((prediction, target))
    chex.assert_shape(hole, prediction.shape[:-1])
    weight = hole.astype(jnp.float32)
    if overlap:
        side = 2 * overlap + 1
        flat = weight.reshape(-1, *weight.shape[-2:], 1)
        near_hole = nn.max_pool(flat, (side, side), padding="SAME").reshape(weight.shape)
        weight = weight + overlap_weight * (near_hole - weight)
    errors = prediction.astype(jnp.float32) - jax.lax.stop_gradient(target).astype(jnp.float32)
    total = (jnp.square(errors).mean(-1) * weight).sum()
    return total / jnp.maximum((weight > 0).sum(), 1)


def split_error(prediction: jax.Array, hidden: jax.Array) -> jax.Array:
    """Mean squared error of what was hidden, over all numbers of it.

    L = mean |x2 - g|^2. Lee et al., 2021, "Predicting what you already know helps: provable
    self-supervised learning", arXiv 2008.01064, there the sum over the P numbers.

    Args:
      prediction: g, any shape; computed in float32.
      hidden: x2, of the same shape; no gradient.

    Returns:
      Scalar, float32.

    >>> float(split_error(jnp.zeros((1, 2)), jnp.array([[1.0, 3.0]])))
    5.0
    """
    target = jax.lax.stop_gradient(hidden).astype(jnp.float32)
    return jnp.square(prediction.astype(jnp.float32) - target).mean()
