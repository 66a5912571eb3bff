"""Masks: what a step hides of the student's views; each module exposes `build`.

An entry of `config.masks` names a module, the groups of views it is for, and its fields:

    config.masks.hidden = dict(name="random", views=("global",), ratio=0.75, how="drop")

The teachers, and the targets of `jaxssl.targets`, see the whole view. A mask gives each view of its
groups *fields*, which go to the networks that name them as arguments, and to the losses that ask
for them (`mask=dict(mask="hidden")`):

  tokens   [B, V, M]     the patches that the encoder sees, in order; the others are never computed
  mask     [B, V, T]     true where a patch is hidden
  targets  [B, V, K, M]  the patches of K blocks to predict
  x        [B, V, ...]   another view in place of the clean one
  pixels   [B, V, h, w]  true where `x` hides the clean view
  order    [B, V]        the number of a permutation, one for all views of a sample

Counts are static where a shape depends on them; places are traced. What is random is keyed by
(step, index, view), so that neither the device nor the rest of the batch changes it; what a whole
batch shares comes from the step's key.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxssl.config.by_name import build_by_name
from jaxssl.config.errors import ConfigError

Fields = dict[str, jax.Array]
HOWS = ("drop", "replace")


class Setting(NamedTuple):
    """What a mask may know of the views that it is for, and of the run.

    Attributes:
      grid: patches along each axis of a view, (h, w) or (t, h, w); () where the encoder has none.
      steps: length of the run, for schedules.
      mean, std: per channel, with which views are normalised.
    """

    grid: tuple[int, ...]
    steps: int
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def patches(self, name: str, axes: int = 0) -> tuple[int, ...]:
        """The grid.

        Raises:
          ConfigError: no patches, or along other axes than the mask `name` is for.
        """
        if not self.grid:
            raise ConfigError(f"name: {name!r} hides patches, and this encoder has none")
        if axes and len(self.grid) != axes:
            raise ConfigError(
                f"name: {name!r} is for patches along {axes} axes, found {len(self.grid)}"
            )
        return self.grid


class MaskInput(NamedTuple):
    """What a mask may look at in a step.

    Attributes:
      x: the clean views of a group, [B, V, h, w, C] or [B, V, t, h, w, C].
      keys: [B, V], one for each sample and view.
      key: the step's key for this mask, the same on all devices.
      step: of the state.
      seen: the teacher's output that `Mask.reads` names, [B, V, ...]; None without one.
    """

    x: jax.Array
    keys: jax.Array
    key: jax.Array
    step: jax.Array
    seen: jax.Array | None = None


class Mask(NamedTuple):
    """A mask, as a pure function of a step.

    Attributes:
      hide: given -> the fields.
      fields: their names; the first is what a loss gets that names the mask alone.
      reads: "teacher/output", where the mask depends on one.
      metrics: (what it read, its fields) -> scalars to report.
    """

    hide: Callable[[MaskInput], Fields]
    fields: tuple[str, ...]
    reads: str = ""
    metrics: Callable[[jax.Array, Fields], Fields] | None = None


def build(config: Mapping[str, Any], *, setting: Setting, field: str) -> Mask:
    """The mask that `config` names.

    Args:
      config: `{"name": ..., **fields}`.
      setting: of the views that it is for.
      field: where in the config it stands; error messages begin with it.

    Errors: ConfigError for an unknown name, field or value.
    """
    return build_by_name(sys.modules[__name__], config, field, setting=setting)


def each(draw: Callable[..., Any], *args: jax.Array) -> Any:
    """`draw` for every sample and view: arguments and results begin with [B, V]."""
    return jax.vmap(jax.vmap(draw))(*args)


def hide_first(rank: jax.Array, count: Any) -> jax.Array:
    """True for the `count` items of least rank; `count` may be traced.

    >>> hide_first(jnp.array([2, 0, 1]), 2).tolist()
    [False, True, True]
    """
    return rank < count


def ranks(scores: jax.Array) -> jax.Array:
    """The place of each score in ascending order, along the last axis: its permutation's inverse.

    >>> ranks(jnp.array([0.3, 0.1, 0.2])).tolist()
    [2, 0, 1]
    """
    return jnp.argsort(jnp.argsort(scores, axis=-1), axis=-1)


def dropped(mask: jax.Array, kept: int) -> Fields:
    """The fields of a mask [..., T] whose hidden patches, all but `kept`, are left out."""
    # False sorts before true, and a stable sort keeps the order of the patches.
    tokens = jnp.argsort(mask, axis=-1, stable=True)[..., :kept]
    return {"mask": mask, "tokens": tokens}
