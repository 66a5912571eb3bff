"""Blocks of neighbouring patches, of an exact number."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError
from jaxssl.masks import Fields, Mask, MaskInput, Setting, counts, each, hide_first, ranks


def build(
    *,
    setting: Setting,
    ratio: Any,
    how: str = "replace",
    least: int = 16,
    aspect: float = 0.3,
    candidates: int = 32,
    per: str = "view",
    probability: float = 1.0,
) -> Mask:
    """Hides rectangles, one upon another, until an exact number of patches is hidden.

    Bao, Dong, Piao, Wei, 2022, "BEiT: BERT pre-training of image transformers", arXiv 2106.08254;
    with a ratio of its own for each view, and some views left whole, as in Zhou et al., 2022,
    "iBOT", arXiv 2111.07832. The rectangle that would hide too many is cut off below.

    Args:
      setting: of the views.
      ratio: fraction hidden: a number, a schedule, or (low, high) for a uniform draw.
      how: "drop" or "replace".
      least: smallest area of a rectangle, in patches; less where fewer are to be hidden.
      aspect: smallest ratio of height to width; the largest is its inverse.
      candidates: how many rectangles are drawn; what they leave is filled at random.
      per: with (low, high), whether each "view" draws or the whole "batch" together.
      probability: that a view is masked at all.

    Raises:
      ConfigError: naming the field that does not fit.
    """
    grid = setting.patches("block", 2)
    if not 0 < aspect <= 1:
        raise ConfigError(f"aspect: found {aspect}, expected above 0 and at most 1")
    if least < 1 or candidates < 1:
        raise ConfigError(f"least: found {least}, and {candidates} candidates; expected at least 1")
    height, width = grid
    total = height * width
    count = counts.parse(total, ratio, how, setting.steps, per, probability)
    rows, columns = jnp.divmod(jnp.arange(total), width)

    def draw(key: jax.Array, number: jax.Array) -> jax.Array:
        size, shape, place, rest = jax.random.split(key, 4)
        # Areas are uniform between the least and all that is to be hidden.
        low = jnp.minimum(least, number)
        area = low + jax.random.uniform(size, (candidates,)) * (number - low)
        bound = -math.log(aspect)
        ratios = jnp.exp(jax.random.uniform(shape, (candidates,), minval=-bound, maxval=bound))
        tall = jnp.clip(jnp.round(jnp.sqrt(area * ratios)), 1, height)
        wide = jnp.clip(jnp.round(jnp.sqrt(area / ratios)), 1, width)
        free = jnp.stack([height - tall, width - wide], 1) + 1
        top, left = jnp.floor(jax.random.uniform(place, (candidates, 2)) * free).T
        inside = (
            (rows >= top[:, None])
            & (rows < (top + tall)[:, None])
            & (columns >= left[:, None])
            & (columns < (left + wide)[:, None])
        )
        # Patches come in the order of the first rectangle over them, then row by row; those under
        # none come last, at random.
        first = jnp.where(inside.any(0), jnp.argmax(inside, 0), candidates)
        noise = jnp.where(first == candidates, jax.random.uniform(rest, (total,)), 0.0)
        within = jnp.arange(total) / total
        order = jnp.where(first == candidates, first + noise, first + within)
        return hide_first(ranks(order), number)

    def hide(given: MaskInput) -> Fields:
        return count.fields(each(draw, given.keys, count.draw(given)))

    return Mask(hide, count.names)
