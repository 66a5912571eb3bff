"""Image files in folders: `<path>/<split>/<class>/*.jpg`; for train alone `<path>/<class>/*.jpg`.

Classes are the folders' names in alphabetical order, those of the train split for every split. A
split with images and no folders has no labels.
"""

import hashlib
import pathlib
from typing import Any

from jaxssl.config.errors import ConfigError, near
from jaxssl.data.images import EncodedSource, Options, options
from jaxssl.data.source import SPLITS, split_names, stored_at

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def open(config: Any, split: str) -> "ImageFolder":
    """Opens the images of a split under the folder `data.path`."""
    root = stored_at(config)
    if not root.is_dir():
        raise ConfigError(
            f"data.path: {root} is not a folder; expected <split>/<class>/*.jpg in it"
        )
    train = _folder(root, split_names(config, "train"))
    folder = _folder(root, split_names(config, split))
    split_folders = [name for names in SPLITS.values() for name in names if (root / name).is_dir()]
    if folder is None and split == "train" and not split_folders:
        folder = root  # no splits on disk: the classes lie directly under the root
    if folder is None:
        wanted = " or ".join(str(root / name) for name in split_names(config, split))
        raise ConfigError(f"data.path: no folder {wanted} for the {split} split")
    return ImageFolder(
        folder, train or folder, f"image_folder {root.name} {split}", options(config)
    )


class ImageFolder(EncodedSource):
    """The images under `folder`, sorted by path, with the classes of `train`."""

    def __init__(self, folder: pathlib.Path, train: pathlib.Path, name: str, opts: Options):
        classes, found = _classes(train), _classes(folder)
        unknown = sorted(set(found) - set(classes))
        if unknown:
            known = near(unknown[0], classes)
            raise ConfigError(f"data.path: {folder / unknown[0]} is no class of {train}{known}")
        self.folder = folder
        self.files: list[str] = []
        self.labels: list[int] = []
        for label in found or [""]:
            files = sorted(
                str(file.relative_to(folder))
                for file in (folder / label).rglob("*")
                if file.suffix.lower() in SUFFIXES
            )
            if label and not files:
                raise ConfigError(
                    f"data.path: {folder / label} is a class without an image "
                    f"({' '.join(SUFFIXES)}); fill the folder or remove it"
                )
            self.files += files
            self.labels += [classes.index(label)] * len(files) if label else []
        if not self.files:
            raise ConfigError(f"data.path: {folder} holds no image ({' '.join(SUFFIXES)})")
        identity = hashlib.blake2b("\n".join(self.files).encode()).hexdigest()
        super().__init__(name, len(self.files), classes if self.labels else (), opts, identity)

    def encoded(self, i: int) -> tuple[bytes, int | None]:
        """The bytes and the label of sample i."""
        return (self.folder / self.files[i]).read_bytes(), self.labels[i] if self.labels else None

    def where(self, i: int) -> str:
        """Sample i for people: its file."""
        return str(self.folder / self.files[i])


def _folder(root: pathlib.Path, names: tuple[str, ...]) -> pathlib.Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _classes(folder: pathlib.Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
