"""Images as arrays in one npz file: `x_train` and `y_train`, or `train_images` and `train_labels`.

Images are uint8 [N, H, W] or [N, H, W, C], labels [N] or [N, 1]; `label_names` is optional.
"""

import pathlib
from typing import Any

from jaxssl.config.errors import ConfigError
from jaxssl.data.formats.archive import opened
from jaxssl.data.images import ArraySource, options
from jaxssl.data.source import split_names, stored_at

PATTERNS = (("x_{}", "y_{}"), ("{}_images", "{}_labels"))


def open(config: Any, split: str) -> ArraySource:
    """Opens the split of the npz file at `data.path`, or of the only one in that folder."""
    file = _find(stored_at(config))
    with opened(file) as arrays:
        names = arrays.names
        for name in split_names(config, split):
            for images, labels in PATTERNS:
                if images.format(name) in names:
                    return ArraySource(
                        f"npz {file.stem} {name}",
                        arrays[images.format(name)],
                        arrays[labels.format(name)] if labels.format(name) in names else None,
                        arrays.class_names() or (),
                        options(config),
                        f"{file} ({images.format(name)}, {labels.format(name)})",
                    )
    wanted = " or ".join(i.format(n) for n in split_names(config, split) for i, _ in PATTERNS)
    raise ConfigError(f"data.path: {file} has {', '.join(names)}; expected {wanted}")


def _find(path: pathlib.Path) -> pathlib.Path:
    if path.is_file():
        return path
    files = sorted(path.glob("*.npz")) if path.is_dir() else []
    if len(files) == 1:
        return files[0]
    found = ", ".join(file.name for file in files) or "no such file or folder with one"
    raise ConfigError(f"data.path: {path}: expected one npz file, found {found}")
