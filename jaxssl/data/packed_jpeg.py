"""Encoded images packed into one npz file per split: `<name>_<split>.npz`.

Arrays: `jpeg`, uint8, all image files one after another; `offsets`, int64 [N + 1], where image i is
`jpeg[offsets[i]:offsets[i + 1]]`; optionally `y` [N], the labels, and `label_names` [classes].
"""

import hashlib
import pathlib
from typing import Any

import numpy as np

from jaxssl.data.source import EncodedSource, Options, options, split_names
from jaxssl.errors import ConfigError


def open(config: Any, split: str) -> "PackedJpeg":
    """Opens `<name>_<split>.npz` in the folder `data.path`, or beside the file of that name."""
    file = _find(pathlib.Path(config.get("path", "")).expanduser(), split_names(config, split))
    return PackedJpeg(file, f"packed_jpeg {file.stem}", options(config))


class PackedJpeg(EncodedSource):
    """The images of one packed file; the encoded bytes stay in memory."""

    def __init__(self, file: pathlib.Path, name: str, opts: Options):
        with np.load(file, allow_pickle=False) as arrays:
            missing = sorted({"jpeg", "offsets"} - set(arrays.files))
            if missing:
                raise ConfigError(f"data.path: {file} has no {missing[0]!r}; found {arrays.files}")
            self.bytes, self.offsets = arrays["jpeg"], arrays["offsets"]
            self.labels = arrays["y"].astype(np.int32) if "y" in arrays.files else None
            names = tuple(arrays["label_names"]) if "label_names" in arrays.files else ()
        identity = hashlib.blake2b(self.offsets.tobytes())
        if self.labels is not None:
            identity.update(self.labels.tobytes())
            names = names or tuple(range(int(self.labels.max()) + 1))
        super().__init__(name, len(self.offsets) - 1, names, opts, identity.hexdigest())

    def encoded(self, i: int) -> tuple[bytes, int | None]:
        """The bytes and the label of sample i."""
        content = self.bytes[self.offsets[i] : self.offsets[i + 1]].tobytes()
        return content, None if self.labels is None else int(self.labels[i])


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
