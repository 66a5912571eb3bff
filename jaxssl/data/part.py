"""What wraps a source; and a part of one, only the samples at some of its stored positions."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.data.source import Array, Source
from jaxssl.method import Field


def positions(ranges: Sequence[Any], samples: int) -> Array:
    """The stored positions [N] in the ranges [first, last), ascending; all of them of no range.

    Args:
      ranges: `data.ranges`, ((first, last), ...) in any order.
      samples: of the whole split.

    Raises:
      ConfigError: a range is none, is empty or leaves the split, or two share a sample.

    >>> positions(((6, 8), (0, 3)), samples=10).tolist()
    [0, 1, 2, 6, 7]
    """
    if not isinstance(ranges, tuple | list):
        raise ConfigError(f"data.ranges: found {ranges!r}, expected ((first, last), ...)")
    for found in ranges:
        if not _is_range(found, samples):
            raise ConfigError(
                f"data.ranges: found {found!r}, expected (first, last) with "
                f"0 <= first < last <= {samples}, the samples of the training split"
            )
    ordered = sorted(tuple(found) for found in ranges)
    for one, other in itertools.pairwise(ordered):
        if other[0] < one[1]:
            raise ConfigError(
                f"data.ranges: found {one} and {other}, which overlap; expected each sample once"
            )
    return np.concatenate([np.arange(*found) for found in ordered or [(0, samples)]])


def stored_positions(source: Source, index: Array) -> Array:
    """Where the samples at `index` [B] lie in the set that a part, or a part of a part, is of."""
    found = source.stored(index) if isinstance(source, Part) else index
    whole = getattr(source, "whole", None)  # of any wrapper
    return found if whole is None else stored_positions(whole, found)


def _is_range(found: Any, samples: int) -> bool:
    if not isinstance(found, tuple | list) or len(found) != 2:
        return False
    if not all(isinstance(x, int) and not isinstance(x, bool) for x in found):
        return False
    first, last = found
    return bool(0 <= first < last <= samples)


class Wrapper:
    """A source over another, `whole`: what a subclass does not have of its own is the whole's.

    One that counts samples anew is a `Part`.

    Args:
      whole: the source.
      name: for people.
      identity: what tells the wrapper from the whole, for the fingerprint.
    """

    def __init__(self, whole: Source, name: str, identity: bytes):
        self.whole, self.name = whole, name
        self.fields: Mapping[str, Field] = whole.fields
        self.label_names = whole.label_names
        content = whole.fingerprint.encode() + identity
        self.fingerprint = hashlib.blake2b(content, digest_size=8).hexdigest()

    @property
    def num_classes(self) -> int:
        """Number of classes of the whole, 0 without labels."""
        return self.whole.num_classes

    @property
    def bad_records(self) -> list[str]:
        """A line on each bad record met so far, as of the whole."""
        return self.whole.bad_records

    def __len__(self) -> int:
        return len(self.whole)

    def rows(self, indices: Sequence[int] | Array) -> dict[str, Array]:
        """The samples at `indices`, stacked, as of the whole."""
        return self.whole.rows(indices)

    def where(self, i: int) -> str:
        """Sample i for people, as of the whole."""
        return self.whole.where(i)


class Part(Wrapper):
    """Some samples of a source, themselves a source.

    `index` counts them 0 ... N - 1, because tables by sample have N rows; `stored` says where they
    lie in the whole, which reads them.

    Args:
      whole: the source.
      positions: stored positions [N] in it; one may be there several times.

    Raises:
      ConfigError: no positions.

    >>> from jaxssl.data.images import ArraySource
    >>> whole = ArraySource("set", np.zeros((9, 4, 4), np.uint8), None)
    >>> part = Part(whole, np.array([3, 7]))
    >>> len(part), part.rows([1])["index"].tolist(), part.stored([1]).tolist()
    (2, [1], [7])
    """

    def __init__(self, whole: Source, positions: Array):
        self.positions = np.asarray(positions, np.int64)
        if not len(self.positions):
            raise ConfigError(f"data.path: found no samples in a part of {whole.name}")
        name = f"{whole.name}, {len(positions)} of {len(whole)} samples"
        super().__init__(whole, name, self.positions.astype("<i8").tobytes())

    def __len__(self) -> int:
        return len(self.positions)

    def rows(self, indices: Sequence[int] | Array) -> dict[str, Array]:
        """The samples at `indices`, stacked, as of the whole but for `index`."""
        index = np.asarray(indices, np.int32)
        return {**self.whole.rows(self.positions[index]), "index": index}

    def stored(self, index: Sequence[int] | Array) -> Array:
        """The positions in the whole of the samples at `index` [B]."""
        found: Array = self.positions[np.asarray(index)]
        return found

    def where(self, i: int) -> str:
        """Sample i for people, as of the whole."""
        return self.whole.where(int(self.positions[i]))


def stored_places(source: Source) -> tuple[Source, Array]:
    """The split as it is stored, and the place [N] in it of each sample of a source.

    Args:
      source: the split itself, or whatever part of a part of it.

    >>> from jaxssl.data.images import ArraySource
    >>> whole = ArraySource("set", np.zeros((9, 4, 4), np.uint8), None)
    >>> stored_places(Part(Part(whole, np.array([3, 5, 7])), np.array([2, 0])))[1].tolist()
    [7, 3]
    """
    root = source
    while hasattr(root, "whole"):
        root = root.whole
    return root, stored_positions(source, np.arange(len(source)))
