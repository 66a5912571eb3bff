"""Time series of the UCR and UEA archives: `data.source="ucr_uea:GunPoint"`, a file for each set.

Dau et al. (2019), The UCR time series archive, arXiv 1810.07758; Bagnall et al. (2018), The UEA
multivariate time series classification archive, arXiv 1811.00075. `data.path` is the folder of
NAME.npz with x_train and x_test [N, C, T], y_train and y_test. Series whose ends are missing (NaN,
with their lengths in len_train and len_test) are stretched to the longest of both splits.
"""

from typing import Any

import numpy as np

from jaxssl.config.errors import ConfigError, near
from jaxssl.data.formats.archive import Archive, opened
from jaxssl.data.source import Arrays, stored_at
from jaxssl.method import Field


def open(config: Any, split: str) -> Arrays:
    """Opens the split of the set that `data.source` names after the colon."""
    folder, name = stored_at(config), str(config.source).partition(":")[2]
    known = sorted(file.stem for file in folder.glob("*.npz")) if folder.is_dir() else []
    if name not in known:
        raise ConfigError(
            f"data.source: found {name!r}, expected a set in {folder}{near(name, known)}"
        )
    file = folder / f"{name}.npz"
    with opened(file) as arrays:
        if f"x_{split}" not in arrays.names:
            raise ConfigError(
                f"data.path: {file} has no x_{split}; found {', '.join(arrays.names)}"
            )
        x, labels = _series(arrays, split), arrays[f"y_{split}"]
        names = arrays.class_names() or ()
    field = Field("series", x.shape[1:], "float32")
    return Arrays(f"ucr_uea {name} {split}", {"series": (field, x)}, labels, names, str(file))


def _series(arrays: Archive, split: str) -> np.ndarray:
    """float32 [N, T, C], whatever the lengths."""
    x = arrays[f"x_{split}"].astype(np.float32).transpose(0, 2, 1)
    if f"len_{split}" in arrays.names:
        longest = max(arrays[f"x_{part}"].shape[2] for part in ("train", "test"))
        x = np.stack([stretched(one[:n], longest) for one, n in zip(x, arrays[f"len_{split}"])])
    if not np.isfinite(x).all():
        raise ConfigError(f"data.path: {arrays.file}: x_{split} is not finite everywhere")
    return x


def stretched(x: np.ndarray, steps: int) -> np.ndarray:
    """x [T, C] at `steps` even places, linear between its own.

    >>> stretched(np.array([[0.0], [2.0]], np.float32), 3).ravel().tolist()
    [0.0, 1.0, 2.0]
    """
    at, own = np.linspace(0, len(x) - 1, steps), np.arange(len(x))
    read = [np.interp(at, own, channel) for channel in x.T]
    return np.stack(read, 1).astype(np.float32)
