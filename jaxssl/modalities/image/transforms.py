"""The random transforms that a group of views may name, each a frozen dataclass of its fields.

A transform is called as `transform(key, image)` on the planes [c, h, w] of one image, float32 in
[0, 1]; all its randomness comes from `key`. `Crop` and `PadCrop` bring an image to the view's size,
so they take it too; `Affine` and `Elastic` only draw parameters, because one warp applies both.
`TRANSFORMS` lists all by their name in a config, in the order of application.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError
from jaxssl.modalities.image import colour, frequency, geometry
from jaxssl.modalities.parameters import (
    around,
    choice,
    count,
    interval,
    number,
    odd_or_zero,
    probability,
)


def _between(draw: jax.Array, ends: tuple[float, float]) -> jax.Array:
    """A uniform draw in [0, 1), moved to the interval."""
    return ends[0] + (ends[1] - ends[0]) * draw


def _perhaps(
    chosen: jax.Array, change: Callable[[jax.Array], jax.Array], image: jax.Array
) -> jax.Array:
    """`change(image)` where it was chosen, else the image as it is.

    A branch: what is not taken costs nothing where views are made one at a time, and is a choice
    between two computed images under `jax.vmap`.
    """
    return jax.lax.cond(chosen, change, lambda image: image, image)


def three_channels(name: str, image: jax.Array) -> None:
    """Raise ConfigError, for the field `name`, unless the image has three channels."""
    if image.shape[-3] != 3:
        raise ConfigError(f"{name}: found images of {image.shape[-3]} channel(s), expected 3")


@dataclass(frozen=True)
class Crop:
    """Random resized crop: a box of a random area and aspect, resized to the view.

    Attributes:
      scale: range of the box's area, as a fraction of the image's.
      ratio: range of its width / height.
      method: "bilinear" or "bicubic", antialiased.
    """

    scale: tuple[float, float] = interval((0.08, 1.0), 1e-6, 1.0)
    ratio: tuple[float, float] = interval((3 / 4, 4 / 3), 1e-3, 1e3)
    method: str = choice("bilinear", *geometry.KERNELS)

    def __call__(
        self,
        key: jax.Array,
        image: jax.Array,
        size: int,
        mirrored: tuple[jax.Array | bool, ...] = (False, False),
    ) -> jax.Array:
        """[c, h, w] -> [c, size, size]; mirrored upside down, and left to right."""
        _, height, width = image.shape
        box = geometry.sample_crop_box(key, height, width, self.scale, self.ratio)
        most = geometry.largest_crop(height, width, self.scale, self.ratio)
        return geometry.resized_crop(image, box, size, self.method, most=most, mirrored=mirrored)


@dataclass(frozen=True)
class PadCrop:
    """A window of the view's size at a uniform place in the padded image, without resizing.

    Attributes:
      padding: pixels added on every side.
      fill: "zero", "edge" or "reflect".
    """

    padding: int = count(4, 0)
    fill: str = choice("zero", "zero", "edge", "reflect")

    def __call__(self, key: jax.Array, image: jax.Array, size: int) -> jax.Array:
        """[c, h, w] -> [c, size, size]."""
        _, height, width = image.shape
        least = min(height, width)
        if size > least + 2 * self.padding:
            raise ConfigError(
                f"pad_crop.padding: found {self.padding}, expected >= {-(-(size - least) // 2)}"
                f" to cut views of {size} from images of {height}x{width}"
            )
        if self.fill == "reflect" and self.padding >= least:
            raise ConfigError(
                f"pad_crop.padding: found {self.padding}, expected < {least}, the image's side,"
                " with fill 'reflect'"
            )
        draws = jax.random.uniform(key, (2,))
        room = jnp.array([height, width]) + 2 * self.padding - size
        corner = jnp.minimum(jnp.floor(draws * (room + 1)).astype(jnp.int32), room) - self.padding
        return geometry.shifted_crop(image, corner[0], corner[1], size, self.fill)


@dataclass(frozen=True)
class Flip:
    """Left-right flip with a probability."""

    probability: float = probability(0.5)

    def draw(self, key: jax.Array) -> jax.Array:
        """Whether to flip."""
        return jax.random.uniform(key) < self.probability

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """[c, h, w] -> [c, h, w]."""
        return _perhaps(self.draw(key), geometry.flip_horizontal, image)


@dataclass(frozen=True)
class VerticalFlip(Flip):
    """Up-down flip with a probability."""

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """[c, h, w] -> [c, h, w]."""
        return _perhaps(self.draw(key), geometry.flip_vertical, image)


@dataclass(frozen=True)
class Affine:
    """Random rotation, scale, aspect, shear and shift about the centre. A number r means ±r.

    Attributes:
      rotation: degrees.
      log_scale: log of the content's magnification.
      log_aspect: log of width / height.
      shear: horizontal move per vertical pixel.
      shift: fraction of the side, for x and y each.
      fill: outside the image, "zero" or "edge".
    """

    rotation: tuple[float, float] = around(0.0, 0.0, -180.0, 180.0)
    log_scale: tuple[float, float] = around(0.0, 0.0, -4.0, 4.0)
    log_aspect: tuple[float, float] = around(0.0, 0.0, -4.0, 4.0)
    shear: tuple[float, float] = around(0.0, 0.0, -4.0, 4.0)
    shift: tuple[float, float] = around(0.0, 0.0, -1.0, 1.0)
    fill: str = choice("zero", "zero", "edge")

    def sample(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The inverse matrix [2, 2] and the shift [2] for `geometry.warp`."""
        draws = jax.random.uniform(key, (6,))
        inverse = geometry.affine_inverse(
            _between(draws[0], self.rotation),
            _between(draws[1], self.log_scale),
            _between(draws[2], self.log_aspect),
            _between(draws[3], self.shear),
        )
        return inverse, _between(draws[4:], self.shift)


