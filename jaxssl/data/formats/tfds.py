"""TensorFlow Datasets through `tfds.data_source`, which needs no TensorFlow: `tfds:<name>`.

The data must have been prepared in a format with random access (ArrayRecord); preparing it is the
one thing that needs TensorFlow.
"""

from typing import Any

from jaxssl.config.errors import ConfigError, near
from jaxssl.data.formats.array_record import damage_named, first_words, record_place
from jaxssl.data.images import EncodedSource, Options, options
from jaxssl.data.source import split_names, stored_at


def open(config: Any, split: str) -> "Tfds":
    """Opens the prepared data set `<name>` under `data.path` (the `data_dir` of TFDS)."""
    import tensorflow_datasets as tfds

    name = str(config.source).partition(":")[2]
    path = stored_at({"path": config.get("path", "") or tfds.core.constants.DATA_DIR})
    remedy = f"to make it: tfds build {name} --data_dir={path} --file_format=array_record"
    if not name or not (path / name.partition(":")[0].partition("/")[0]).is_dir():
        prepared = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
        raise ConfigError(
            f"data.source: no TFDS data set {name!r} in data.path={path}"
            f"{near(name, prepared)}; {remedy}"
        )
    try:
        builder = tfds.builder(name, data_dir=str(path))
    except Exception as error:  # what a damaged description raises is its parser's
        words = f"{type(error).__name__}: {first_words(error)}"
        raise ConfigError(
            f"data.source: {name!r} in data.path={path} cannot be opened: {words}; {remedy}"
        ) from error
    wanted, splits = split_names(config, split), builder.info.splits
    stored = next((n for n in wanted if n.partition("[")[0] in splits), None)
    if stored is None:
        found = f"it has {', '.join(splits)}" if splits else f"it was not prepared; {remedy}"
        raise ConfigError(f"data.{split}_split: {wanted[0]!r} is not in {path / name}: {found}")
    features = builder.info.features
    if "image" not in features:
        found = ", ".join(features)
        raise ConfigError(f"data.source: {name!r} has the features {found}; expected 'image'")
    try:
        records = builder.as_data_source(stored, decoders={"image": tfds.decode.SkipDecoding()})
    except NotImplementedError as error:
        raise ConfigError(
            f"data.source: {name!r} in {path} is {builder.info.file_format}, which has no random "
            f"access; {remedy}"
        ) from error
    labels = getattr(features["label"], "names", None) if "label" in features else None
    full_name = f"tfds {builder.info.full_name} {stored}"
    files = [str(file) for file in splits[stored.partition("[")[0]].filepaths]
    return Tfds(records, full_name, tuple(labels or ()), options(config), files)


class Tfds(EncodedSource):
    """The records of one split, which lie in `files`; images stay encoded until they are read."""

    def __init__(
        self, records: Any, name: str, labels: tuple[str, ...], opts: Options, files: list[str]
    ):
        self.records, self.files = records, files
        super().__init__(name, len(records), labels, opts, None)

    def encoded(self, i: int) -> tuple[bytes, int | None]:
        """The bytes and the label of sample i (-1: none, as of test splits whose labels are kept
        secret); a set without class names counts as unlabelled."""
        with damage_named(self.files):
            record = self.records[i]
        label = int(record["label"]) if self.label_names else -1
        return record["image"], None if label < 0 else label

    def where(self, i: int) -> str:
        """Sample i for people: its record, counted from 0, and the file where that is known."""
        whole = len(self.files) == 1 or "[" not in self.name
        return record_place(self.files, i) if whole else super().where(i)
