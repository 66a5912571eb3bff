"""A first-in, first-out queue of the embeddings of earlier steps."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange

from jaxssl.config.by_name import check_choice, check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.losses.vectors import unit
from jaxssl.memories import Memory, MemoryInput
from jaxssl.method import Info

LAYOUTS = ("rows", "columns")


def build(
    *,
    views: int,
    info: Info,
    size: int,
    layout: str = "rows",
    normalize: bool = True,
    per_view: bool = False,
) -> Memory:
    """The last `size` embeddings; at the start, `random_corners`.

    He et al., 2020, "Momentum contrast for unsupervised visual representation learning",
    arXiv 1911.05722.

    Args:
      views: V of the stack.
      info: the global batch B.
      size: K; a multiple of the V B embeddings of a step, so that a step never wraps around.
      layout: "rows" [K, P] or "columns" [P, K].
      normalize: keep unit vectors.
      per_view: a queue for each view, [V, K, P]; a step then adds B to each.

    Errors: ConfigError for a size that the step's embeddings do not divide.
    """
    check_positive("size", (size,))
    check_choice("layout", layout, LAYOUTS)
    step_adds = info.global_batch * (1 if per_view else views)
    if size % step_adds:
        nearest = max(1, round(size / step_adds)) * step_adds
        raise ConfigError(
            f"size: found {size}, expected a multiple of the {step_adds} embeddings that a step "
            f"adds, such as {nearest}"
        )
    queues = views if per_view else 1

    def init(key: jax.Array, shape: tuple[int, ...]) -> dict[str, jax.Array]:
        rows = random_corners(key, (queues, size, shape[-1]))
        return {"rows": rows, "at": jnp.zeros((), jnp.int32)}

    def read(state: Any, seen: MemoryInput) -> jax.Array:
        rows = state["rows"] if per_view else state["rows"][0]
        return rows if layout == "rows" else jnp.swapaxes(rows, -1, -2)

    def update(state: Any, seen: MemoryInput) -> dict[str, jax.Array]:
        pattern = "v b p -> v b p" if per_view else "v b p -> 1 (b v) p"
        new = rearrange(unit(seen.stack) if normalize else seen.stack, pattern)
        rows = jax.lax.dynamic_update_slice(state["rows"], new, (0, state["at"], 0))
        return {"rows": rows, "at": (state["at"] + step_adds) % size}

    return Memory(init, read, update)


def random_corners(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Unit vectors with all coordinates ±1 / sqrt(P), at random: directions of mean zero.

    Their length needs no sum, which devices that split the vectors would round in their own way:
    a first state is the same bit for bit on any number of them.
    """
    return jax.random.rademacher(key, shape, jnp.float32) / math.sqrt(shape[-1])
