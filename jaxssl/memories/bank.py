"""A table of the embeddings of all samples, addressed by their index."""

import jax

from jaxssl.losses.vectors import unit
from jaxssl.memories import Memory, MemoryInput
from jaxssl.memories.center import check_momentum
from jaxssl.memories.queue import random_corners
from jaxssl.method import Info


def build(*, views: int, info: Info, momentum: float = 0.5) -> Memory:
    """M[i] <- unit(m M[i] + (1 - m) unit(mean_v z[v])) for the samples i of the batch; [N, P].

    Wu et al., 2018, "Unsupervised feature learning via non-parametric instance discrimination",
    arXiv 1805.01978. It starts with `random_corners`. No sample is twice in a batch, so no two
    rows of a step meet.

    Args:
      views: V of the stack.
      info: the number of samples N.
      momentum: m in [0, 1].
    """
    del views
    check_momentum(momentum)

    def init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return random_corners(key, (info.num_samples, shape[-1]))

    def update(state: jax.Array, seen: MemoryInput) -> jax.Array:
        index = seen.batch["index"]
        new = momentum * state[index] + (1 - momentum) * unit(seen.stack.mean(0))
        return state.at[index].set(unit(new))

    return Memory(init, lambda state, seen: state, update)
