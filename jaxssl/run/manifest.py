"""Manifests: the size and the digest of every file of a folder, and what has changed since."""

import concurrent.futures
import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import tensorstore as ts

from jaxssl.config.errors import ConfigError
from jaxssl.report.writers import read_json, write_json

NAME = "manifest.json"
THREADS = 8  # hashing and reading both leave Python's lock


def seal(folder: pathlib.Path) -> None:
    """Writes the manifest of a folder that is complete: beside, then renamed.

    Raises:
      OSError: a file cannot be read, or the manifest not written; the folder stays unsealed.
    """
    names = [str(path.relative_to(folder)) for path in _files(folder)]
    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        entries = threads.map(lambda name: _entry(folder / name), names)
        write_json(folder / NAME, {"files": dict(zip(names, entries))})


def sealed(folder: pathlib.Path) -> bool:
    """Whether a manifest is there, good or bad."""
    return (folder / NAME).exists()


def damage(folder: pathlib.Path) -> str:
    """The first file that is not as the manifest says: path, what is found, what was expected.

    Without a manifest (the process was killed between the end of the writing and the sealing, or
    the folder is older than manifests are), every array and every JSON file is read instead: that
    finds what is missing, cut short or no longer decodes, not every flipped bit.

    Returns:
      One line; "" where nothing is wrong.
    """
    try:
        return _against_manifest(folder) if sealed(folder) else _unreadable(folder)
    except OSError as error:
        return f"{error.filename or folder}: found {error.strerror}, expected a file"


def _against_manifest(folder: pathlib.Path) -> str:
    try:
        files: dict[str, Any] = read_json(folder / NAME)["files"]
        wanted = {str(name): (int(e["bytes"]), str(e["blake2b"])) for name, e in files.items()}
    except (ConfigError, UnicodeDecodeError, LookupError, TypeError, ValueError, AttributeError):
        return f"{folder / NAME}: found no manifest in it, expected sizes and digests of the files"
    for name, (size, _) in wanted.items():  # before anything is read through
        path = folder / name
        if not path.is_file():
            return f"{path}: found no file, expected {size} bytes"
        if path.stat().st_size != size:
            return f"{path}: found {path.stat().st_size} bytes, expected {size}"
    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        entries = threads.map(lambda name: _entry(folder / name), wanted)
        for (name, (_, digest)), entry in zip(wanted.items(), entries):
            if entry["blake2b"] != digest:
                found = f"blake2b {entry['blake2b'][:12]}"
                return f"{folder / name}: found {found}, expected {digest[:12]}"
    return ""


def _unreadable(folder: pathlib.Path) -> str:
    described = [folder / "_CHECKPOINT_METADATA", folder / "state" / "_METADATA"]
    for path in described:
        try:
            json.loads(path.read_bytes())
        except ValueError:
            return f"{path}: found text that is not JSON, expected what describes the arrays"
    store = {"driver": "ocdbt", "base": (folder / "state").as_uri() + "/"}
    try:
        keys = [key.decode() for key in ts.KvStore.open(store).result().list().result()]
        arrays = [key.removesuffix("/zarr.json") for key in keys if key.endswith("/zarr.json")]
        for array in arrays:
            # One after another: the host need hold no more than the largest.
            ts.open(
                {"driver": "zarr3", "kvstore": {**store, "path": array}}
            ).result().read().result()
    except ValueError as error:
        return f"{folder}: found {' '.join(str(error).split())}, expected arrays that can be read"
    return "" if arrays else f"{folder / 'state'}: found no array, expected those of a state"


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != NAME)


def _entry(path: pathlib.Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
        return {"bytes": file.tell(), "blake2b": digest.hexdigest()}
