"""Handwritten digits, 1,797 grey 8x8 images, from inside scikit-learn: nothing to download.

Alpaydin and Kaynak, Optical recognition of handwritten digits, UCI repository, 1998. The split is
this library's own: 1,297 train and 500 test, every class in proportion.
"""

import hashlib
from typing import Any

import numpy as np
from PIL import Image

from jaxssl.data.images import ArraySource, options

TEST_SAMPLES = 500


def open(config: Any, split: str) -> ArraySource:
    """Opens the digits; `data.size` resizes them with a cubic kernel before they become uint8."""
    from sklearn.datasets import load_digits

    opts = options(config)
    pixels, labels = load_digits(return_X_y=True)
    rows = split_rows(labels, split)
    grey = pixels[rows].reshape(-1, 8, 8).astype(np.float32) * (255 / 16)
    if opts.size not in (0, 8):
        grey = np.stack([_resize(image, opts.size) for image in grey])
    images = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return ArraySource(f"digits {split}", images, labels[rows], opts=opts)


def split_rows(labels: np.ndarray, split: str) -> np.ndarray:
    """Rows of the split, ascending; fixed for ever by a hash of the row within its class."""
    counts = np.bincount(labels)
    shares = counts * TEST_SAMPLES / len(labels)
    wanted = np.floor(shares).astype(int)
    rest = np.argsort(wanted - shares, kind="stable")[: TEST_SAMPLES - wanted.sum()]
    wanted[rest] += 1  # largest remainders first, so that the total is exact
    test = []
    for label, count in enumerate(wanted):
        rows = np.flatnonzero(labels == label).tolist()
        rows.sort(key=lambda row: hashlib.blake2b(f"digits {row}".encode()).digest())
        test += rows[:count]
    chosen = np.isin(np.arange(len(labels)), test)
    return np.flatnonzero(chosen if split == "test" else ~chosen)


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    # In floating point: rounding to uint8 first would lose the cubic kernel's overshoot.
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
