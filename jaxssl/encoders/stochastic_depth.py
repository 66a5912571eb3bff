"""Stochastic depth (drop-path): keep scales drawn outside the network, one row per sample.

Each residual branch of block l becomes x + keep[b, l] * f_l(x), where keep is 0 with probability
p_l and 1 / (1 - p_l) otherwise, so that its mean is 1. Huang et al. 2016, "Deep Networks with
Stochastic Depth", arXiv:1603.09382.
"""

import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError


def linear_rates(rate: float, depth: int) -> jax.Array:
    """Drop rates that rise linearly with depth, from 0 at the first block to `rate` at the last.

    Errors: ConfigError unless 0 <= rate < 1.

    >>> linear_rates(0.2, 3).tolist() == [0.0, 0.10000000149011612, 0.20000000298023224]
    True
    """
    if not 0 <= rate < 1:
        raise ConfigError(f"drop-path rate: found {rate}, expected 0 <= rate < 1")
    return jnp.linspace(0.0, rate, depth, dtype=jnp.float32)


def keep_scales(keys: jax.Array, rates: jax.Array) -> jax.Array:
    """Keep scales [B, depth] from one key per sample, [B], and drop rates [depth] below 1.

    A sample's row depends on its own key alone, so it is the same in any batch, chunk or device.

    >>> keep_scales(jax.random.split(jax.random.key(0), 2), jnp.zeros(3)).tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rates))(keys)
    return kept / (1 - rates)
