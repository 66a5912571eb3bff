"""Road scenes with the class of every pixel, packed by split: `camvid_<split>.npz`.

Arrays: those of `packed_jpeg`; `masks` uint8 [N, H, W], the class of each pixel; `label_names`
[classes], the last of which may be "void", for pixels of no class. Brostow, Fauqueur, Cipolla
(2009), Semantic object classes in video: a high-definition ground truth database.
"""

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.data.formats.archive import opened
from jaxssl.data.formats.packed_jpeg import PackedJpeg
from jaxssl.data.images import Options, options
from jaxssl.data.source import Array, split_names, stored_at
from jaxssl.method import Field

VOID = "void"


def open(config: Any, split: str) -> "CamVid":
    """Opens `camvid_<split>.npz` in the folder `data.path`."""
    folder = stored_at(config)
    files = [folder / f"camvid_{name}.npz" for name in split_names(config, split)]
    for file in files:
        if file.is_file():
            return CamVid(file, options(config))
    wanted = " or ".join(file.name for file in files)
    raise ConfigError(f"data.path: {folder}: expected the folder with {wanted}")


class CamVid(PackedJpeg):
    """Scenes with the further field `labels`, uint8 [H, W]: cut and resized as the image is, to the
    labels of the nearest pixels. A scene as a whole has no class.

    Attributes:
      pixel_label_names: one name for each class of pixels; a label beyond them is of no class.
    """

    def __init__(self, file: pathlib.Path, opts: Options):
        super().__init__(file, f"camvid {file.stem}", opts)
        self.label_names = ()  # those of the file name pixels
        with opened(file) as arrays:
            masks = arrays["masks"]
            names = [str(name) for name in arrays.class_names() or arrays["label_names"]]
        if masks.dtype != np.uint8 or masks.ndim != 3:
            raise ConfigError(
                f"data.path: {file}: masks is {masks.dtype} {list(masks.shape)}; expected uint8 "
                "[N, H, W]"
            )
        if len(masks) != len(self):
            raise ConfigError(f"data.path: {file} has {len(self)} images and {len(masks)} masks")
        self.pixel_label_names = tuple(names[:-1] if names[-1] == VOID else names)
        self.labels_of_pixels = centre_square(masks, opts.size) if opts.size else masks
        shape = self.labels_of_pixels.shape[1:]
        sides = self.fields["image"].shape[:2]
        if shape != sides:
            raise ConfigError(f"data.path: {file} has masks of {shape} for images of {sides}")
        self.fields = {**self.fields, "labels": Field("mask", shape, "uint8")}
        digest = hashlib.blake2b(f"{self.fingerprint} {names}".encode(), digest_size=8)
        digest.update(masks.tobytes())
        self.fingerprint = digest.hexdigest()

    def rows(self, indices: Sequence[int] | Array) -> dict[str, Array]:
        """The samples at `indices`, stacked: index [B], image [B, H, W, C], labels [B, H, W]."""
        batch = super().rows(indices)
        return {**batch, "labels": self.labels_of_pixels[batch["index"]]}


def centre_square(masks: Array, size: int) -> Array:
    """[N, H, W] -> [N, size, size]: of each centre square, the nearest pixels.

    >>> centre_square(np.arange(12).reshape(1, 2, 6), 1).tolist()
    [[[9]]]
    """
    short = min(masks.shape[1:])
    nearest = np.floor((np.arange(size) + 0.5) * short / size).astype(int)
    top, left = ((side - short) // 2 for side in masks.shape[1:])
    found: Array = masks[:, top + nearest][:, :, left + nearest]
    return found
