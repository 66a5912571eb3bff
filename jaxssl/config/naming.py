"""Names of leaves, of random streams and of contents: paths, folded keys and hashes."""

import hashlib
import zlib
from typing import Any

import jax
import numpy as np

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


def content_hash(tree: PyTree) -> str:
    """Twelve hexadecimal digits of the leaves' names and bytes; the leaves are whole, on the host.

    >>> content_hash({"a": np.ones(2)}) == content_hash({"a": np.ones(2)})
    True
    """
    digest = hashlib.sha256()
    for name, leaf in sorted(named_leaves(tree).items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:12]
