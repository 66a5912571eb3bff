"""Groups whose views share one random view: its four turns, or its tiles."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxssl.config.naming import fold_name
from jaxssl.modalities.image import geometry
from jaxssl.modalities.image.transforms import three_channels
from jaxssl.modalities.parameters import choice, count

TURNS = 4
# What takes the place of a channel is noise of this part of the standard deviation of the one kept.
NOISE = 0.01


def turned(image: jax.Array) -> jax.Array:
    """The image turned counter-clockwise by 0, 90, 180 and 270 degrees, pixel for pixel.

    A turn by interpolation would betray itself. Gidaris, Singh, Komodakis, 2018, "Unsupervised
    representation learning by predicting image rotations", arXiv:1803.07728.

    Args:
      image: [c, s, s], or the frames of a clip [T, c, s, s].

    Returns:
      [4, c, s, s] or [4, T, c, s, s].

    >>> turned(jnp.array([[[1, 2], [3, 4]]]))[1, 0].tolist()
    [[2, 4], [1, 3]]
    """
    return jnp.stack([jnp.rot90(image, number, (-2, -1)) for number in range(TURNS)])


@dataclass(frozen=True)
class Tiles:
    """The squares of a grid, each at a random place within its cell; row by row.

    Noroozi, Favaro, 2016, "Unsupervised learning of visual representations by solving jigsaw
    puzzles", arXiv:1603.09246 (64 px with a jitter of 21, "normalized"); Doersch, Gupta, Efros,
    2015, "Unsupervised visual representation learning by context prediction", arXiv:1505.05192
    (96 px, a gap of 34 and a jitter of 14: 48 apart on average; "dropped").

    Attributes:
      side: cells along each axis.
      gap: least distance between two tiles, in pixels.
      jitter: how many pixels larger than a tile its cell is.
      colour: "shared", as the view has it; or what keeps the aberration of lenses from telling
        where a tile was: "normalized" to mean 0 and variance 1 in each channel of each tile, or
        "dropped": one random channel is left, and faint noise around the mean for the others.
    """

    side: int = count(3, 2)
    gap: int = count(0, 0)
    jitter: int = count(0, 0)
    colour: str = choice("shared", "shared", "normalized", "dropped")

    def whole(self, size: int) -> int:
        """Pixels of a side of the view that tiles of `size` are cut from.

        >>> Tiles(side=3, jitter=21).whole(64)
        255
        """
        return self.side * (size + self.jitter) + (self.side - 1) * self.gap

    def __call__(self, keys: jax.Array, image: jax.Array, size: int) -> jax.Array:
        """[..., c, s, s], normalised, with a key for each tile -> [V, ..., c, size, size]."""

        def tile(key: jax.Array, number: jax.Array) -> jax.Array:
            place, colours = jax.random.split(fold_name(key, "tiles"))
            cell = jnp.stack([number // self.side, number % self.side])
            corner = cell * (size + self.jitter + self.gap)
            top, left = corner + jax.random.randint(place, (2,), 0, self.jitter + 1)
            cut = lambda frame: geometry.shifted_crop(frame, top, left, size)
            return self._recolour(colours, cut(image) if image.ndim == 3 else jax.vmap(cut)(image))

        return jax.vmap(tile)(keys, jnp.arange(self.side**2))

    def _recolour(self, key: jax.Array, tile: jax.Array) -> jax.Array:
        if self.colour == "shared":
            return tile
        axes = (*range(tile.ndim - 3), -2, -1)
        deviation = tile.std(axes, keepdims=True)
        if self.colour == "normalized":
            # A tile of one colour has no contrast to bring to 1.
            return (tile - tile.mean(axes, keepdims=True)) / jnp.maximum(deviation, 1e-3)
        three_channels("tiles.colour", tile)
        which, pixels = jax.random.split(key)
        kept = jax.random.randint(which, (), 0, 3)
        noise = NOISE * deviation.ravel()[kept] * jax.random.normal(pixels, tile.shape)
        return jnp.where(jnp.arange(3)[:, None, None] == kept, tile, noise)
