"""ArrayRecord files: any source, rewritten for fast random access on any file system.

A folder holds `<split>-00000-of-00004.array_record`, ... and `info.json`, the class names. A record
is the label (int32, little endian, -1: none), then the bytes of an image file. To make one:

  python -m jaxssl.data.formats.array_record --source=image_folder --path=IMAGES --out=RECORDS \\
      --size=256
"""

import argparse
import contextlib
import io
import json
import pathlib
import struct
import sys
from collections.abc import Iterator
from typing import Any

import ml_collections
from PIL import Image

from jaxssl.config.errors import ConfigError
from jaxssl.data.bad import Unreadable
from jaxssl.data.images import EncodedSource, Options, options
from jaxssl.data.source import Source, split_names, stored_at

LABEL = struct.Struct("<i")


def open(config: Any, split: str) -> "ArrayRecord":
    """Opens the records of a split in the folder `data.path`."""
    folder = stored_at(config)
    for name in split_names(config, split):
        files = sorted(str(file) for file in folder.glob(f"{name}-*-of-*.array_record"))
        if files:
            total = files[0].rpartition("-of-")[2].partition(".")[0]
            if not total.isdecimal() or len(files) != int(total):
                total = total.lstrip("0")
                raise ConfigError(f"data.path: {folder} has {len(files)} of {total} {name} files")
            return ArrayRecord(folder, files, f"array_record {folder.name} {name}", options(config))
    wanted = " or ".join(f"{name}-*.array_record" for name in split_names(config, split))
    raise ConfigError(
        f"data.path: {folder} has no {wanted}; to make them: "
        f"python -m jaxssl.data.formats.array_record --source=SOURCE --path=PATH --out={folder}"
    )


class ArrayRecord(EncodedSource):
    """The records of one split."""

    def __init__(self, folder: pathlib.Path, files: list[str], name: str, opts: Options):
        from grain.sources import ArrayRecordDataSource

        label_names = _label_names(folder / "info.json")
        self.files = files
        try:
            self.records = ArrayRecordDataSource(files)
        except RuntimeError as error:
            refuse_damaged(files)
            raise ConfigError(f"data.path: {folder}: {first_words(error)}") from error
        sizes = [pathlib.Path(file).stat().st_size for file in files]
        super().__init__(name, len(self.records), label_names, opts, sizes)

    def encoded(self, i: int) -> tuple[bytes, int | None]:
        """The bytes and the label of sample i."""
        with damage_named(self.files):
            record = self.records[i]
        if len(record) < LABEL.size:
            raise Unreadable(f"it has {len(record)} bytes, fewer than a label")
        (label,) = LABEL.unpack_from(record)
        return record[LABEL.size :], None if label < 0 else label

    def where(self, i: int) -> str:
        """Sample i for people: its record, counted from 0, and the file."""
        return record_place(self.files, i)


def _label_names(file: pathlib.Path) -> list[str]:
    try:
        names = json.loads(file.read_text())["label_names"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"data.path: {file} cannot be read ({type(error).__name__}: {error}); expected "
            '{"label_names": [...]}'
        ) from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"data.path: {file}: label_names is {names!r}, expected a list of names")
    return names


def record_place(files: list[str], i: int) -> str:
    """The file of the sample i of all that lie in `files`, and its number there."""
    from array_record.python.array_record_module import ArrayRecordReader

    for file in files:
        reader = ArrayRecordReader(file)
        count = reader.num_records()
        reader.close()
        if i < count:
            return f"{file}: record {i}"
        i -= count
    raise IndexError(f"{i} records after the last of {files}")


