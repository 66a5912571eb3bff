"""A mixture of sets by weight: a block of samples has exactly so many of each.

    config.data.source = "mixture"
    config.data.mixture = (dict(weight=3.0, source="npz", path="a"), dict(weight=1.0, path="b"))

Each entry has the fields of `data` where its own do not replace them. Which set the sample at
position i of a run is of, and which of its samples, is a function of (seed, i): positions are cut
in blocks of 2,048, the sets' shares of a block are fixed and their places in it shuffled, and every
set is read in an order of its own, epoch after epoch (as in levanter's mixtures). So nothing is
kept, and another batch size reads the same sequence. Where a small set ends within a batch, a
sample of it may be in the batch twice. Evaluations read the sets one after another, whole.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxssl import data
from jaxssl.config.errors import ConfigError
from jaxssl.data.order import fold_seed, permute
from jaxssl.data.source import Array, Source

BLOCK = 2048


def open(config: Any, split: str) -> "Mixture":
    """Opens a split of every set of `data.mixture`.

    Raises:
      ConfigError: no sets, a weight that is none, or sets whose fields differ.
    """
    entries = config.get("mixture", ())
    if not isinstance(entries, tuple | list) or not entries:
        raise ConfigError(f"data.mixture: found {entries!r}, expected (dict(weight=...), ...)")
    base = {k: v for k, v in config.to_dict().items() if k not in ("mixture", "source")}
    parts, weights = [], []
    for i, entry in enumerate(entries):
        where = f"data.mixture[{i}]"
        if not hasattr(entry, "items") or "source" not in entry:
            raise ConfigError(f"{where}: found {entry!r}, expected a source and a weight")
        own = dict(entry)
        weight = own.pop("weight", 1.0)
        if not isinstance(weight, int | float) or isinstance(weight, bool) or not weight > 0:
            raise ConfigError(f"{where}.weight: found {weight!r}, expected a number above zero")
        if own["source"] == "mixture":
            raise ConfigError(f"{where}.source: found a mixture in a mixture, expected a set")
        try:
            parts.append(data.load(ConfigDict({**base, **own}), split))
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        weights.append(float(weight))
    return Mixture(parts, weights)


class Mixture:
    """Sources one after another as one, and the order that mixes them.

    Args:
      parts: sources of the same fields and classes.
      weights: their shares of what is read, above zero, of any sum.

    Raises:
      ConfigError: fields or classes differ, or a share of less than one sample a block.

    >>> from jaxssl.data.images import ArraySource
    >>> sets = [ArraySource(n, np.full((9, 4, 4), i, np.uint8), None) for i, n in enumerate("ab")]
    >>> mixture = Mixture(sets, [3.0, 1.0])
    >>> ids = mixture.order(512, seed=0)
    >>> sum((ids[step] < 9).sum() for step in range(4)).item()  # of 2,048 samples
    1536
    """

    def __init__(self, parts: Sequence[Source], weights: Sequence[float]):
        self.parts, self.weights = list(parts), list(weights)
        first = parts[0]
        for part in parts[1:]:
            if dict(part.fields) != dict(first.fields) or part.label_names != first.label_names:
                raise ConfigError(
                    f"data.mixture: {part.name} and {first.name} differ in fields or classes, "
                    "expected the same"
                )
        self.name = "mixture of " + ", ".join(part.name for part in parts)
        self.fields, self.label_names = first.fields, first.label_names
        self.counts = shares(self.weights)
        self.starts = np.cumsum([0, *map(len, parts)])
        text = repr(([part.fingerprint for part in parts], self.weights))
        self.fingerprint = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 without labels."""
        return self.parts[0].num_classes

    @property
    def bad_records(self) -> list[str]:
        """A line on each bad record met so far, of all sets."""
        return [line for part in self.parts for line in part.bad_records]

    def __len__(self) -> int:
        return int(self.starts[-1])

    def rows(self, indices: Sequence[int] | Array) -> dict[str, Array]:
        """The samples at `indices`, stacked; `index` counts over all sets."""
        index = np.asarray(indices, np.int32)
        of_part = np.searchsorted(self.starts, index, side="right") - 1
        found: dict[str, Array] = {}
        for p, part in enumerate(self.parts):
            places = np.flatnonzero(of_part == p)
            if not len(places):
                continue
            rows = part.rows(index[places] - self.starts[p])
            for name, values in rows.items():
                whole = found.setdefault(
                    name, np.zeros((len(index), *values.shape[1:]), values.dtype)
                )
                whole[places] = values
        return {**found, "index": index}

    def where(self, i: int) -> str:
        """Sample i for people, as of its set."""
        p = int(np.searchsorted(self.starts, i, side="right") - 1)
        return self.parts[p].where(int(i - self.starts[p]))

    def order(self, global_batch: int, seed: int) -> "MixtureOrder":
        """The sample ids of every step."""
        return MixtureOrder([len(p) for p in self.parts], self.counts, global_batch, seed)


def shares(weights: Sequence[float]) -> Array:
    """How many samples of a block are of each set: in proportion, the largest remainders first.

    Raises:
      ConfigError: a set would have none.

    >>> shares([2.0, 1.0]).tolist()
    [1365, 683]
    """
    exact = np.asarray(weights) / np.sum(weights) * BLOCK
    counts = np.floor(exact).astype(int)
    rest = np.argsort(counts - exact, kind="stable")[: BLOCK - counts.sum()]
    counts[rest] += 1
    if not counts.all():
        raise ConfigError(
            f"data.mixture: found weights {list(weights)}, expected at least 1 in {BLOCK} of each"
        )
    return counts


class MixtureOrder:
    """Element s is the sample ids [B] of step s."""

    def __init__(self, sizes: Sequence[int], counts: Array, global_batch: int, seed: int):
        self._sizes, self._counts = list(sizes), counts
        self._starts = np.cumsum([0, *sizes])
        self._batch, self._seed = global_batch, seed

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, step: int) -> Array:
        positions = int(step) * self._batch + np.arange(self._batch)
        blocks = positions // BLOCK
        found = np.zeros(self._batch, np.int64)
        for block in np.unique(blocks).tolist():
            mine = blocks == block
            found[mine] = self._block(block, positions[mine] % BLOCK)
        return found

    def _block(self, block: int, slots: Array) -> Array:
        """The ids at some slots of a block."""
        seed = fold_seed(self._seed, "mixture")
        # Slots are numbers of the block's samples, set by set: where a set's lie, and which it is.
        drawn = permute(slots, BLOCK, seed, block)
        ends = np.cumsum(self._counts)
        of_part = np.searchsorted(ends, drawn, side="right")
        ids = np.zeros(len(slots), np.int64)
        for p, size in enumerate(self._sizes):
            mine = of_part == p
            rank = drawn[mine] - (ends[p] - self._counts[p])
            epochs, places = np.divmod(block * self._counts[p] + rank, size)
            order = fold_seed(self._seed, f"set {p}")
            own = np.zeros(len(rank), np.int64)
            for epoch in np.unique(epochs).tolist():
                of_epoch = epochs == epoch
                own[of_epoch] = permute(places[of_epoch], size, order, epoch)
            ids[mine] = self._starts[p] + own
        return ids

    def stand_in(self, step: int, place: int, turn: int) -> int | None:
        """None: a sample that cannot be read ends a run of a mixture."""
        return None
