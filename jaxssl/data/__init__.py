"""Data on the host: sources with random access; batches that are a pure function of the step."""

import sys
from typing import Any

from jaxssl.config import finder
from jaxssl.config.errors import ConfigError, near
from jaxssl.data.part import Part, positions
from jaxssl.data.source import Source
from jaxssl.method import KINDS

__all__ = ["Part", "Source", "load"]


def load(config: Any, split: str) -> Source:
    """Opens the split "train" or "test" of the data set that `config` (the `data` fields) names.

    The part of `config.source` before ":" is a module of `formats` or `sets`, or a dotted name of
    any other (`jaxssl.config.finder`), with `open(config, split) -> Source`. Fields: `source`;
    `path`, a folder or a file; `size`, the square storage size in pixels (0: as stored);
    `channels`, 1 or 3 (0: as stored); `cache`, "memory" (decode each image once) or "none";
    `on_bad_record`, "error" (a record that cannot be decoded ends the run) or "skip" (another
    sample stands in: `pipeline.dataset`); `train_split` and `test_split`, the names of the splits
    on disk where they are unusual; `ranges`, ((first, last), ...), the stored positions
    [first, last) of the only training samples; () is all. What is evaluated is opened alike:
    `labels`, `noise` and `tasks` are for training alone (`jaxssl.data.labelled`).

    >>> import ml_collections
    >>> source = load(ml_collections.ConfigDict({"source": "digits", "size": 16}), "test")
    >>> len(source), source[0]["image"].shape
    (500, (16, 16, 1))

    Raises:
      ConfigError: an unknown source or split, data that is not where `path` says, or ranges that
        are empty, overlap or leave the training split.
    """
    if split not in ("train", "test"):
        raise ConfigError(f"data split: {split!r} is neither 'train' nor 'test'")
    name = str(config.get("source", "")).partition(":")[0]
    package = sys.modules[__name__]
    field, what = "data.source", "a data source"
    module = finder.find(package, name, defines="open", field=field, what=what)
    try:
        source: Source = module.open(config, split)
    except OSError as error:
        place = error.filename or config.get("path", "")
        raise ConfigError(f"data.path: {place}: {error.strerror or error}") from error
    for column, (kind, *_) in source.fields.items():
        if kind not in KINDS and "." not in kind:
            hint = near(kind, KINDS)
            raise ConfigError(f"data.source: {name}: {column!r} is of kind {kind!r}{hint}")
    ranges = config.get("ranges", ())
    if split == "train" and ranges and hasattr(source, "order"):
        raise ConfigError(
            f"data.ranges: found {ranges!r} of a {source.name}; set those of its sets"
        )
    if split == "train" and ranges:
        return Part(source, positions(ranges, len(source)))
    return source
