"""The running second moment of unit embeddings."""

import jax
import jax.numpy as jnp

from jaxssl.losses.vectors import unit
from jaxssl.memories import Memory, MemoryInput
from jaxssl.memories.center import check_momentum
from jaxssl.method import Info


def build(*, views: int, info: Info, momentum: float = 0.9) -> Memory:
    """C <- m C + (1 - m) mean_{v, n} u u^T with u = z / |z|, from zeros, [P, P].

    Zhu et al., 2022, "TiCo: transformation invariance and covariance contrast for self-supervised
    visual representation learning", arXiv 2206.10698.

    Args:
      views: V of the stack.
      info: unused.
      momentum: m in [0, 1].
    """
    del views, info
    check_momentum(momentum)

    def update(state: jax.Array, seen: MemoryInput) -> jax.Array:
        u = unit(seen.stack)
        moment = jnp.einsum("vbp,vbq->pq", u, u) / (u.shape[0] * u.shape[1])
        return momentum * state + (1 - momentum) * moment

    return Memory(
        lambda key, shape: jnp.zeros((shape[-1], shape[-1])), lambda state, seen: state, update
    )
