"""The two sides of a game between a network that draws and one that tells drawn from real."""

import chex
import jax
import jax.numpy as jnp


def fooling_error(drawn: jax.Array) -> jax.Array:
    """The generator's side of the game: L = -mean log D, D = sigmoid(s).

    Goodfellow et al., 2014, "Generative adversarial networks", arXiv 1406.2661, the form that does
    not saturate.

    Args:
      drawn: scores s of drawn images, any shape; computed in float32.

    Returns:
      Scalar, float32.

    >>> round(float(fooling_error(jnp.zeros(3))), 6)  # log 2
    0.693147
    """
    return jax.nn.softplus(-drawn.astype(jnp.float32)).mean()


def telling_error(real: jax.Array, drawn: jax.Array) -> jax.Array:
    """The discriminator's side: L = -mean (log D(real) + log (1 - D(drawn))), D = sigmoid(s).

    Goodfellow et al., 2014, "Generative adversarial networks", arXiv 1406.2661.

    Args:
      real, drawn: scores s of images, of one shape; computed in float32.

    Returns:
      Scalar, float32.

    >>> round(float(telling_error(jnp.zeros(3), jnp.zeros(3))), 6)  # 2 log 2
    1.386294
    """
    chex.assert_equal_shape((real, drawn))
    real, drawn = real.astype(jnp.float32), drawn.astype(jnp.float32)
    return (jax.nn.softplus(-real) + jax.nn.softplus(drawn)).mean()