def refuse_damaged(files: list[str]) -> None:
    """Opens each file and reads where its records lie.

    Raises:
      ConfigError: one is damaged, cut short or cannot be reached; the first such.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    for file in files:
        try:
            reader = ArrayRecordReader(file)
            reader.num_records()
            reader.close()
        except RuntimeError as error:
            raise ConfigError(
                f"data.path: {file} is damaged or cut short: {first_words(error)}; copy or make it "
                "again"
            ) from error


@contextlib.contextmanager
def damage_named(files: list[str]) -> Iterator[None]:
    """Around the reading of one record: a damaged record is `Unreadable`, a damaged file an error.

    Raises:
      Unreadable: the record.
      ConfigError: the whole file, or whatever else keeps it from being read.
    """
    try:
        yield
    except RuntimeError as error:
        refuse_damaged(files)
        words = first_words(error)
        if words.startswith(("Corrupted", "Invalid")):
            raise Unreadable(f"its bytes are damaged: {words}") from error
        raise ConfigError(f"data.path: {files[0]}: {words}") from error


def first_words(error: BaseException) -> str:
    """What an error says, in one line and without its list of places."""
    return str(error).partition(" (computed ")[0].partition("\n")[0] or type(error).__name__


def write(
    source: Source,
    path: str | pathlib.Path,
    shards: int = 1,
    split: str = "train",
    progress: bool = False,
) -> None:
    """Writes all samples of `source`, in order, as `shards` files of `split` in the folder `path`.

    Image files that need no resizing are copied byte for byte; all else becomes PNG, without loss.

    Raises:
      ConfigError: fewer samples than shards, or other class names than `info.json` there has.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    folder = pathlib.Path(path)
    if not 1 <= shards <= len(source):
        raise ConfigError(f"shards: {shards}; expected 1 to {len(source)}, the number of samples")
    folder.mkdir(parents=True, exist_ok=True)
    info = folder / "info.json"
    text = json.dumps({"label_names": source.label_names}, indent=1) + "\n"
    if info.exists() and info.read_text() != text:
        raise ConfigError(f"{info} has other class names than {source.name}; write to a new folder")
    info.write_text(text)
    for shard in range(shards):
        rows = range(len(source) * shard // shards, len(source) * (shard + 1) // shards)
        name = f"{split}-{shard:05d}-of-{shards:05d}.array_record"
        # One record a group: a group is the unit that is read, and reads are random. The name is
        # given when the file is whole, so that a killed writer leaves no file that looks complete.
        writer = ArrayRecordWriter(str(folder / f"{name}.part"), "group_size:1")
        for i in rows:
            content, label = _content(source, i)
            writer.write(LABEL.pack(-1 if label is None else label) + content)
        writer.close()
        (folder / f"{name}.part").rename(folder / name)
        if progress:
            print(f"{source.name}: {rows.stop:,} of {len(source):,} samples written", flush=True)


def _content(source: Source, i: int) -> tuple[bytes, int | None]:
    if isinstance(source, EncodedSource) and source.stored:
        return source.encoded(i)
    sample = {name: values[0] for name, values in source.rows([i]).items()}
    image = sample["image"]
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue(), int(sample["label"]) if "label" in sample else None


def main(arguments: list[str] | None = None) -> int:
    """The command line: reads the splits of one source and writes them as ArrayRecord files."""
    from jaxssl.data import load

    parser = argparse.ArgumentParser(prog="python -m jaxssl.data.formats.array_record")
    parser.add_argument("--source", required=True, help="as data.source")
    parser.add_argument("--path", default="", help="as data.path")
    parser.add_argument("--out", required=True, help="the folder to write")
    parser.add_argument("--size", type=int, default=0, help="as data.size; 0: as stored")
    parser.add_argument("--channels", type=int, default=0, help="as data.channels; 0: as stored")
    parser.add_argument("--shards", type=int, default=8, help="files per split")
    parser.add_argument("--splits", nargs="+", default=["train", "test"])
    flags = parser.parse_args(arguments)
    fields = {name: getattr(flags, name) for name in ("source", "path", "size", "channels")}
    try:
        for split in flags.splits:
            source = load(ml_collections.ConfigDict({**fields, "cache": "none"}), split)
            write(source, flags.out, min(flags.shards, len(source)), split, progress=True)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: --out={flags.out}: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
