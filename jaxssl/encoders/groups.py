"""Groups of views of several sizes, as a transformer takes them side by side."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxssl.encoders.transformer import Parts, split_parts

# An array [B, ...], or a tuple of one [B, V, ...] (or None) for each group of views.
Groups = Any


class Group(NamedTuple):
    """Views of one size, [B, V, ...] or, once merged, [B V, ...], with what `ViT` takes of them."""

    x: jax.Array
    keep: jax.Array | None
    tokens: jax.Array | None
    mask: jax.Array | None

    def each(self, change: Callable[[jax.Array], jax.Array]) -> "Group":
        """Every field that is there, changed."""
        return Group(*(None if a is None else change(a) for a in self))  # type: ignore[arg-type]


def gather(x: jax.Array, indices: jax.Array) -> jax.Array:
    """Rows `indices` [B, M] of x [B, T, D]: [B, M, D]."""
    return jnp.take_along_axis(x, indices[..., None], axis=1)


def views_of(x: jax.Array, parts: Parts, axis: int = 1) -> list[jax.Array]:
    """The sequences of each part, V and N in place of the axis of T tokens."""
    front, back = x.shape[:axis], x.shape[axis + 1 :]
    pieces = zip(split_parts(x, parts, axis), parts)
    return [piece.reshape(*front, *part, *back) for piece, part in pieces]
