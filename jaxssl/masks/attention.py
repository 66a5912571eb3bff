"""The patches that a teacher's class token attends to most, or least."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_choice
from jaxssl.config.errors import ConfigError
from jaxssl.masks import Fields, Mask, MaskInput, Setting, counts, each, hide_first, ranks

KINDS = ("high", "low", "hints")


def build(
    *,
    setting: Setting,
    teacher: str,
    ratio: Any,
    kind: str = "high",
    shown: float = 0.1,
    per: str = "batch",
    probability: float = 1.0,
) -> Mask:
    """Hides what the teacher attends to: the n patches with the largest a, or the smallest.

    a[t] = mean_h A[h, 0, t], the class token's row of the last block's attention, the mean over
    heads after the softmax; n = floor(r T). "hints" hides the largest, and then reveals
    floor(shown r T) drawn from the floor(shown T) largest. Kakogeorgiou et al., 2022, "What to
    hide from your students: attention-guided masked image modeling", arXiv 2203.12719. Hidden
    patches are replaced by the mask token; the mask has no gradient. The metric
    `attention_over_random` is the share of a that is hidden, over that of as many random patches.

    Args:
      setting: of the views.
      teacher: whose attention; its encoder needs a class token.
      ratio: r: a number, a schedule, or (low, high) for a uniform draw.
      kind: "high", "low" or "hints".
      shown: share of the patches among which hints are, and of the hidden ones that are revealed.
      per: with (low, high), whether the whole "batch" draws together or each "view".
      probability: that a view is masked at all.

    Raises:
      ConfigError: naming the field that does not fit.
    """
    grid = setting.patches("attention")
    check_choice("kind", kind, KINDS)
    if not 0 <= shown <= 1:
        raise ConfigError(f"shown: found {shown}, expected 0 to 1")
    total = math.prod(grid)
    count = counts.parse(total, ratio, "replace", setting.steps, per, probability)
    top = int(total * shown)

    def draw(key: jax.Array, attention: jax.Array, number: jax.Array) -> jax.Array:
        scores = attention.mean(0)[0, -total:]
        rank = ranks(scores if kind == "low" else -scores)
        mask = hide_first(rank, number)
        if kind != "hints":
            return mask
        revealed = jnp.floor(shown * number + 1e-4)
        noise = jax.random.uniform(key, (total,))
        return mask & ~hide_first(ranks(jnp.where(rank < top, noise, 2.0)), revealed)

    def hide(given: MaskInput) -> Fields:
        assert given.seen is not None
        seen = jax.lax.stop_gradient(given.seen)
        if seen.shape[-1] <= total:
            raise ConfigError("masks: attention needs a teacher with a class token")
        return count.fields(each(draw, given.keys, seen, count.draw(given)))

    def metrics(seen: jax.Array, fields: Fields) -> Fields:
        scores = seen[..., 0, -total:].mean(2)
        hidden = fields["mask"]
        share = (scores * hidden).sum(-1) / scores.sum(-1)
        masked = hidden.any(-1)
        over = jnp.where(masked, share / jnp.maximum(hidden.mean(-1), 1 / total), 0.0)
        return {"attention_over_random": over.sum() / jnp.maximum(masked.sum(), 1)}

    return Mask(hide, count.names, f"{teacher}/attention", metrics)
