"""The digits of scikit-learn in colour: ink whose hue follows the direction of its stroke.

So a colour can be told from the luminance around it, and says nothing of the label that the shape
does not. The samples and the split are those of `jaxssl.data.sets.digits`.
"""

from typing import Any

import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.data.images import ArraySource, options
from jaxssl.data.sets import digits


def open(config: Any, split: str) -> ArraySource:
    """Opens the digits at `data.size` pixels, uint8 [S, S, 3]."""
    opts = options(config)
    if opts.size == 1:
        raise ConfigError("data.size: found 1, expected at least 2 pixels, as strokes have edges")
    grey = digits.open({"size": opts.size}, split)
    assert grey.labels is not None
    return ArraySource(f"coloured_digits {split}", colour(grey.images), grey.labels, opts=opts)


def colour(images: np.ndarray) -> np.ndarray:
    """Grey uint8 [N, S, S, 1] to uint8 [N, S, S, 3].

    With the gradient (x, y), averaged over 5 x 5 pixels, a stroke has the direction
    θ = atan2(2 xy, x² - y²) / 2, which is the same for both of its edges. Its hue is the angle 2 θ:
    a channel at the angle a of the circle is the grey value times (1 + cos(2 θ - a)) / 2.
    """
    grey = images[..., 0].astype(np.float32)
    y, x = np.gradient(grey, axis=(1, 2))
    twice = np.arctan2(_mean(2 * x * y), _mean(x * x - y * y))
    angles = twice[..., None] - 2 * np.pi * np.arange(3, dtype=np.float32) / 3
    return np.rint(grey[..., None] * (1 + np.cos(angles)) / 2).astype(np.uint8)


def _mean(values: Any) -> np.ndarray:
    """The mean over the 5 x 5 pixels around each, the edge repeated."""
    padded: np.ndarray = np.pad(values, ((0, 0), (2, 2), (2, 2)), "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), (1, 2))
    found: np.ndarray = windows.mean((-2, -1))
    return found
