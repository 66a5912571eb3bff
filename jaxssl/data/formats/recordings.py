"""Recordings of unequal length as one array: zeros after those that are shorter, middles of longer.

What every source of waveforms shares; it opens nothing itself.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.data.source import Array, Arrays
from jaxssl.method import Field


def recordings(
    name: str,
    waves: Sequence[Array],
    *,
    rate: int,
    samples: int,
    labels: Array,
    label_names: Sequence[str],
    place: str,
) -> Arrays:
    """The source with the fields `audio` [T] and `audio_length`, its samples before the zeros.

    Args:
      name: for people.
      waves: of each recording its samples [T_n], all int16 or all float32.
      rate: samples a second.
      samples: T.
      labels, label_names: of the recordings.
      place: how messages call what they lie in.
    """
    audio = np.zeros((len(waves), samples), waves[0].dtype if len(waves) else np.float32)
    for row, wave in zip(audio, waves):
        fitted = middle(wave, samples)
        row[: len(fitted)] = fitted
    lengths = np.array([min(len(wave), samples) for wave in waves], np.int32)
    field = Field("audio", (samples,), audio.dtype.name, {"rate": rate})
    columns = {"audio": (field, audio), "audio_length": (Field("target"), lengths)}
    return Arrays(name, columns, labels, label_names, place)


def middle(wave: Array, samples: int) -> Array:
    """The middle `samples` of a wave [T_n], or all of one that is shorter.

    >>> middle(np.arange(5), 2).tolist(), middle(np.arange(5), 9).tolist()
    ([1, 2], [0, 1, 2, 3, 4])
    """
    first = max(0, (len(wave) - samples) // 2)
    return wave[first : first + samples]


def stored_samples(config: Any, default: int) -> int:
    """T: `data.size`, or the default where it is 0.

    Raises:
      ConfigError: it is below 0.
    """
    size = config.get("size", 0)
    if type(size) is not int or size < 0:
        raise ConfigError(f"data.size: found {size!r}, expected a number of samples, or 0")
    return size or default


def unpacked(buffer: Array, offsets: Array, place: str) -> list[Array]:
    """The items buffer[offsets[i] : offsets[i + 1]].

    Raises:
      ConfigError: the offsets do not rise from 0 to the end of the buffer.

    >>> [item.tolist() for item in unpacked(np.arange(3), np.array([0, 1, 3]), "x.npz")]
    [[0], [1, 2]]
    """
    whole = offsets.ndim == 1 and offsets.dtype.kind in "iu" and len(offsets) > 1
    if not whole or offsets[0] != 0 or offsets[-1] != len(buffer) or (np.diff(offsets) < 0).any():
        raise ConfigError(f"data.path: {place}: offsets do not rise from 0 to {len(buffer)}")
    return [buffer[first:last] for first, last in itertools.pairwise(offsets)]


def check_rows(place: str, count: int, **arrays: Array) -> None:
    """Raise ConfigError where an array has not `count` rows, one for each recording."""
    for name, array in arrays.items():
        if array.shape != (count,):
            found = f"{name} is {array.dtype} {list(array.shape)}"
            raise ConfigError(f"data.path: {place}: {found}; expected [{count}]")