@dataclass(frozen=True)
class Elastic:
    """Smooth random displacement: Gaussian at grid x grid nodes, bicubic between them.

    Attributes:
      sigma: standard deviation at a node, as a fraction of the view's side.
      grid: nodes per side.
      fill: outside the image, "zero" or "edge".
    """

    sigma: float = number(None, 0.0, 1.0)
    grid: int = count(4, 2)
    fill: str = choice("zero", "zero", "edge")

    def sample(self, key: jax.Array, size: int) -> jax.Array:
        """The displacement [2, size, size] in pixels for `geometry.warp`."""
        nodes = self.sigma * size * jax.random.normal(key, (2, self.grid, self.grid))
        return geometry.elastic_displacement(nodes, size)


@dataclass(frozen=True)
class Jitter:
    """Colour jitter. A number r means factors in [1 - r, 1 + r] (±r for hue and additive).

    Attributes:
      brightness: factor of the values.
      contrast: factor of the distance from the mean gray value of the image.
      saturation: factor of the distance from the pixel's gray value.
      hue: turn of the hue, as a fraction of the circle.
      additive: brightness added to the values.
      probability: of jittering a view at all.
      order: "random", or "fixed" for the order above.
    """

    brightness: tuple[float, float] = around(1.0, 0.0, 0.0, 100.0)
    contrast: tuple[float, float] = around(1.0, 0.0, 0.0, 100.0)
    saturation: tuple[float, float] = around(1.0, 0.0, 0.0, 100.0)
    hue: tuple[float, float] = around(0.0, 0.0, -0.5, 0.5)
    additive: tuple[float, float] = around(0.0, 0.0, -1.0, 1.0)
    probability: float = probability(1.0)
    order: str = choice("random", "random", "fixed")

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """[c, h, w] -> [c, h, w]."""
        draws = jax.random.uniform(key, (11,))
        idle = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, "additive": 0.0}
        active = [(i, n) for i, n in enumerate(idle) if getattr(self, n) != (idle[n], idle[n])]
        for _, name in active:
            if name in ("saturation", "hue"):
                three_channels(f"jitter.{name}", image)
        amounts = {name: _between(draws[i], getattr(self, name)) for i, name in active}
        ranks = None
        if self.order == "random" and len(active) > 1:
            ranks = jnp.stack([draws[5 + i] for i, _ in active])
        change = lambda image: colour.jitter(image, amounts, ranks)
        return _perhaps(draws[10] < self.probability, change, image)


