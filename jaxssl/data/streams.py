"""Streams: several sources side by side in one batch, each in an order of its own.

    config.streams.labelled = dict(labels=dict(per_class=4))
    config.streams.unlabelled = dict(batch=224)

A stream has the fields of `data`, where its own do not replace them, and `batch`, its samples in a
step (0: `train.global_batch`). Its fields are in the batch as "labelled/image", "labelled/index",
... Without streams there is one without a name: the training split of `data`.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxssl import data
from jaxssl.config.by_name import check_kind
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.skeleton import skeleton
from jaxssl.data import labelled
from jaxssl.data.joined import with_tables
from jaxssl.data.order import fold_seed
from jaxssl.data.pipeline import Stream, order_of
from jaxssl.data.source import Source
from jaxssl.method import Field

# What a training split is cut to, or changed by, after it was opened.
OF_TRAINING = ("part", "join", "labels", "noise", "tasks")


def open_streams(
    config: Any, whole: Source, tables: Mapping[str, Any] | None = None
) -> dict[str, Stream]:
    """The streams of a config by name; of a config without any the training split, as "".

    Args:
      config: of the run.
      whole: the training split of `config.data`, which streams of the same data share.
      tables: that earlier stages made, by name.

    Raises:
      ConfigError: a field that does not fit, or a batch larger than its source.
    """
    seed = config.train.seed
    if not config.streams:
        batch = config.train.global_batch
        streams = {"": Stream(_training(config.data, whole, tables or {}), batch, seed)}
    else:
        base = config.data.to_dict()
        sizes = batches(config)
        streams = {
            name: Stream(
                _open(name, {**base, **_fields(name, entry, base)}, base, whole, tables or {}),
                sizes[f"streams.{name}.batch"],
                fold_seed(seed, f"stream {name}"),
            )
            for name, entry in config.streams.items()
        }
    for name, stream in streams.items():
        if stream.batch > len(stream.source):
            field = f"streams.{name}.batch" if name else "train.global_batch"
            raise ConfigError(
                f"{field}: {stream.batch} is more than the {len(stream.source)} samples of "
                f"{stream.source.name}"
            )
        order_of(*stream)
    return streams


def batches(config: Any) -> dict[str, int]:
    """The field of the config -> how many samples it puts into a step.

    Raises:
      ConfigError: a name or a size that is none.
    """
    main = config.train.global_batch
    found = {"train.global_batch": main}
    for name, entry in config.streams.items():
        field = f"streams.{name}.batch"
        if not name.isidentifier():
            raise ConfigError(f"streams: found {name!r}, expected a name of letters and digits")
        size = entry.get("batch", 0)
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ConfigError(
                f"{field}: found {size!r}, expected a whole number >= 1 (0: train.global_batch)"
            )
        found[field] = size or main
    return found


def fields(streams: Mapping[str, Stream]) -> dict[str, Field]:
    """Name in a batch -> its kind, shape and dtype, over all streams."""
    return {
        f"{name}/{field}" if name else field: kind
        for name, stream in streams.items()
        for field, kind in stream.source.fields.items()
    }


def _fields(name: str, entry: Any, base: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an entry over `data`."""
    known = skeleton().data.to_dict()
    own = {k: v for k, v in ConfigDict(entry).to_dict().items() if k != "batch"}
    for field, value in own.items():
        where = f"streams.{name}.{field}"
        if field not in known:
            raise ConfigError(f"{where}: unknown field{near(field, [*known, 'batch'])}")
        if not isinstance(known[field], dict):
            check_kind(where, value, type(known[field]))
        elif not isinstance(value, dict):
            raise ConfigError(f"{where}: found {value!r}, expected a section with fields")
    return own


def _training(config: Any, source: Source, tables: Mapping[str, Any]) -> Source:
    return labelled.training(config, with_tables(source, config, tables))


def _open(
    name: str,
    own: dict[str, Any],
    base: Mapping[str, Any],
    whole: Source,
    tables: Mapping[str, Any],
) -> Source:
    stored = lambda fields: {k: v for k, v in fields.items() if k not in OF_TRAINING}
    config = ConfigDict(own)
    try:
        source = whole if stored(own) == stored(base) else data.load(config, "train")
        return _training(config, source, tables)
    except ConfigError as error:
        raise ConfigError(f"streams.{name}: {error}") from error
