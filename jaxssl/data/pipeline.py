"""Batches as a pure function of the step: no iterator state to save, no worker count to repeat."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import grain
import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.data.bad import BadRecords
from jaxssl.data.order import Order
from jaxssl.data.source import Source

Batch = dict[str, np.ndarray]
Transform = Callable[[Batch], Batch]


class Stream(NamedTuple):
    """A source, its samples in a step over all devices, and the seed of its order."""

    source: Source
    batch: int
    seed: int


def plan(num_samples: int, *, seed: int, global_batch: int) -> grain.MapDataset:
    """The endless plan of a run: element s is the sample ids [B] of the global batch of step s.

    Shuffled, then batched, then repeated: each epoch is a new order of all N samples, cut into
    N // B batches (what is left over waits for another epoch), so no sample is twice in a batch.

    >>> plan(10, seed=0, global_batch=5)[7].shape
    (5,)

    Raises:
      ConfigError: a global batch larger than the data set.
    """
    if not 1 <= global_batch <= num_samples:
        raise ConfigError(
            f"train.global_batch: {global_batch} does not fit a data set of {num_samples} samples; "
            f"expected 1 to {num_samples}"
        )
    return grain.MapDataset.source(Order(num_samples, global_batch, seed))


def order_of(source: Source, global_batch: int, seed: int) -> Any:
    """The sample ids [B] of every step: the source's own `order`, or else as `plan`.

    Raises:
      ConfigError: a global batch that does not fit.
    """
    if hasattr(source, "order"):
        return source.order(global_batch, seed)
    plan(len(source), seed=seed, global_batch=global_batch)
    return Order(len(source), global_batch, seed)


def dataset(
    source: Source,
    *,
    seed: int,
    global_batch: int,
    process_index: int = 0,
    process_count: int = 1,
    transform: Transform | None = None,
) -> grain.MapDataset:
    """This process's rows of every global batch: element s is its part of step s.

    Process p of P has the rows [p B / P, (p + 1) B / P), so the parts, one after another, are the
    batch that one process would have.

    With `data.on_bad_record` "skip", the place of a sample that cannot be decoded goes to the
    sample that has the same place in the next batch of the epoch that can (`Order.stand_in`), whose
    `index` the batch then has. Which samples are bad lies in their bytes, and a place looks only
    at its own: so the batch is a function of the step on any number of processes, and no sample is
    in it twice; in the epoch it may be.
    """
    if global_batch % process_count:
        raise ConfigError(
            f"train.global_batch: {global_batch} is not divisible by {process_count} processes"
        )
    share = global_batch // process_count
    mine = slice(process_index * share, (process_index + 1) * share)

    order = order_of(source, global_batch, seed)

    def fetch(step: int, indices: np.ndarray) -> Batch:
        batch = _readable(source, order, int(step), indices[mine], mine.start)
        return transform(batch) if transform else batch

    return grain.MapDataset.source(order).map_with_index(fetch)


def _readable(source: Source, order: Any, step: int, indices: np.ndarray, first: int) -> Batch:
    """The rows at `indices`, the places from `first` of the step; stand-ins for what is skipped."""
    indices, turns = indices.copy(), np.zeros(len(indices), int)
    while True:
        try:
            return source.rows(indices)
        except BadRecords as error:
            if not error.skip:
                raise
            for place in np.flatnonzero(error.bad):
                turns[place] += 1
                found = order.stand_in(step, first + int(place), int(turns[place]))
                if found is None:
                    raise ConfigError(
                        f"{error}; data.on_bad_record=skip finds no sample in its place, of "
                        f"{turns[place]}: repair the data or make train.global_batch smaller"
                    ) from error
                indices[place] = found


def batch_at(source: Source, step: int, **how: Any) -> Batch:
    """The batch of one step; keywords as `dataset`."""
    batch: Batch = dataset(source, **how)[step]
    return batch


def batches(
    source: Source,
    *,
    seed: int,
    global_batch: int,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    transform: Transform | None = None,
    threads: int = 2,
    prefetch: int = 8,
) -> Iterator[Batch]:
    """The batches of the steps `start`, `start + 1`, ..., without end, made ahead by threads.

    `threads` (0: in the caller's thread) and `prefetch`, the most batches made ahead, change the
    speed and never the data. `transform` maps a batch of this process and must be a pure function.
    """
    data = dataset(
        source,
        seed=seed,
        global_batch=global_batch,
        process_index=process_index,
        process_count=process_count,
        transform=transform,
    )
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch if threads else 0)
    return iter(data[start:].to_iter_dataset(ahead))


def stream_batches(
    streams: Mapping[str, Stream],
    *,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    prefetch: int = 8,
) -> Iterator[Batch]:
    """As `batches`, of several streams: the fields of each are "<stream>/<field>".

    A stream without a name keeps the names of its fields.
    """
    parts = {
        name: dataset(
            stream.source,
            seed=stream.seed,
            global_batch=stream.batch,
            process_index=process_index,
            process_count=process_count,
        )
        for name, stream in streams.items()
    }
    data = grain.MapDataset.source(_Together(parts))
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch if threads else 0)
    return iter(data[start:].to_iter_dataset(ahead))


class _Together:
    """Element s has the fields of every part's element s."""

    def __init__(self, parts: Mapping[str, grain.MapDataset]):
        self._parts = parts

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, step: int) -> Batch:
        return {
            f"{name}/{field}" if name else field: rows
            for name, part in self._parts.items()
            for field, rows in part[step].items()
        }


def eval_batches(
    source: Source,
    batch_size: int,
    limit: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """All samples once, in order, in batches of one size; `valid` [B] is False on the padding.

    With a `limit` below N the samples are evenly spaced over the set, as sets are often stored
    class by class. Padding repeats the last sample. Processes get their rows as in `dataset`.
    With `data.on_bad_record` "skip" a sample that cannot be decoded is padding, too.
    """
    if batch_size < 1 or batch_size % process_count:
        raise ConfigError(
            f"evals batch size: {batch_size} is not divisible by {process_count} processes"
        )
    count = min(limit or len(source), len(source))
    rows = np.arange(count, dtype=np.int64) * len(source) // count
    share = batch_size // process_count
    for first in range(0, count, batch_size):
        places = first + process_index * share + np.arange(share)
        batch, good = _readable_or_padding(source, rows, np.minimum(places, count - 1))
        yield {**batch, "valid": good & (places < count)}


def _readable_or_padding(
    source: Source, rows: np.ndarray, places: np.ndarray
) -> tuple[Batch, np.ndarray]:
    """The samples at `rows[places]`, and which of them are none but the next that can be read."""
    good = np.ones(len(places), bool)
    for _ in range(len(rows)):
        try:
            return source.rows(rows[places]), good
        except BadRecords as error:
            if not error.skip:
                raise
            good &= ~error.bad
            last = error
            places = np.where(error.bad, (places + 1) % len(rows), places)
    raise ConfigError(f"{last}; data.on_bad_record=skip leaves none of {len(rows)} samples")
