"""Groups of pixels, put out or overwritten with those of another sample."""

import jax
import jax.numpy as jnp
from einops import rearrange

from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import fold_name
from jaxssl.masks import Fields, Mask, MaskInput, Setting, each

MOST = 512  # rectangles of a view, should the area not be reached before


def build(
    *,
    setting: Setting,
    area: float = 0.5,
    replaced_area: float = 0.3,
    replaced: float = 0.5,
    side: float = 0.3,
    align: int = 1,
) -> Mask:
    """Group-masked model learning: rectangles of zeros, or of another sample, upon the view.

    Rectangles with sides uniform from `align` to side * H pixels are put down until they cover at
    least the area a ~ U(min(1/2, area), area) of the view. With probability `replaced` a view gets,
    instead of zeros, the pixels of another sample's view at the same places, over
    U(min(1/2, r), r) = r = `replaced_area`. Where a sample is paired with itself, its pixels are
    counted as hidden all the same. Atito, Awais, Kittler, 2021, "SiT: self-supervised vision
    transformer", arXiv 2104.03602.

    For an encoder of patches there is the field "patches" [B, V, T, P] too: what is hidden of each
    number of the target "pixels".

    Args:
      setting: of the views.
      area: covered by zeros.
      replaced_area: covered by another sample.
      replaced: probability of another sample rather than zeros.
      side: largest side of a rectangle, as a fraction of the view's.
      align: rectangles lie on a lattice of so many pixels.

    Raises:
      ConfigError: a fraction out of range.
    """
    grid, channels = setting.grid, len(setting.mean)
    for name, value in (("area", area), ("replaced_area", replaced_area), ("side", side)):
        if not 0 < value <= 1:
            raise ConfigError(f"{name}: found {value}, expected above 0 and at most 1")
    if not 0 <= replaced <= 1:
        raise ConfigError(f"replaced: found {replaced}, expected 0 to 1")
    if align < 1:
        raise ConfigError(f"align: found {align}, expected at least 1 pixel")

    def hide(given: MaskInput) -> Fields:
        batch, _, height, width, _ = given.x.shape
        most = [max(align, int(side * n)) for n in (height, width)]

        def rectangle(key: jax.Array) -> jax.Array:
            sizes, places = jax.random.split(key)
            low = jnp.array([align, align])
            size = jax.random.randint(sizes, (2,), low, jnp.array(most) + 1) // align * align
            start = jax.random.randint(places, (2,), 0, jnp.array([height, width])) // align * align
            down = jnp.arange(height) - start[0]
            right = jnp.arange(width) - start[1]
            inside = lambda place, length: (place >= 0) & (place < length)
            return inside(down, size[0])[:, None] & inside(right, size[1])[None, :]

        def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            other = jax.random.uniform(fold_name(key, "replaced")) < replaced
            wanted = jnp.where(other, replaced_area, area)
            least = jnp.minimum(0.5, wanted)
            wanted = least + jax.random.uniform(fold_name(key, "area")) * (wanted - least)

            def more(state: tuple[jax.Array, jax.Array]) -> jax.Array:
                mask, tries = state
                return (mask.mean() < wanted) & (tries < MOST)

            def cover(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
                mask, tries = state
                return mask | rectangle(jax.random.fold_in(key, tries)), tries + 1

            empty = jnp.zeros((height, width), bool), jnp.int32(0)
            return jax.lax.while_loop(more, cover, empty)[0], other

        pixels, other = each(draw, given.keys)
        partner = jax.random.permutation(fold_name(given.key, "partner"), batch)
        filling = jnp.where(other[..., None, None, None], given.x[partner], 0.0)
        fields = {"pixels": pixels, "x": jnp.where(pixels[..., None], filling, given.x)}
        return fields | ({"patches": of_patches(pixels)} if grid else {})

    def of_patches(pixels: jax.Array) -> jax.Array:
        cut = rearrange(pixels, "b v (h p) (w q) -> b v (h w) (p q)", h=grid[0], w=grid[1])
        return jnp.repeat(cut, channels, axis=-1)

    return Mask(hide, ("pixels", "x", *(("patches",) if grid else ())))
