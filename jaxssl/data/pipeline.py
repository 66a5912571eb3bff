"""Batches as a pure function of the step: no iterator state to save, no worker count to repeat."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grain
import numpy as np

from jaxssl.data.order import Order
from jaxssl.data.source import Source
from jaxssl.errors import ConfigError

Batch = dict[str, np.ndarray]
Transform = Callable[[Batch], Batch]


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
    """
    if global_batch % process_count:
        raise ConfigError(
            f"train.global_batch: {global_batch} is not divisible by {process_count} processes"
        )
    share = global_batch // process_count
    mine = slice(process_index * share, (process_index + 1) * share)

    def fetch(indices: np.ndarray) -> Batch:
        batch = source.rows(indices[mine])
        return transform(batch) if transform else batch

    return plan(len(source), seed=seed, global_batch=global_batch).map(fetch)


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
        batch = source.rows(rows[np.minimum(places, count - 1)])
        yield {**batch, "valid": places < count}


def dataset_facts(source: Source) -> Mapping[str, Any]:
    """What the start screen says about a data set: name, samples, classes, image shape, hash."""
    return {
        "name": source.name,
        "samples": len(source),
        "classes": source.num_classes,
        "image": source.shapes["image"],
        "fingerprint": source.fingerprint,
    }
