"""The running mean of an output."""

import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError
from jaxssl.memories import Memory, MemoryInput
from jaxssl.method import Info


def build(*, views: int, info: Info, momentum: float = 0.9) -> Memory:
    """c <- m c + (1 - m) mean_{v, n} z[v, n], from zeros; of tokens, the mean over them too.

    Caron et al., 2021, "Emerging properties in self-supervised vision transformers",
    arXiv 2104.14294.

    Args:
      views: V of the stack.
      info: unused.
      momentum: m in [0, 1].
    """
    del views, info
    check_momentum(momentum)

    def update(state: jax.Array, seen: MemoryInput) -> jax.Array:
        rows = tuple(range(seen.stack.ndim - 1))
        return momentum * state + (1 - momentum) * seen.stack.mean(rows)

    return Memory(lambda key, shape: jnp.zeros(shape[-1]), lambda state, seen: state, update)


def check_momentum(momentum: float) -> None:
    """Raise ConfigError where `momentum` is not within [0, 1]."""
    if not 0 <= momentum <= 1:
        raise ConfigError(f"momentum: found {momentum}, expected 0 to 1")
