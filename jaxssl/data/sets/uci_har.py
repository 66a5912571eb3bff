"""Human activities from a phone on the waist: 9 channels, 128 steps at 50 Hz, six activities.

Anguita et al. (2013), A public domain dataset for human activity recognition using smartphones.
`data.path` is uci_har_part.npz, or its folder: the official test part alone, split by subjects.
"""

from typing import Any

import numpy as np

from jaxssl.data.formats.archive import opened
from jaxssl.data.source import Arrays, split_names, stored_at
from jaxssl.method import Field

FILE = "uci_har_part.npz"


def open(config: Any, split: str) -> Arrays:
    """Opens the windows of the subjects of a split, float32 [N, 128, 9]."""
    file = stored_at(config)
    file = file / FILE if file.is_dir() else file
    with opened(file) as arrays:
        rows = np.isin(arrays["split"], split_names(config, split))
        x = arrays["x"][rows].astype(np.float32).transpose(0, 2, 1)
        labels, names = arrays["y"][rows], arrays.class_names() or ()
        facts = {
            "rate": int(arrays["sample_rate"]),
            "channels": tuple(arrays["channel_names"].tolist()),
        }
    field = Field("series", x.shape[1:], "float32", facts)
    return Arrays(f"uci_har {split}", {"series": (field, x)}, labels, names, str(file))
