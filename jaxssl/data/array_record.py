"""ArrayRecord files: any source, rewritten for fast random access on any file system.

A folder holds `<split>-00000-of-00004.array_record`, ... and `info.json`, the class names. A record
is the label (int32, little endian, -1: none), then the bytes of an image file. To make one:

  python -m jaxssl.data.array_record --source=image_folder --path=IMAGES --out=RECORDS --size=256
"""

import argparse
import io
import json
import pathlib
import struct
import sys
from typing import Any

import ml_collections
from PIL import Image

from jaxssl.data.source import EncodedSource, Options, Source, options, split_names
from jaxssl.errors import ConfigError

LABEL = struct.Struct("<i")


def open(config: Any, split: str) -> "ArrayRecord":
    """Opens the records of a split in the folder `data.path`."""
    folder = pathlib.Path(config.get("path", "")).expanduser()
    for name in split_names(config, split):
        files = sorted(str(file) for file in folder.glob(f"{name}-*-of-*.array_record"))
        if files:
            total = int(files[0].rpartition("-of-")[2].partition(".")[0])
            if len(files) != total:
                raise ConfigError(f"data.path: {folder} has {len(files)} of {total} {name} files")
            return ArrayRecord(folder, files, f"array_record {folder.name} {name}", options(config))
    wanted = " or ".join(f"{name}-*.array_record" for name in split_names(config, split))
    raise ConfigError(
        f"data.path: {folder} has no {wanted}; to make them: python -m jaxssl.data.array_record "
        f"--source=SOURCE --path=PATH --out={folder}"
    )


class ArrayRecord(EncodedSource):
    """The records of one split."""

    def __init__(self, folder: pathlib.Path, files: list[str], name: str, opts: Options):
        from grain.sources import ArrayRecordDataSource

        try:
            info = json.loads((folder / "info.json").read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"data.path: {folder / 'info.json'} cannot be read: {error}"
            ) from error
        self.records = ArrayRecordDataSource(files)
        sizes = [pathlib.Path(file).stat().st_size for file in files]
        super().__init__(name, len(self.records), info["label_names"], opts, sizes)

    def encoded(self, i: int) -> tuple[bytes, int | None]:
        """The bytes and the label of sample i."""
        record = self.records[i]
        (label,) = LABEL.unpack_from(record)
        return record[LABEL.size :], None if label < 0 else label


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
    sample = source[i]
    image = sample["image"]
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue(), int(sample["label"]) if "label" in sample else None


def main(arguments: list[str] | None = None) -> int:
    """The command line: reads the splits of one source and writes them as ArrayRecord files."""
    from jaxssl.data import load

    parser = argparse.ArgumentParser(prog="python -m jaxssl.data.array_record")
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
