"""Targets: what a student must predict, computed from the clean view without training.

Each module exposes `build`. Targets are rows of numbers, one for each patch, in the order of the
tokens of a ViT: row by row. None passes a gradient to the images.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxssl.config.by_name import build_by_name


class Target(NamedTuple):
    """What to predict, as a pure function of the views.

    Attributes:
      fn: (images [B, h, w, C], or videos and volumes [B, t, h, w, C], normalised) -> [B, T, P]
        float32, or integers [B, T] for codes. With a `teacher`, (images, its params) -> the same.
      teacher: name of the frozen teacher whose params `fn` takes, or "".
      width: P, or None where it follows from the images or the teacher.
    """

    fn: Callable[..., jax.Array]
    teacher: str = ""
    width: int | None = None


def build(
    config: Mapping[str, Any],
    *,
    field: str,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
) -> Target:
    """The target that `config` names.

    Args:
      config: `{"name": ..., **fields}`.
      field: where in the config it stands; error messages begin with it.
      mean, std: what the views were normalised with, per channel or one number, in units of [0, 1].

    Errors: ConfigError for an unknown name, field or value.

    >>> import jax.numpy as jnp
    >>> target = build({"name": "pixels", "patch": 2}, field="target")
    >>> target.fn(jnp.zeros((8, 4, 6, 3))).shape
    (8, 6, 12)
    """
    return build_by_name(sys.modules[__name__], config, field, mean=mean, std=std)
