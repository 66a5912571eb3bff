"""Frozen features of a source: what every evaluator reads, and how to place them on devices."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxssl.config.errors import ConfigError
from jaxssl.data import pipeline
from jaxssl.devices.sharding import BATCH_AXES

Encode = Callable[[Mapping[str, jax.Array]], jax.Array]


@dataclasses.dataclass(frozen=True)
class Features:
    """A bank of features on the host, the same on every process, sorted by index.

    Attributes:
      x: float32 [N, D].
      y: int32 [N], the labels; -1 where the source has none.
      index: int32 [N], the position of each sample in its source.
    """

    x: np.ndarray
    y: np.ndarray
    index: np.ndarray


class DeviceFeatures(NamedTuple):
    """Features on the device, N padded to a multiple of the shards and sharded over the batch axes.

    Attributes:
      x: float32 [N, D], padded with zeros.
      y: int32 [N], padded with zeros.
      weight: float32 [N], 1 for a sample and 0 for padding.
    """

    x: jax.Array
    y: jax.Array
    weight: jax.Array


class _Picked:
    """The samples of a source at the given positions, themselves a source to read batches from."""

    def __init__(self, source: Any, positions: np.ndarray):
        self._source = source
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    def rows(self, places: np.ndarray) -> dict[str, np.ndarray]:
        rows: dict[str, np.ndarray] = self._source.rows(self._positions[places])
        return rows


def subset(size: int, limit: int | None, seed: int = 0) -> np.ndarray:
    """Positions of a plain random subset without replacement, ascending; all where `limit` is 0.

    Plain rather than class-balanced: it keeps the class frequencies of the split, and needs no
    look at the labels. The same (size, limit, seed) always gives the same subset.

    >>> subset(10, 4).tolist() == subset(10, 4).tolist()
    True
    >>> len(subset(10, None)), len(subset(10, 4)), len(subset(10, 99))
    (10, 4, 10)
    """
    if not limit or limit >= size:
        return np.arange(size)
    return np.sort(np.random.default_rng(seed).permutation(size)[:limit])


def extract(
    encode: Encode,
    source: Any,
    *,
    batch_size: int,
    mesh: Mesh,
    limit: int | None = None,
    seed: int = 0,
) -> Features:
    """Encodes a source batch by batch; every process gets all the features.

    The last batch is padded and its padding cut, so one program serves the whole source. Each
    process decodes only its own share of every batch.

    Args:
      encode: batch of device arrays -> [B, D], jitted, closed over the params, evaluation mode.
      source: a `jaxssl.data.source.Source`; its samples may lack "label".
      batch_size: B; rounded up to a multiple of the batch shards, which moves no number.
      mesh: batches are sharded over its axes "data" and "fsdp".
      limit: how many samples (None or 0: all), chosen by `subset`.
      seed: of that choice.

    Raises:
      ConfigError: the batch size or the limit is not a whole number above zero (limit: not below).
    """
    rows: list[tuple[np.ndarray, ...]] = []
    waiting: tuple[jax.Array, ...] | None = None
    batches = device_batches(source, batch_size=batch_size, mesh=mesh, limit=limit, seed=seed)
    for batch, valid in batches:
        x = encode(batch)
        # The labels and indices travel with the features, whatever order the devices lie in.
        label = batch.get("label", jnp.full_like(batch["index"], -1))
        ready, waiting = waiting, (x, label, batch["index"], valid)
        if ready is not None:  # fetched only once the next batch is dispatched
            rows.append(_fetch(ready))
    if waiting is not None:
        rows.append(_fetch(waiting))
    features, labels, indices = (np.concatenate(parts) for parts in zip(*rows))
    order = np.argsort(indices)
    return Features(features[order], labels[order], indices[order])


def device_batches(
    source: Any, *, batch_size: int, mesh: Mesh, limit: int | None = None, seed: int = 0
) -> Iterator[tuple[dict[str, jax.Array], jax.Array]]:
    """(batch, valid [B]) as global device arrays; each process reads its own rows of every batch.

    Arguments and errors as of `extract`.
    """
    _check_whole("evals.batch_size", batch_size, 1)
    _check_whole("limit of the features", limit or 0, 0)
    picked: Any = _Picked(source, subset(len(source), limit, seed))
    shards = _shards(mesh)
    sharding = NamedSharding(mesh, PartitionSpec(BATCH_AXES))
    batches = pipeline.eval_batches(
        picked,
        -(-batch_size // shards) * shards,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    for rows in batches:
        batch = {
            name: jax.make_array_from_process_local_data(sharding, value)
            for name, value in rows.items()
        }
        valid = batch.pop("valid")
        yield batch, valid


def _fetch(arrays: tuple[jax.Array, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y, index, valid = (to_host(array) for array in arrays)
    if x.ndim != 2:
        raise ConfigError(f"encoder: found features of shape {x.shape}, expected [B, D]")
    return (
        x[valid].astype(np.float32),
        y[valid].astype(np.int32),
        index[valid].astype(np.int32),
    )


def to_host(array: jax.Array) -> np.ndarray:
    """The whole global array as numpy, on every process."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def place(features: Features, multiple: int = 1) -> DeviceFeatures:
    """Features on the device, sharded over the mesh that is set (`jax.set_mesh`), if one is.

    The rows of every shard are a multiple of `multiple`.
    """
    mesh = jax.sharding.get_mesh()
    extra = -len(features.x) % (multiple if mesh.empty else multiple * _shards(mesh))
    sharding = None if mesh.empty else NamedSharding(mesh, PartitionSpec(BATCH_AXES))

    def put(array: np.ndarray) -> jax.Array:
        array = np.pad(array, [(0, extra)] + [(0, 0)] * (array.ndim - 1))
        if sharding is None:
            return jnp.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda where: array[where])

    present = np.ones(len(features.x), np.float32)
    return DeviceFeatures(put(features.x), put(features.y), put(present))


def replicate(array: np.ndarray) -> jax.Array:
    """A host array on every device of the mesh that is set, if one is."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return jnp.asarray(array)
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.make_array_from_callback(array.shape, sharding, lambda where: array[where])


def standardise(train: Features, test: Features) -> tuple[Features, Features]:
    """Both banks centred per feature and divided by one global scale, from the train bank.

        x -> (x - mean_N(x)) / sqrt(mean_D(var_N(x)))

    One scale, not one per feature: features keep their relative sizes (a dead or tiny dimension
    is not blown up to unit variance), while a fixed penalty means the same for encoders, random
    encoders and raw input, whose scales differ by orders of magnitude.
    """
    mean = train.x.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = train.x - mean
    variance = np.einsum("nd,nd->d", centred, centred).sum(dtype=np.float64) / centred.size
    # A constant bank has no scale: it stays at zero instead of becoming NaN.
    scale = np.float32(np.sqrt(variance) if variance > 0 else 1.0)
    return (
        dataclasses.replace(train, x=centred / scale),
        dataclasses.replace(test, x=(test.x - mean) / scale),
    )


def _shards(mesh: Mesh) -> int:
    return int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))


def _check_whole(field: str, value: Any, least: int) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{field}: found {value!r}, expected a whole number of at least {least}")