@dataclass(frozen=True)
class Grayscale:
    """All channels become the gray value, with a probability."""

    probability: float = probability(0.1)

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """[c, h, w] -> [c, h, w]."""
        three_channels("grayscale", image)
        chosen = jax.random.uniform(key) < self.probability
        return _perhaps(chosen, colour.to_grayscale, image)


@dataclass(frozen=True)
class Blur:
    """Gaussian blur with σ ~ U(sigma).

    Attributes:
      probability: of blurring a view.
      sigma: range of σ in pixels of the view.
      taps: kernel width in pixels, odd; 0 means a tenth of the view's side, but at least 3.
    """

    probability: float = probability(0.5)
    sigma: tuple[float, float] = interval((0.1, 2.0), 1e-3, 1e3)
    taps: int = odd_or_zero()

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """[c, h, w] -> [c, h, w]."""
        side = min(image.shape[1:])
        taps = self.taps or max(3, side // 10 // 2 * 2 + 1)
        if taps // 2 >= side:
            raise ConfigError(f"blur.taps: found {taps}, expected < {2 * side} for views of {side}")
        draws = jax.random.uniform(key, (2,))
        sigma = _between(draws[0], self.sigma)
        change = lambda image: colour.gaussian_blur(image, sigma, taps)
        return _perhaps(draws[1] < self.probability, change, image)


@dataclass(frozen=True)
class Solarize:
    """Values of at least `threshold` are inverted, with a probability."""

    probability: float = probability(0.2)
    threshold: float = number(0.5, 0.0, 1.0)

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """[c, h, w] -> [c, h, w]."""
        change = lambda image: colour.solarize(image, self.threshold)
        return _perhaps(jax.random.uniform(key) < self.probability, change, image)


@dataclass(frozen=True)
class Noise:
    """Gaussian noise with a standard deviation drawn uniformly from [0, sigma], then clipped."""

    sigma: float = number(None, 0.0, 1.0)

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """[c, h, w] -> [c, h, w]."""
        strength, pixels = jax.random.split(key)
        return colour.gaussian_noise(pixels, image, self.sigma * jax.random.uniform(strength))


@dataclass(frozen=True)
class LowFrequency:
    """The lowest frequencies of a view alone, as a smaller view: `frequency.low_frequency_crop`.

    It comes last. A constant stays the same constant, so that (x - mean) / std may follow it as
    well as precede it.

    Attributes:
      size: side of the view that is left, in pixels, even; it has no default.
    """

    size: int = count(0, 0)

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """[c, h, w] -> [c, size, size]."""
        most = min(image.shape[-2:])
        if not 2 <= self.size <= most or self.size % 2:
            raise ConfigError(
                f"low_frequency.size: found {self.size}, expected an even number from 2 to {most},"
                " the view's side"
            )
        return frequency.low_frequency_crop(image, self.size)


TRANSFORMS: dict[str, type] = {
    "crop": Crop,
    "pad_crop": PadCrop,
    "flip": Flip,
    "vertical_flip": VerticalFlip,
    "affine": Affine,
    "elastic": Elastic,
    "jitter": Jitter,
    "grayscale": Grayscale,
    "blur": Blur,
    "solarize": Solarize,
    "noise": Noise,
    "low_frequency": LowFrequency,
}
"""Name in a config -> transform, in the order of application."""
