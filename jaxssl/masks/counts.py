"""How many patches to hide: a fraction, fixed or drawn, and whether to leave them out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxssl.config import schedules
from jaxssl.config.by_name import check_choice
from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import fold_name
from jaxssl.masks import HOWS, Fields, MaskInput, dropped

PER = ("view", "batch")


class Count(NamedTuple):
    """How many of T things to hide.

    Attributes:
      draw: given -> whole numbers [B, V], int32.
      how: "drop" or "replace".
      kept: what is left where the number is always the same, else None.
    """

    draw: Callable[[MaskInput], jax.Array]
    how: str
    kept: int | None

    def fields(self, mask: jax.Array, cells: int = 1) -> Fields:
        """The block's fields for a mask [B, V, T] of units of `cells` patches each."""
        if self.how == "replace":
            return {"mask": mask}
        assert self.kept is not None
        return dropped(mask, self.kept * cells)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the fields."""
        return ("mask",) if self.how == "replace" else ("mask", "tokens")


def parse(
    total: int,
    ratio: Any,
    how: str,
    steps: int,
    per: str = "view",
    probability: float = 1.0,
    up: bool = False,
) -> Count:
    """How many of `total` things to hide: floor(total r), or ceil(total r), where r is `ratio`.

    Args:
      total: number of things.
      ratio: a number or a schedule, or (low, high) for a uniform draw.
      how: "drop" leaves hidden patches out, so that their number must be fixed; "replace" shows
        the encoder its mask token, or whatever it makes of a mask.
      steps: length of the run.
      per: who draws a ratio of its own: each "view", or the whole "batch" one together.
      probability: that a view is masked at all.
      up: whether a number between two is rounded up; what is left out is, in any case.

    Raises:
      ConfigError: naming the field that does not fit.
    """
    check_choice("how", how, HOWS)
    check_choice("per", per, PER)
    if not 0 <= probability <= 1:
        raise ConfigError(f"probability: found {probability}, expected 0 to 1")
    drawn = not schedules.is_spec(ratio) and isinstance(ratio, tuple | list)
    fixed = isinstance(ratio, int | float)
    bounds = tuple(ratio) if drawn else (ratio, ratio) if fixed else (0.0, 0.0)
    if len(bounds) != 2 or not 0 <= bounds[0] <= bounds[1] < 1:
        raise ConfigError(f"ratio: found {ratio!r}, expected a fraction below 1, or (low, high)")
    if how == "drop":
        if not fixed or probability < 1:
            raise ConfigError(
                "how: 'drop' needs one fixed ratio and probability 1, as shapes depend on the "
                "number of patches; expected 'replace'"
            )
        # What is kept is floored, as published: MAE sees int(N (1 - r)) patches.
        kept = max(1, int(total * (1 - ratio) + 1e-6))
        return Count(lambda given: jnp.full(given.keys.shape, total - kept), how, kept)
    schedule = schedules.make(0.0 if drawn else ratio, steps, field="ratio")

    def draw(given: MaskInput) -> jax.Array:
        fraction = jnp.broadcast_to(schedule(given.step), given.keys.shape)
        if drawn:
            low, high = bounds
            if per == "view":
                fraction = _uniform(given.keys, "ratio", low, high)
            else:
                key = fold_name(given.key, "ratio")
                shared = jax.random.uniform(key, (), minval=low, maxval=high)
                fraction = jnp.full(given.keys.shape, shared)
        exact = total * fraction
        count = jnp.ceil(exact - 1e-4) if up else jnp.floor(exact + 1e-4)
        count = count.astype(jnp.int32)
        masked = _uniform(given.keys, "masked", 0.0, 1.0) < probability
        return jnp.where(masked, count, 0)

    return Count(draw, how, None)


def _uniform(keys: jax.Array, name: str, low: float, high: float) -> jax.Array:
    """[B, V] of draws, one from each key."""
    draw = lambda key: jax.random.uniform(fold_name(key, name), (), minval=low, maxval=high)
    return jax.vmap(jax.vmap(draw))(keys)
