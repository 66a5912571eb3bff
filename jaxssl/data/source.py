"""The `Source`: random access to samples of fixed shapes, with stable ids; and arrays as one."""

import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.data.formats.archive import class_numbers
from jaxssl.method import INDEX, LABEL, Field

Array = np.ndarray
SPLITS = {"train": ("train", "training"), "test": ("test", "val", "validation")}


class Source(Protocol):
    """Samples by position, for one split; each module of `jaxssl.data` with an `open` gives one.

    Every sample has `index` (int32; its position, the same in every run), and what else `fields`
    says, each of one shape. A source is picklable and may be read from several threads.

    Attributes:
      name: for people, e.g. "packed_jpeg cifar10 train".
      fields: name in a batch -> its kind, shape and dtype.
      label_names: one name per class, () without labels.
      num_classes: of the field "label", 0 without.
      fingerprint: a short hash of what identifies the samples; equal in every process.
      bad_records: a line on each record met so far that could not be read.
    """

    name: str
    fields: Mapping[str, Field]
    label_names: tuple[str, ...]
    fingerprint: str

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 without labels."""
        ...

    @property
    def bad_records(self) -> list[str]:
        """A line on each record met so far that could not be read."""
        ...

    def __len__(self) -> int: ...

    def rows(self, indices: Sequence[int] | Array) -> dict[str, Array]:
        """The samples at `indices`, stacked: field -> [B, ...]. May raise `BadRecords`."""
        ...

    def where(self, i: int) -> str:
        """Sample i for people: its file, and its place there."""
        ...


class Arrays:
    """Arrays in memory as a source, of any kind: what is stored is what a batch holds.

    Args:
      name: for people.
      columns: field -> what it is, and its values [N, ...], of the dtype and shape of the field.
      labels: classes [N], or None.
      label_names: one name per class; () are their numbers.
      place: how messages call what the arrays lie in; the name by default.

    Raises:
      ConfigError: no samples, columns that do not fit each other or their fields, labels that are
        no classes.

    >>> wave = Field("audio", (4,), "float32", {"rate": 8000})
    >>> source = Arrays("waves train", {"audio": (wave, np.ones((3, 4), np.float32))})
    >>> source.rows([2])["index"].tolist(), source.rows([2])["audio"].dtype.name
    ([2], 'float32')
    """

    def __init__(
        self,
        name: str,
        columns: Mapping[str, tuple[Field, Array]],
        labels: Array | None = None,
        label_names: Sequence[str] = (),
        place: str = "",
    ):
        self.name, self._place = name, place or name
        sizes = {column: len(values) for column, (_, values) in columns.items()}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            raise ConfigError(f"data.path: {self._place}: found {sizes} samples, expected as many")
        self._num_samples = next(iter(sizes.values()))
        for column, (field, values) in columns.items():
            if (values.dtype.name, values.shape[1:]) != (field.dtype, field.shape):
                raise ConfigError(
                    f"data.path: {self._place}: {column} is {values.dtype} "
                    f"{list(values.shape)}, expected {field.dtype} {['N', *field.shape]}"
                )
        self._columns = {column: values for column, (_, values) in columns.items()}
        self.fields: Mapping[str, Field] = {"index": INDEX} | {
            c: f for c, (f, _) in columns.items()
        }
        self.label_names = tuple(str(label) for label in label_names)
        if labels is not None:
            known = len(self.label_names) or None
            place = f"labels of {self._place}"
            labels = class_numbers(labels, place, self._num_samples, known)
            self.label_names = self.label_names or tuple(map(str, range(int(labels.max()) + 1)))
            self._columns["label"] = labels
            self.fields = {**self.fields, "label": LABEL}
        digest = hashlib.blake2b(
            repr((name, self.fields, self.label_names)).encode(), digest_size=8
        )
        for column in sorted(self._columns):
            digest.update(np.ascontiguousarray(self._columns[column]).tobytes())
        self.fingerprint = digest.hexdigest()

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 without labels."""
        return len(self.label_names)

    @property
    def bad_records(self) -> list[str]:
        """None: what lies in memory was read."""
        return []

    def __len__(self) -> int:
        return self._num_samples

    def rows(self, indices: Sequence[int] | Array) -> dict[str, Array]:
        """The samples at `indices`, stacked: field -> [B, ...]."""
        index = np.asarray(indices, np.int32)
        return {"index": index} | {name: values[index] for name, values in self._columns.items()}

    def where(self, i: int) -> str:
        """Sample i for people."""
        return f"sample {i} of {self._place}"


def stored_at(config: Any) -> pathlib.Path:
    """`data.path`, of a set that is stored.

    Raises:
      ConfigError: it is empty or no path.
    """
    path = config.get("path", "")
    if not isinstance(path, str | os.PathLike) or not str(path) or "\0" in str(path):
        raise ConfigError(f"data.path: found {path!r}, expected the folder or file of the data")
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:  # "~name" of nobody
        raise ConfigError(f"data.path: {path}: {error}") from error


def split_names(config: Any, split: str) -> tuple[str, ...]:
    """Names that `split` may have on disk, the likeliest first; one, where the config names it."""
    named = config.get(f"{split}_split", "")
    if not named:
        return SPLITS[split]
    if not isinstance(named, str) or set(named) & set("*?\0\\"):
        raise ConfigError(f"data.{split}_split: found {named!r}, expected the name of a split")
    if named.startswith("/") or ".." in named.split("/"):
        raise ConfigError(f"data.{split}_split: found {named!r}, which leaves the data.path")
    return (named,)
