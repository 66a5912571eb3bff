"""Sounds of the environment, 400 clips of ten classes at 16 kHz, Ogg Vorbis: the file `esc10.npz`.

Piczak (2015), ESC: dataset for environmental sound classification. Fold 5 is the test split, folds
1 to 4 are for training; clips of one source never cross folds. `data.size` is T in samples (80,000,
five seconds): of longer clips the middle is taken, zeros follow shorter ones. Decoded once, to
float32; that needs the package soundfile.
"""

import io
from typing import Any

import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.data.formats.archive import opened
from jaxssl.data.formats.recordings import check_rows, recordings, stored_samples, unpacked
from jaxssl.data.source import Array, Arrays, stored_at

FILE = "esc10.npz"
SAMPLES = 80_000
FOLDS = {"train": (1, 2, 3, 4), "test": (5,)}


def open(config: Any, split: str) -> Arrays:
    """Opens the clips of a split of `esc10.npz`, the file or its folder.

    `data.train_split` and `data.test_split` may name other folds, as "1 2 3 5" and "4".
    """
    file = stored_at(config)
    file = file / FILE if file.is_dir() else file
    samples = stored_samples(config, SAMPLES)
    with opened(file) as arrays:
        rate, fold, y = int(arrays["sample_rate"]), arrays["fold"], arrays["y"]
        packed = unpacked(arrays["ogg"], arrays["offsets"], str(file))
        names = arrays.class_names() or ()
    check_rows(str(file), len(packed), fold=fold, y=y)
    rows = np.flatnonzero(np.isin(fold, _folds(config, split)))
    return recordings(
        f"esc10 {split}",
        [decode(packed[row], rate, f"clip {row} of {file}") for row in rows],
        rate=rate,
        samples=samples,
        labels=y[rows],
        label_names=names,
        place=str(file),
    )


def decode(data: Array, rate: int, place: str) -> Array:
    """The samples of a sound file in memory, uint8 [bytes] -> float32 [T], in about [-1, 1].

    Raises:
      ConfigError: soundfile is not installed, or this is no mono sound file of that rate.
    """
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: without its library libsndfile
        needs = "data.source: 'esc10' needs the package 'soundfile': pip install 'jaxssl[audio]'"
        raise ConfigError(needs) from error
    try:
        wave, found = soundfile.read(io.BytesIO(data.tobytes()), dtype="float32")
    except soundfile.LibsndfileError as error:
        raise ConfigError(f"data.path: {place} cannot be decoded: {error.error_string}") from error
    if wave.ndim != 1 or found != rate:
        shape = f"{list(wave.shape)} at {found} Hz"
        raise ConfigError(f"data.path: {place}: found {shape}, expected mono at {rate} Hz")
    samples: Array = wave
    return samples


def _folds(config: Any, split: str) -> tuple[int, ...]:
    named = config.get(f"{split}_split", "")
    if not named:
        return FOLDS[split]
    if not isinstance(named, str) or not all(fold in "12345" for fold in named.split()):
        raise ConfigError(f"data.{split}_split: found {named!r}, expected folds, as '1 2 3 4'")
    return tuple(map(int, named.split()))
