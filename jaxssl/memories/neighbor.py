"""The nearest of the embeddings of earlier steps, in place of an embedding itself."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxssl.losses.vectors import unit
from jaxssl.memories import Memory, MemoryInput, queue
from jaxssl.method import Info


def build(*, views: int, info: Info, size: int) -> Memory:
    """argmax_{q in Q} cos(z, q) for every z, where the queue Q holds the first view's embeddings.

    Dwibedi et al., 2021, "With a little help from my friends: nearest-neighbor contrastive
    learning of visual representations", arXiv 2104.14548.

    Args:
      views: V of the stack.
      info: the global batch B.
      size: of the queue, a multiple of B.

    Errors: ConfigError for a size that B does not divide.
    """
    del views
    past = queue.build(views=1, info=info, size=size)

    def first(seen: MemoryInput) -> MemoryInput:
        return seen._replace(stack=seen.stack[:1])

    def read(state: Any, seen: MemoryInput) -> jax.Array:
        rows = past.read(state, first(seen))
        # Of near ties, rounding in low precision would pick others than float32 does.
        cosines = jnp.einsum(
            "vbp,kp->vbk", unit(seen.stack), rows, precision=jax.lax.Precision.HIGHEST
        )
        return rows[jnp.argmax(cosines, axis=-1)]

    def update(state: Any, seen: MemoryInput) -> Any:
        return past.update(state, first(seen))

    return Memory(past.init, read, update)
