"""Clips of one handwritten digit that drifts over an empty square and bounces off its border.

In the manner of Moving MNIST (Srivastava, Mansimov, Salakhutdinov 2015, "Unsupervised Learning of
Video Representations using LSTMs", arXiv:1502.04681), from the digits inside scikit-learn. Nothing
is downloaded: clip i is a function of the split and i, drawn when it is first read. Clips of the
test split show digits that no training clip shows.
"""

from typing import Any

import numpy as np

from jaxssl.config.errors import ConfigError, near
from jaxssl.data.images import ImageSource, Options, options
from jaxssl.data.sets import digits
from jaxssl.data.source import Array

CLIPS = {"train": 4096, "test": 1024}
FRAMES = 8
SIZE = 32
SMALLEST = 8
SPEED = (1 / 32, 1 / 16)
"""Range of the speed, in sides of the frame per frame."""
DIRECTIONS = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")
LABELS = ("digit", "direction")


def open(config: Any, split: str) -> "MovingDigits":
    """Opens the clips: `data.frames` (8) frames of `data.size` (32) pixels.

    The label is the digit; with the source "moving_digits:direction" it is the direction of the
    first step, one of eight.
    """
    label = str(config.get("source", "")).partition(":")[2] or "digit"
    if label not in LABELS:
        found = f"data.source: moving_digits has no label {label!r}"
        raise ConfigError(found + near(label, LABELS))
    return MovingDigits(split, label, generated_options(config, FRAMES, SIZE, SMALLEST))


def generated_options(config: Any, frames: int, size: int, smallest: int) -> Options:
    """`options(config)` of a set that is made at any size, with its defaults in place of 0."""
    opts = options(config)
    if 0 < opts.size < smallest:
        raise ConfigError(f"data.size: found {opts.size}, expected at least {smallest} pixels")
    return opts._replace(frames=opts.frames or frames, size=opts.size or size)


class MovingDigits(ImageSource):
    """Clips uint8 [T, S, S, C] of a digit of half the side, at a constant speed.

    Attributes:
      glyphs: the digits that may be seen, uint8 [N, S / 2, S / 2]; clip i shows glyph i mod N.
    """

    def __init__(self, split: str, label: str, opts: Options):
        stored = digits.open({"size": opts.size // 2}, split)
        assert stored.labels is not None
        self.glyphs, self._digits = stored.images[..., 0], stored.labels
        self._salt = list(CLIPS).index(split)
        self._label = label
        names = DIRECTIONS if label == "direction" else stored.label_names
        super().__init__(f"moving_digits {split} {label}", CLIPS[split], names, opts, None)

    def motion(self, i: int) -> tuple[Array, int]:
        """Places (y, x) of the glyph's corner in clip i, in pixels [T, 2]; the first direction."""
        rng = np.random.default_rng((self._salt, i))
        direction = int(rng.integers(len(DIRECTIONS)))
        speed = self._options.size * rng.uniform(*SPEED)
        angle = 2 * np.pi * direction / len(DIRECTIONS)
        step = speed * np.array((np.sin(angle), np.cos(angle)))
        room = self._options.size - self.glyphs.shape[1]
        # No bounce in the first step, which would hide the direction.
        start = np.maximum(0, -step) + rng.random(2) * (room - np.abs(step))
        places = start + np.arange(self._options.frames)[:, None] * step
        return room - np.abs(room - places % (2 * room)), direction

    def read(self, i: int) -> tuple[Array, int]:
        """Clip i: the glyph at fractional places, spread bilinearly over the pixels."""
        glyph = i % len(self.glyphs)
        corners, direction = self.motion(i)
        side, size = self.glyphs.shape[1], self._options.size
        distance = np.arange(size)[:, None] - np.arange(side) - corners[..., None, None]
        weights = np.maximum(0, 1 - np.abs(distance)).astype(np.float32)  # [T, 2, S, S / 2]
        drawn = weights[:, 0] @ self.glyphs[glyph].astype(np.float32) @ weights[:, 1].swapaxes(1, 2)
        label = direction if self._label == "direction" else int(self._digits[glyph])
        return np.rint(drawn)[..., None].astype(np.uint8), label
