"""Spoken digits, 2,500 recordings of five speakers at 8 kHz, int16: the file `fsdd.npz`.

Jackson (2018), Free spoken digit dataset. Takes 0 to 4 of each speaker and digit are the test
split, by its own rule, so all speakers are heard in training. `data.size` is T in samples (8,000,
one second): of recordings that are longer the middle is taken, zeros follow those that are shorter.
"""

from typing import Any

import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.data.formats.archive import opened
from jaxssl.data.formats.recordings import check_rows, recordings, stored_samples, unpacked
from jaxssl.data.source import Arrays, split_names, stored_at

FILE = "fsdd.npz"
SAMPLES = 8_000


def open(config: Any, split: str) -> Arrays:
    """Opens the recordings of a split of `fsdd.npz`, the file or its folder."""
    file = stored_at(config)
    file = file / FILE if file.is_dir() else file
    samples = stored_samples(config, SAMPLES)
    with opened(file) as arrays:
        audio, rate = arrays["audio"], int(arrays["sample_rate"])
        waves = unpacked(audio, arrays["offsets"], str(file))
        digit, splits = arrays["digit"], arrays["split"]
    if audio.dtype != np.int16:
        raise ConfigError(f"data.path: {file}: audio is {audio.dtype}; expected int16")
    check_rows(str(file), len(waves), digit=digit, split=splits)
    rows = np.flatnonzero(np.isin(splits, split_names(config, split)))
    return recordings(
        f"fsdd {split}",
        [waves[row] for row in rows],
        rate=rate,
        samples=samples,
        labels=digit[rows],
        label_names=[str(number) for number in range(10)],
        place=str(file),
    )
