"""One rectangle of pixels, in the middle or anywhere."""

import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError
from jaxssl.masks import Fields, Mask, MaskInput, Setting, each


def build(*, setting: Setting, side: float = 0.5, place: str = "center", fill: float = 0.0) -> Mask:
    """Puts out a square of the view: M x + (1 - M) fill.

    Pathak, Krähenbühl, Donahue, Darrell, Efros, 2016, "Context encoders: feature learning by
    inpainting", arXiv 1604.07379.

    Args:
      setting: of the views.
      side: of the square, as a fraction of the view's.
      place: "center" or "random".
      fill: what stands there, in normalised units; 0 is the mean of the data.

    Raises:
      ConfigError: a side out of range, or an unknown place.
    """
    del setting
    if not 0 < side < 1:
        raise ConfigError(f"side: found {side}, expected above 0 and below 1")
    if place not in ("center", "random"):
        raise ConfigError(f"place: found {place!r}, expected 'center' or 'random'")

    def hide(given: MaskInput) -> Fields:
        height, width = given.x.shape[2:4]
        size = jnp.array([round(side * height), round(side * width)])
        free = jnp.array([height, width]) - size

        def draw(key: jax.Array) -> jax.Array:
            anywhere = jax.random.randint(key, (2,), 0, free + 1)
            start = free // 2 if place == "center" else anywhere
            inside = lambda n, axis: (
                (jnp.arange(n) >= start[axis]) & (jnp.arange(n) < start[axis] + size[axis])
            )
            return inside(height, 0)[:, None] & inside(width, 1)[None, :]

        pixels = each(draw, given.keys)
        return {"pixels": pixels, "x": jnp.where(pixels[..., None], fill, given.x)}

    return Mask(hide, ("pixels", "x"))
