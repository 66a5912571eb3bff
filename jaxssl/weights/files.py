"""State dicts in files: safetensors and npz, read and written; PyTorch's own, read."""

import pathlib
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxssl.config.errors import ConfigError, near
from jaxssl.run.files import replacing

SUFFIXES = (".safetensors", ".npz", ".pth", ".pt")
# What wrappers put before a network's names.
WRAPPERS = ("module.", "backbone.")


def read(path: str | pathlib.Path, part: str = "") -> dict[str, np.ndarray]:
    """The arrays of a file by name, without the names of wrappers ("module.", "backbone.").

    Args:
      path: .safetensors, .npz, or .pth/.pt, which needs PyTorch and is read without running code.
      part: of a .pth file that holds several dicts, e.g. "teacher"; one alone needs no name.

    Raises:
      ConfigError: no such file, another format, or no such part.
    """
    path = pathlib.Path(path)
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: found {path.suffix!r}, expected {' or '.join(SUFFIXES)}")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    if path.suffix in (".pth", ".pt"):
        found = _read_torch(path, part)
    elif part:
        raise ConfigError(f"{path}: found part {part!r}, expected none: only .pth files have parts")
    elif path.suffix == ".npz":
        with np.load(path) as arrays:
            found = dict(arrays)
    else:
        from safetensors import SafetensorError
        from safetensors.flax import load_file  # numpy's reader knows no bfloat16

        try:
            found = {name: np.asarray(a) for name, a in load_file(path).items()}
        except SafetensorError as error:
            raise ConfigError(f"{path}: no safetensors file ({error})") from None
    return _unwrapped(found)


def write(
    path: str | pathlib.Path, state: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes arrays as .safetensors or .npz: whole or not at all.

    Args:
      path: of the file; an older one is replaced.
      state: arrays by name.
      metadata: texts by name; safetensors alone.

    Raises:
      ConfigError: another suffix.
    """
    path = pathlib.Path(path)
    arrays: dict[str, Any] = {name: np.ascontiguousarray(a) for name, a in state.items()}
    if path.suffix == ".npz":
        with replacing(path) as beside, beside.open("wb") as file:
            np.savez(file, **arrays)
    elif path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        with replacing(path) as beside:
            save_file(arrays, beside, dict(metadata or {}))
    else:
        raise ConfigError(f"{path}: found {path.suffix!r}, expected .safetensors or .npz")


def _read_torch(path: pathlib.Path, part: str) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise ConfigError(f"{path}: needs PyTorch; install jaxssl[torch]") from None
    try:
        whole = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{path}: holds more than arrays, or is damaged ({reason})") from None
    if not isinstance(whole, Mapping):
        raise ConfigError(f"{path}: found a {type(whole).__name__}, expected arrays by name")
    parts = {name: value for name, value in whole.items() if isinstance(value, Mapping)}
    if part or parts:
        name = part or next(iter(parts))
        if name not in parts or (not part and len(parts) > 1):
            raise ConfigError(f"{path}: found part {part!r}, expected another{near(part, parts)}")
        whole = parts[name]
    tensors = {n: t for n, t in whole.items() if isinstance(t, torch.Tensor)}
    wide = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
    return {name: t.numpy() for name, t in wide.items()}


def _unwrapped(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = dict(state)
    for wrapper in WRAPPERS:
        if any(name.startswith(wrapper) for name in found):
            found = {name.removeprefix(wrapper): a for name, a in found.items()}
    return found
