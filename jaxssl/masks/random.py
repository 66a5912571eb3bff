"""Random patches, or random squares of patches."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.masks import Fields, Mask, MaskInput, Setting, counts, each, hide_first, ranks


def build(
    *,
    setting: Setting,
    ratio: Any,
    how: str = "drop",
    unit: int | tuple[int, ...] = 1,
    per: str = "view",
    probability: float = 1.0,
) -> Mask:
    """Hides units of patches at random, without regard to each other: ceil(U r) of U.

    He et al., 2022, "Masked autoencoders are scalable vision learners", arXiv 2111.06377; with
    units of 32 pixels as in Xie et al., 2022, "SimMIM: a simple framework for masked image
    modeling", arXiv 2111.09886; over space and time alike as in Feichtenhofer et al., 2022, "Masked
    autoencoders as spatiotemporal learners", arXiv 2205.09113. With a unit as long as a clip these
    are the tubes of Tong et al., 2022, "VideoMAE", arXiv 2203.12602.

    Args:
      setting: of the views.
      ratio: fraction hidden: a number, a schedule, or (low, high) for a uniform draw.
      how: "drop" or "replace".
      unit: side of a unit in patches, or one number for each axis.
      per: with (low, high), whether each "view" draws or the whole "batch" together.
      probability: that a view is masked at all.

    Raises:
      ConfigError: a unit that does not divide the grid.
    """
    grid = setting.patches("random")
    sides = (unit,) * len(grid) if isinstance(unit, int) else tuple(unit)
    if len(sides) != len(grid) or any(s < 1 or n % s for n, s in zip(grid, sides)):
        raise ConfigError(f"unit: found {unit!r}, expected divisors of the {grid} patches")
    coarse = tuple(n // s for n, s in zip(grid, sides))
    cells = math.prod(sides)
    # The unit that each patch belongs to.
    place = np.arange(math.prod(coarse)).reshape(coarse)
    for axis, side in enumerate(sides):
        place = place.repeat(side, axis)
    unit_of = jnp.asarray(place.reshape(-1))
    units = math.prod(coarse)
    count = counts.parse(units, ratio, how, setting.steps, per, probability, up=True)

    def hide(given: MaskInput) -> Fields:
        def draw(key: jax.Array, number: jax.Array) -> jax.Array:
            noise = jax.random.uniform(key, (units,))
            return hide_first(ranks(noise), number)[unit_of]

        return count.fields(each(draw, given.keys, count.draw(given)), cells)

    return Mask(hide, count.names)
