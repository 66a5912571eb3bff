"""Which pairs belong together: the logistic loss of it, and the ratio of densities it learns."""

import chex
import jax
import jax.numpy as jnp


def pair_error(true: jax.Array, broken: jax.Array) -> jax.Array:
    """Logistic loss of telling true pairs from broken ones, each kind counting half.

    L = -1/2 mean log f(x, z) - 1/2 mean log (1 - f(x, z')), f = sigmoid(l); log 2 by chance. With
    true pairs from p(x, z) and broken ones from p(x) p(z) its minimum is at f = g / (1 + g), g =
    p(x, z) / (p(x) p(z)). Tosh, Krishnamurthy, Hsu, 2021, "Contrastive learning, multi-view
    redundancy, and linear models", arXiv 2008.10150.

    Args:
      true, broken: logits l, of one shape; computed in float32.

    Returns:
      Scalar, float32.

    >>> round(float(pair_error(jnp.zeros(3), jnp.zeros(3))), 6)
    0.693147
    """
    chex.assert_equal_shape((true, broken))
    true, broken = true.astype(jnp.float32), broken.astype(jnp.float32)
    return (jax.nn.softplus(-true) + jax.nn.softplus(broken)).mean() / 2


def density_ratio(logits: jax.Array, *, limit: float = float("inf")) -> jax.Array:
    """g = f / (1 - f) = exp(l), with logits cut to [-limit, limit], float32.

    Of the best discriminator of as many true as broken pairs it is p(x, z) / (p(x) p(z)). Tosh,
    Krishnamurthy, Hsu, 2021, arXiv 2008.10150.

    >>> density_ratio(jnp.array([0.0, 9.0]), limit=0.0).tolist()
    [1.0, 1.0]
    """
    return jnp.exp(jnp.clip(logits.astype(jnp.float32), -limit, limit))
