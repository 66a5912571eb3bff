"""A part of a training split: only the samples at some of its stored positions."""

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from jaxssl.data.bad import Unreadable
from jaxssl.data.source import Array, Source
from jaxssl.errors import ConfigError


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


def _is_range(found: Any, samples: int) -> bool:
    if not isinstance(found, tuple | list) or len(found) != 2:
        return False
    if not all(isinstance(x, int) and not isinstance(x, bool) for x in found):
        return False
    first, last = found
    return bool(0 <= first < last <= samples)


class Part(Source):
    """Some samples of a source, themselves a source.

    `index` counts them 0 ... N - 1, because tables by sample have N rows; `stored` says where they
    lie in the whole. The images are decoded, and cached, by the whole.

    Args:
      whole: the source.
      positions: stored positions [N] in it, none twice.

    >>> from jaxssl.data.source import ArraySource
    >>> whole = ArraySource("set", np.zeros((9, 4, 4), np.uint8), None)
    >>> part = Part(whole, np.array([3, 7]))
    >>> len(part), part[1]["index"].tolist(), part.stored([1]).tolist()
    (2, 1, [7])
    """

    def __init__(self, whole: Source, positions: Array):
        self.whole = whole
        self.positions = np.asarray(positions, np.int64)
        taken = hashlib.blake2b(self.positions.astype("<i8").tobytes()).hexdigest()
        super().__init__(
            f"{whole.name}, {len(positions)} of {len(whole)} samples",
            len(positions),
            whole.label_names,
            whole._options,
            (whole.fingerprint, taken),
        )

    def stored(self, index: Sequence[int] | Array) -> Array:
        """The positions in the whole of the samples at `index` [B]."""
        found: Array = self.positions[np.asarray(index)]
        return found

    def read(self, i: int) -> tuple[Image.Image | Array, int | None]:
        """Sample i as stored."""
        return self.whole.read(int(self.positions[i]))

    def gather(self, index: Array) -> tuple[Array, Array]:
        """Images [B, ...] and labels [B] (-1: none) at `index`, as of the whole."""
        return self.whole.gather(self.positions[index])

    def where(self, i: int) -> str:
        """Sample i for people, as of the whole."""
        return self.whole.where(int(self.positions[i]))

    @property
    def bad_records(self) -> list[str]:
        """A line on each bad record met so far, as of the whole."""
        return self.whole.bad_records

    def _note(self, i: int, error: Unreadable) -> None:
        self.whole._note(int(self.positions[i]), error)

    def _refuse_known(self, index: Array) -> None:
        self.whole._refuse_known(self.positions[index])

    def _new_cache(self) -> None:
        return None
