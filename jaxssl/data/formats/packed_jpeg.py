"""Encoded images packed into one npz file per split: `<name>_<split>.npz`.

Arrays: `jpeg`, uint8, all image files one after another; `offsets`, int64 [N + 1], where image i is
`jpeg[offsets[i]:offsets[i + 1]]`; optionally `y` [N], the labels, and `label_names` [classes].
"""

import hashlib
import pathlib
from typing import Any

import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.data.formats.archive import class_numbers, opened
from jaxssl.data.images import EncodedSource, Options, options
from jaxssl.data.source import Array, split_names, stored_at


def open(config: Any, split: str) -> "PackedJpeg":
    """Opens `<name>_<split>.npz` in the folder `data.path`, or beside the file of that name."""
    file = _find(stored_at(config), split_names(config, split))
    return PackedJpeg(file, f"packed_jpeg {file.stem}", options(config))


class PackedJpeg(EncodedSource):
    """The images of one packed file; the encoded bytes stay in memory."""

    def __init__(self, file: pathlib.Path, name: str, opts: Options):
        self.file = file
        with opened(file) as arrays:
            self.bytes, self.offsets = arrays["jpeg"], arrays["offsets"]
            labels = arrays["y"] if "y" in arrays.names else None
            names = arrays.class_names() or ()
        samples = _check(file, self.bytes, self.offsets)
        self.labels = labels
        identity = hashlib.blake2b(self.offsets.tobytes())
        if labels is not None:
            self.labels = class_numbers(labels, f"{file}: y", samples, len(names) or None)
            identity.update(self.labels.tobytes())
            names = names or tuple(range(int(self.labels.max()) + 1))
        super().__init__(name, samples, names, opts, identity.hexdigest())

    def encoded(self, i: int) -> tuple[bytes, int | None]:
        """The bytes and the label of sample i."""
        content = self.bytes[self.offsets[i] : self.offsets[i + 1]].tobytes()
        return content, None if self.labels is None else int(self.labels[i])

    def where(self, i: int) -> str:
        """Sample i for people: its place in the file."""
        return f"{self.file}: image {i}"


def _check(file: pathlib.Path, content: Array, offsets: Array) -> int:
    """The number of images, where every one of them lies within the bytes."""
    for name, found, kinds in (("jpeg", content, "uint8"), ("offsets", offsets, "whole numbers")):
        fits = found.dtype == np.uint8 if name == "jpeg" else found.dtype.kind in "iu"
        if found.ndim != 1 or not fits:
            raise ConfigError(
                f"data.path: {file}: {name} is {found.dtype} {list(found.shape)}; expected {kinds} "
                "in one dimension"
            )
    if len(offsets) < 2:
        raise ConfigError(f"data.path: {file} has no samples: {len(offsets)} offsets")
    first, last = offsets[:-1], offsets[1:]
    outside = (first < 0) | (last < first) | (last > len(content))
    if outside.any():
        i = int(np.argmax(outside))
        raise ConfigError(
            f"data.path: {file}: image {i} has the bytes {first[i]} to {last[i]}, of "
            f"{len(content)} that are there; the file is damaged or cut short"
        )
    return len(first)


def _find(path: pathlib.Path, names: tuple[str, ...]) -> pathlib.Path:
    folder, prefix = path, "*"
    if path.suffix == ".npz":
        folder, prefix = path.parent, path.stem.rpartition("_")[0]
    for name in names:
        files = sorted(folder.glob(f"{prefix}_{name}.npz"))
        if len(files) > 1:
            found = ", ".join(file.name for file in files)
            raise ConfigError(f"data.path: {folder} has {found}; give the path of one of them")
        if files:
            return files[0]
    wanted = " or ".join(f"{prefix}_{name}.npz" for name in names)
    state = "is not there" if not folder.is_dir() else f"has no {wanted}"
    raise ConfigError(f"data.path: {folder} {state}; expected packed images in {wanted}")
