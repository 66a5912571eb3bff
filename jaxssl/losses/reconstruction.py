"""Terms that compare a decoder's output with the input itself."""

import chex
import jax
import jax.numpy as jnp

from jaxssl.errors import ConfigError
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
    patches of the global batch. No gradient to the target.

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
