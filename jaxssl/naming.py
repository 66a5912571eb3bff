"""Names of leaves and of random streams: paths joined by "/", and keys folded by name."""

import zlib
from typing import Any

import jax

PyTree = Any


def fold_name(key: jax.Array, name: str) -> jax.Array:
    """The stream `name` of `key`: the same for every process, device and Python run.

    >>> import jax
    >>> a, b = (fold_name(jax.random.key(0), n) for n in ("views", "terms"))
    >>> bool((jax.random.key_data(a) == jax.random.key_data(b)).all())
    False
    """
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def path_name(path: tuple[Any, ...]) -> str:
    """A pytree path as text, e.g. "params/encoder/block0/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Every leaf by its path."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
