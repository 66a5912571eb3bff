"""Exact microbatches: a sample-by-sample function in k parts, with 1/k of its activations."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def chunked(fn: Callable[..., PyTree], k: int) -> Callable[..., PyTree]:
    """`fn`, a map of [B, ...] pytrees sample by sample, computed in k parts of B / k samples.

    Each part is recomputed in the backward pass, so that only its inputs are kept. Losses see the
    joined outputs: a loss that couples the batch stays the loss of the whole batch.

    Part i holds the samples i, i + k, ...: strided, because a contiguous part of an array that is
    split over devices would live on a few of them, and cost an all-gather.

    Errors: a leading axis that k does not divide raises a ValueError from the reshape.

    >>> import jax.numpy as jnp
    >>> chunked(lambda x: 2 * x, 2)(jnp.arange(4)).tolist()
    [0, 2, 4, 6]
    """
    if k == 1:
        return fn

    def split(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(x.shape[0] // k, k, *x.shape[1:]), 1, 0)

    def join(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])

    def run(*args: PyTree) -> PyTree:
        part = jax.checkpoint(lambda parts: fn(*parts))
        return jax.tree.map(join, jax.lax.map(part, jax.tree.map(split, args)))

    return run


def part_size(batch: int, most: int) -> int:
    """The largest divisor of a batch that is at most `most`, or 1.

    >>> part_size(12, 5), part_size(12, 0), part_size(7, 5)
    (4, 1, 1)
    """
    return max(n for n in range(1, batch + 1) if not batch % n and n <= max(1, most))
