"""Arrays out of npz files, without unpickling anything; and labels that are numbers of classes."""

import contextlib
import pathlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxssl.config.errors import ConfigError

MOST_CLASSES = 2**20
"""Where no names are stored, a higher label is taken for a fault, not for a class."""


class Archive:
    """The arrays of an open npz file, each read when it is asked for.

    Attributes:
      names: of the arrays.
    """

    def __init__(self, file: pathlib.Path, arrays: Any):
        self.file, self.names, self._arrays = file, tuple(arrays.files), arrays

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            found = ", ".join(self.names) or "nothing"
            raise ConfigError(f"data.path: {self.file} has no {name!r}; found {found}")
        place = f"data.path: {self.file}: {name}"
        try:
            array = self._arrays[name]
        except MemoryError as error:
            raise ConfigError(f"{place} does not fit the memory") from error
        except (OSError, ValueError, EOFError, NotImplementedError) as error:
            if "Object arrays" in str(error):
                raise ConfigError(
                    f"{place} holds Python objects, which are never unpickled; expected numbers"
                ) from error
            raise ConfigError(f"{place} cannot be read: {_one_line(error)}") from error
        except (zipfile.BadZipFile, zlib.error) as error:
            raise ConfigError(f"{place} is damaged: {_one_line(error)}; copy the file") from error
        if not isinstance(array, np.ndarray):
            raise ConfigError(f"{place} is not an array")
        return array

    def class_names(self) -> tuple[Any, ...] | None:
        """`label_names`, where the file has them."""
        if "label_names" not in self.names:
            return None
        found = self["label_names"]
        if found.ndim != 1 or not len(found):
            raise ConfigError(
                f"data.path: {self.file}: label_names is {found.dtype} {list(found.shape)}; "
                "expected one name for each class"
            )
        return tuple(found)


@contextlib.contextmanager
def opened(file: pathlib.Path) -> Iterator[Archive]:
    """The npz file, open as long as the `with` block lasts.

    Raises:
      ConfigError: it cannot be opened, is cut short or is no npz file.
    """
    with contextlib.ExitStack() as stack:
        try:
            # Opened here: numpy leaves a file open that turns out to be no archive.
            stream = stack.enter_context(file.open("rb"))
            arrays = np.load(stream, allow_pickle=False)
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(
                f"data.path: {file} is no npz file, or only a part of one; copy or make it again"
            ) from error
        except OSError as error:
            raise ConfigError(f"data.path: {file}: {error.strerror or error}") from error
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ConfigError(f"data.path: {file} holds a bare array; expected npz (np.savez)")
        yield Archive(file, stack.enter_context(arrays))


def class_numbers(labels: np.ndarray, place: str, samples: int, classes: int | None) -> np.ndarray:
    """Labels [N] or [N, 1] as int32 [N]; whole numbers in floating point are taken.

    Args:
      labels: as stored.
      place: how messages call them.
      samples: N.
      classes: one more than the largest label; None where no names of classes are stored.

    Raises:
      ConfigError: another shape or number of labels, or a label that is no class; the first such.

    >>> class_numbers(np.array([[0.0], [2.0]]), "y", 2, None)
    array([0, 2], dtype=int32)
    """
    if labels.shape not in ((samples,), (samples, 1)) or labels.dtype.kind not in "biuf":
        raise ConfigError(
            f"data.path: {place} is {labels.dtype} {list(labels.shape)}; expected whole numbers "
            f"[{samples}], one for each sample"
        )
    flat = labels.reshape(samples)
    bound = MOST_CLASSES if classes is None else classes
    with np.errstate(invalid="ignore"):
        fits = (flat >= 0) & (flat < bound) & (flat == np.floor(flat))  # NaN fits nothing
    if not fits.all():
        first = int(np.argmin(fits))
        raise ConfigError(
            f"data.path: {place}[{first}] is {flat[first]}; expected a whole number from 0 to "
            f"{bound - 1}" + ("" if classes is None else f", as there are {classes} label_names")
        )
    whole: np.ndarray = flat.astype(np.int32)
    return whole


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
