"""Data sets with and without damage, and the one line that must come of it."""

import io
import shutil

import ml_collections
import numpy as np
import pytest
from PIL import Image

from jaxssl.config.errors import ConfigError
from jaxssl.data import load


def opened(split="train", **fields):
    return load(ml_collections.ConfigDict(fields), split)


def refused(call, *words, kind=ConfigError):
    """The one line of the error that a call ends in."""
    with pytest.raises(kind) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line
    assert all(str(word) in line for word in words), line
    return line


def image_bytes(kind="PNG", side=16, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def folder_of(root, bad=(), count=20):
    """`count` images of two classes; those at `bad` are cut short. They sort as they are named."""
    for i in range(count):
        place = root / "train" / ("ant" if i < count // 2 else "bee")
        place.mkdir(parents=True, exist_ok=True)
        content = image_bytes(seed=i, side=8)
        (place / f"{i:02d}.png").write_bytes(content[:80] if i in bad else content)
    shutil.copytree(root / "train", root / "test", dirs_exist_ok=True)
    return dict(source="image_folder", path=str(root), cache="none")


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


IMAGES = np.zeros((6, 4, 4), np.uint8)
LABELS = np.arange(6) % 3
