"""One computation for a single image and another for many, with the same result."""

from collections.abc import Callable
from typing import Any

import jax


def alone_or_many(alone: Callable[..., Any], many: Callable[..., Any]) -> Callable[..., Any]:
    """`alone`, in whose place `jax.vmap` maps `many`.

    >>> double = alone_or_many(lambda x: x + x, lambda x: 2 * x)
    >>> float(double(1.0)), jax.vmap(double)(jax.numpy.ones(2)).tolist()
    (2.0, [2.0, 2.0])
    """
    fn = jax.custom_batching.custom_vmap(alone)

    def of_many(count: int, batched: Any, *args: Any) -> tuple[Any, bool]:
        axes = jax.tree.map(lambda mapped: 0 if mapped else None, tuple(batched))
        return jax.vmap(many, axes, axis_size=count)(*args), True

    fn.def_vmap(of_many)
    return fn
