"""What the report shows of a run's samples: images, features, and nearest neighbours by cosine."""

import io
import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxssl.config.errors import ConfigError
from jaxssl.report import writers

FILE, PICTURES = "samples.npz", "pictures.npz"
Pictures = Mapping[str, tuple[Sequence[str], NDArray]]


class Samples(NamedTuple):
    """Held-out images and a bank of others, with the trained encoder's features of both.

    Attributes:
      images: uint8 [n, H, W, C].
      labels: int [n].
      features: float [n, D].
      bank_images: uint8 [N, H, W, C]; none of `images` among them.
      bank_labels: int [N].
      bank_features: float [N, D].
      label_names: the name of each label; may be empty.
      random_features: float [N, D], those of the bank at random init; None is not known.
    """

    images: NDArray
    labels: NDArray
    features: NDArray
    bank_images: NDArray
    bank_labels: NDArray
    bank_features: NDArray
    label_names: Sequence[str] = ()
    random_features: NDArray | None = None


def save(workdir: str | os.PathLike[str], samples: Samples) -> None:
    """Writes them to the workdir."""
    rows = {name: value for name, value in samples._asdict().items() if value is not None}
    rows["label_names"] = np.asarray(samples.label_names, dtype=str)
    _write(pathlib.Path(workdir) / FILE, rows)


def load(workdir: str | os.PathLike[str]) -> Samples | None:
    """What `save` wrote; None where there is nothing, or not all that is needed.

    Raises:
      ConfigError: the file is broken.
    """
    rows = _arrays(pathlib.Path(workdir) / FILE)
    needed = set(Samples._fields) - set(Samples._field_defaults)
    known = {name: value for name, value in rows.items() if name in Samples._fields}
    return Samples(**known) if known.keys() >= needed else None


def save_pictures(workdir: str | os.PathLike[str], pictures: Pictures) -> None:
    """Writes title -> (captions, uint8 [n, K, h, w, C])."""
    rows: dict[str, Any] = {title: images for title, (_, images) in pictures.items()}
    rows |= {f"{title}/captions": np.asarray(c) for title, (c, _) in pictures.items()}
    _write(pathlib.Path(workdir) / PICTURES, rows)


def load_pictures(workdir: str | os.PathLike[str]) -> Pictures:
    """What `save_pictures` wrote.

    Raises:
      ConfigError: the file is broken.
    """
    rows = _arrays(pathlib.Path(workdir) / PICTURES)
    return {
        title: (rows[f"{title}/captions"].tolist(), images)
        for title, images in rows.items()
        if f"{title}/captions" in rows
    }


def neighbours(features: NDArray, bank: NDArray, k: int) -> tuple[NDArray, NDArray]:
    """(indices, cosines), both [n, k], of each row's nearest in the bank [N, D], nearest first.

    What is not finite counts as 0, so that a broken run still has a picture.
    """

    def unit(x: NDArray) -> NDArray:
        x = np.nan_to_num(x.astype(np.float32), posinf=0, neginf=0)
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    cosines = unit(features) @ unit(bank).T
    found = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return found, np.take_along_axis(cosines, found, axis=1)


def _write(path: pathlib.Path, rows: Mapping[str, Any]) -> None:
    packed = io.BytesIO()
    np.savez_compressed(packed, **rows)
    writers.write_bytes(path, packed.getvalue())


def _arrays(path: pathlib.Path) -> dict[str, Any]:
    """The arrays of a file, none where it is absent.

    Raises:
      ConfigError: it is broken.
    """
    if not path.exists():
        return {}
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (zipfile.BadZipFile, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{path}: found {reason}, expected the arrays that a run writes; "
            "remove it to have a report without pictures"
        ) from None
