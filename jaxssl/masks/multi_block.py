"""A context block without some target blocks, whose patches are to be predicted from it."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import fold_name
from jaxssl.masks import Fields, Mask, MaskInput, Setting, each, ranks

SHAPES = 1024  # draws of the size that are looked at for the least number of patches


def build(
    *,
    setting: Setting,
    count: int = 4,
    scale: tuple[float, float] = (0.15, 0.2),
    aspect: tuple[float, float] = (0.75, 1.5),
    context: tuple[float, float] = (0.85, 1.0),
) -> Mask:
    """K target blocks of one size, and the patches of a context block that are in none of them.

    Assran et al., 2023, "Self-supervised learning from images with a joint-embedding predictive
    architecture", arXiv 2301.08243. One draw u a step sets area and aspect of all target blocks,
    T s(u) and a(u); their places, and the context's, are each view's own. The official code cuts
    all of a batch to the least number of patches that occurs in it. Here the numbers are the same
    at every step: M, the least area that a draw can give, for each block (row by row), and T - K M
    for the context, which is what is left where the blocks do not overlap. Where the context block
    holds more, some are left out at random; where it holds fewer, others from outside it and
    outside all targets are added.

    Args:
      setting: of the views.
      count: K.
      scale: least and largest area of a target block, as a fraction of the view.
      aspect: least and largest ratio of height to width.
      context: least and largest area of the context block, which is square.

    Raises:
      ConfigError: fractions out of range, or targets that leave no context.
    """
    grid = setting.patches("multi_block", 2)
    height, width = grid
    total = height * width
    for name, (low, high), most in (("scale", scale, 1), ("context", context, 1)):
        if not 0 < low <= high <= most:
            raise ConfigError(f"{name}: found {(low, high)}, expected 0 < low <= high <= {most}")
    if not 0 < aspect[0] <= aspect[1]:
        raise ConfigError(f"aspect: found {aspect}, expected 0 < low <= high")
    if count < 1:
        raise ConfigError(f"count: found {count}, expected at least 1")

    def sides(area: jax.Array, ratio: jax.Array) -> tuple[jax.Array, jax.Array]:
        tall, wide = jnp.round(jnp.sqrt(area * ratio)), jnp.round(jnp.sqrt(area / ratio))
        return jnp.clip(tall, 1, height - 1), jnp.clip(wide, 1, width - 1)

    def target_sides(u: jax.Array) -> tuple[jax.Array, jax.Array]:
        area = jnp.floor(total * (scale[0] + u * (scale[1] - scale[0])))
        return sides(area, aspect[0] + u * (aspect[1] - aspect[0]))

    with jax.ensure_compile_time_eval():
        tall, wide = target_sides(jnp.linspace(0.0, 1.0, SHAPES))
        size = int(np.min(np.asarray(tall * wide)))
    kept = total - count * size
    if kept < 1:
        raise ConfigError(
            f"count: found {count} blocks of {size} patches, which leave none of {total}"
        )
    rows, columns = jnp.divmod(jnp.arange(total), width)

    def block(key: jax.Array, tall: jax.Array, wide: jax.Array) -> jax.Array:
        """[T], true within a rectangle at a random place."""
        free = jnp.stack([height - tall, width - wide]) + 1
        top, left = jnp.floor(jax.random.uniform(key, (2,)) * free)
        down, right = rows - top, columns - left
        return (down >= 0) & (down < tall) & (right >= 0) & (right < wide)

    def hide(given: MaskInput) -> Fields:
        u, v = jax.random.uniform(fold_name(given.key, "size"), (2,))
        area = jnp.floor(total * (context[0] + v * (context[1] - context[0])))
        target, around = target_sides(u), sides(area, jnp.ones(()))

        def draw(key: jax.Array) -> Fields:
            places, outer, noise = jax.random.split(key, 3)
            blocks = jax.vmap(lambda k: block(k, *target))(jax.random.split(places, count))
            # Patches of a block come first, row by row; `size` of them are always there.
            targets = jnp.argsort(~blocks, axis=-1, stable=True)[:, :size]
            mask = jnp.zeros(total, bool).at[targets].set(True)
            inside = block(outer, *around) & ~mask
            order = jnp.where(mask, 2, jnp.where(inside, 0, 1))
            order = ranks(order + jax.random.uniform(noise, (total,)) * 0.5)
            tokens = jnp.argsort(order >= kept, stable=True)[:kept]
            return {"mask": mask, "tokens": tokens, "targets": targets}

        fields: Fields = each(draw, given.keys)
        return fields

    return Mask(hide, ("mask", "tokens", "targets"))
