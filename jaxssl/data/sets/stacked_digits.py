"""Volumes of a handwritten digit extruded along the depth, turning and growing from slice to slice.

The digit, from inside scikit-learn, stands before a smooth random texture that changes along all
three axes. Nothing is downloaded: volume i is a function of the split and i, made when it is first
read. Volumes of the test split hold digits that no training volume holds.
"""

from typing import Any

import numpy as np

from jaxssl.data.images import ImageSource, Options
from jaxssl.data.sets import digits
from jaxssl.data.sets.moving_digits import generated_options
from jaxssl.data.source import Array

VOLUMES = {"train": 4096, "test": 1024}
SLICES = 16
SIZE = 32
SMALLEST = 8
TILT = 20.0
"""Largest rotation of the middle slice, in degrees."""
TWIST = 40.0
"""Largest rotation between the first and the last slice, in degrees."""
GROWTH = 0.25
"""Largest logarithm of the ratio of scale between the middle and an outer slice."""
TEXTURE = 0.5
"""Brightest value of the texture, of 1."""
CELL = 4
"""Distance between the nodes of the texture, in voxels."""


def open(config: Any, split: str) -> "StackedDigits":
    """Opens the volumes: `data.frames` (16) slices of `data.size` (32) pixels; label: the digit."""
    return StackedDigits(split, generated_options(config, SLICES, SIZE, SMALLEST))


class StackedDigits(ImageSource):
    """Volumes uint8 [T, S, S, C], T slices deep.

    Attributes:
      glyphs: the digits that may be seen, uint8 [N, S / 2, S / 2]; volume i holds glyph i mod N.
    """

    def __init__(self, split: str, opts: Options):
        stored = digits.open({"size": opts.size // 2}, split)
        assert stored.labels is not None
        self.glyphs, self._digits = stored.images[..., 0], stored.labels
        self._salt = list(VOLUMES).index(split)
        name, names = f"stacked_digits {split}", stored.label_names
        super().__init__(name, VOLUMES[split], names, opts, None)

    def read(self, i: int) -> tuple[Array, int]:
        """Volume i: texture t, glyph g and 255 (t + g - t g) voxel by voxel."""
        rng = np.random.default_rng((self._salt, i))
        glyph = i % len(self.glyphs)
        slices, size = self._options.frames, self._options.size
        along = np.linspace(-1, 1, slices) if slices > 1 else np.zeros(1)
        tilt, twist, growth = rng.uniform(-1, 1, 3) * (TILT, TWIST / 2, GROWTH)
        turned = _turned(self.glyphs[glyph] / 255, size, tilt + twist * along, growth * along)
        texture = _texture(rng, (slices, size, size))
        volume = texture + turned - texture * turned
        return np.rint(255 * volume)[..., None].astype(np.uint8), int(self._digits[glyph])


def _turned(glyph: Array, size: int, degrees: Array, log_scale: Array) -> Array:
    """The glyph in the middle of [T, size, size], turned and scaled by slice, bilinearly."""
    y, x = np.indices((size, size)) - (size - 1) / 2
    angle, scale = np.deg2rad(degrees), np.exp(-log_scale)
    cos, sin = ((scale * wave(angle))[:, None, None] for wave in (np.cos, np.sin))
    middle = (len(glyph) - 1) / 2
    rows, columns = (cos * y - sin * x + middle, sin * y + cos * x + middle)
    # A rim of zeros, on which all that lies outside is clipped.
    rimmed = np.pad(glyph, 1)
    rows, columns = (np.clip(p + 1, 0, len(rimmed) - 1.001) for p in (rows, columns))
    top, left = rows.astype(int), columns.astype(int)
    down, right = rows - top, columns - left
    above = rimmed[top, left] * (1 - right) + rimmed[top, left + 1] * right
    below = rimmed[top + 1, left] * (1 - right) + rimmed[top + 1, left + 1] * right
    return above * (1 - down) + below * down


def _texture(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Uniform values at nodes `CELL` voxels apart, linear between them: [T, H, W]."""
    values = TEXTURE * rng.random(tuple((n - 1) // CELL + 2 for n in shape))
    for n in shape:
        # Each pass works on the first axis and moves it to the end: after three, all are back.
        distance = np.arange(n)[:, None] / CELL - np.arange(values.shape[0])
        weights = np.maximum(0, 1 - np.abs(distance))
        values = np.tensordot(values, weights, axes=(0, 1))
    return values
