"""A picture cut in two along its middle: one half is what a network sees, the other what it tells.

The halves of a picture share its class, and overlap in no pixel: what one says of the other is what
both have in common.
"""

from collections.abc import Callable
from typing import Any

import jax

from jaxssl import modalities
from jaxssl.config.by_name import check_choice
from jaxssl.config.errors import ConfigError
from jaxssl.method import Batch, Info

# half -> the other one, the axis that it lies along, and whether it comes first.
HALVES = {
    "left": ("right", -2, True),
    "right": ("left", -2, False),
    "top": ("bottom", -3, True),
    "bottom": ("top", -3, False),
}


def opposite(half: str) -> str:
    """The other half.

    >>> opposite("top")
    'bottom'
    """
    return HALVES[half][0]


def cut(images: jax.Array, half: str) -> jax.Array:
    """One half of images [..., h, w, C], such as their left [..., h, w / 2, C].

    Raises:
      ConfigError: an unknown half, or a side with an odd number of pixels.

    >>> import jax.numpy as jnp
    >>> cut(jnp.arange(4).reshape(1, 2, 2, 1), "bottom").ravel().tolist()
    [2, 3]
    """
    check_choice("half", half, HALVES)
    _, axis, first = HALVES[half]
    side = images.shape[axis]
    if side % 2:
        raise ConfigError(f"views: found a side of {side} pixels, expected an even number to halve")
    start = 0 if first else side // 2
    return jax.lax.slice_in_dim(images, start, start + side // 2, axis=axis % images.ndim)


def evaluated(config: Any, info: Info, half: str) -> Callable[[Batch], jax.Array]:
    """A function batch -> a half of the view without randomness, float32 [B, h, w, C]."""
    plain = modalities.plain(config, info.fields)
    return lambda batch: cut(plain(batch), half)


def only_group(config: Any) -> str:
    """The one group of views that there is.

    Raises:
      ConfigError: several.
    """
    groups = tuple(modalities.group_ids(config.views))
    if len(groups) != 1:
        raise ConfigError(f"views: found the groups {groups}, expected one")
    return groups[0]
