"""The number of the nearest vector of a codebook, for each patch."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError, near
from jaxssl.losses.vectors import nearest
from jaxssl.method import PyTree
from jaxssl.targets import Target
from jaxssl.targets.pixels import Patch, check_patch, patchify


def build(
    *,
    mean: Any,
    std: Any,
    patch: Patch,
    teacher: str = "tokenizer",
    param: str = "codebook/vectors",
) -> Target:
    """z = argmin_k |x - C_k|^2 of the pixels x of each patch, for the codebook C of a teacher.

    The place of the image tokenizer in Bao et al., 2022, "BEiT: BERT pre-training of image
    transformers", arXiv 2106.08254, taken by vector quantisation of patches, as k-means makes it.

    Args:
      mean, std: unused.
      patch: a side, (p, q) for images, or (u, p, q) for videos and volumes.
      teacher: name of the frozen teacher that has the codebook.
      param: where among its params; [K, P] for patches of P numbers.

    Errors: ConfigError for sides that are not positive, params without the codebook, or a codebook
      for patches of another size.
    """
    del mean, std
    check_patch(patch)

    def fn(images: jax.Array, params: PyTree) -> jax.Array:
        vectors = _named(params, param)
        patches = patchify(jax.lax.stop_gradient(images), patch)
        if vectors.ndim != 2 or vectors.shape[-1] != patches.shape[-1]:
            raise ConfigError(
                f"param: found {param!r} of shape {vectors.shape}, expected "
                f"[K, {patches.shape[-1]}] for the pixels of a patch"
            )
        return nearest(patches, vectors)

    return Target(fn, teacher=teacher)


def _named(params: PyTree, path: str) -> jax.Array:
    for part in path.split("/"):
        if not isinstance(params, Mapping) or part not in params:
            known = params if isinstance(params, Mapping) else ()
            raise ConfigError(f"param: found no {part!r} of {path!r}{near(part, known)}")
        params = params[part]
    return jnp.asarray(params)
