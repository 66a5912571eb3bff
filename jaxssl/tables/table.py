"""The `Table`: columns by index, with kinds; and its file, written whole or not at all."""

import dataclasses
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import content_hash
from jaxssl.data.part import stored_places
from jaxssl.data.source import Array, Source
from jaxssl.method import Field
from jaxssl.run.files import replacing

_ABOUT = "about"


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Columns [N, ...] by index.

    Attributes:
      index: int32 [N]: stored places of samples, in any order and maybe several times, or the
        numbers of classes.
      columns: name -> [N, ...].
      fields: name -> what the column is.
      samples: fingerprint of the split whose stored places `index` holds; "" where it holds none.
      facts: numbers about the whole, e.g. how many pseudo-labels are right.
    """

    index: Array
    columns: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    fields: Mapping[str, Field] = dataclasses.field(default_factory=dict)
    samples: str = ""
    facts: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def content(self) -> str:
        """A hash of all that a reader can see."""
        about = np.frombuffer(self._about().encode(), np.uint8)
        return content_hash({"index": self.index, "columns": dict(self.columns), _ABOUT: about})

    def checked(self) -> "Table":
        """The table itself, if its columns are what its fields say.

        Raises:
          ConfigError: naming the column.
        """
        if self.index.dtype != np.int32 or self.index.ndim != 1:
            found = f"{self.index.dtype} {list(self.index.shape)}"
            raise ConfigError(f"index: found {found}, expected int32 ['N']")
        if self.columns.keys() != self.fields.keys():
            found = f"{sorted(self.columns)} and fields {sorted(self.fields)}"
            raise ConfigError(f"columns: found {found}, expected a field for each")
        for name, field in self.fields.items():
            values, wanted = self.columns[name], (len(self.index), *field.shape)
            if (values.dtype.name, values.shape) != (field.dtype, wanted):
                raise ConfigError(
                    f"{name}: found {values.dtype} {list(values.shape)}, "
                    f"expected {field.dtype} {list(wanted)}"
                )
        return self

    def _about(self) -> str:
        fields = {name: (*field[:3], dict(field.facts)) for name, field in self.fields.items()}
        parts = {"fields": fields, "samples": self.samples, "facts": dict(self.facts)}
        return json.dumps(parts, sort_keys=True)


def sample_table(
    source: Source,
    index: Array,
    columns: Mapping[str, tuple[Field, Array]],
    facts: Mapping[str, float] | None = None,
) -> Table:
    """The table of samples of a source, whatever part of its split the source is.

    Args:
      source: of the samples.
      index: int [N], their positions in it.
      columns: name -> (what it is, values [N, ...]).
      facts: as of `Table`.

    >>> from jaxssl.data.images import ArraySource
    >>> from jaxssl.data import Part
    >>> part = Part(ArraySource("set", np.zeros((9, 4, 4), np.uint8), None), np.array([3, 7]))
    >>> sample_table(part, np.array([1]), {}).index.tolist()
    [7]
    """
    whole, places = stored_places(source)
    return Table(
        places[np.asarray(index)].astype(np.int32),
        {name: values for name, (_, values) in columns.items()},
        {name: field for name, (field, _) in columns.items()},
        whole.fingerprint,
        dict(facts or {}),
    )


def placeholder(rows: int, field: Field) -> tuple[Field, Array]:
    """A column of zeros that takes no memory, as `sample_table` takes it."""
    zero = np.zeros((), np.dtype(field.dtype))
    return field, np.broadcast_to(zero, (rows, *field.shape))


def save(path: pathlib.Path, table: Table) -> None:
    """Writes the table as npz: a reader sees the old file or the new one, never a part."""
    arrays = {f"columns/{name}": values for name, values in table.columns.items()}
    with replacing(path) as beside, beside.open("wb") as file:
        arrays |= {"index": table.index, _ABOUT: np.asarray(table._about())}
        np.savez(file, **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())


def load(path: pathlib.Path) -> Table:
    """The table of a file that `save` wrote.

    Raises:
      ConfigError: no such file, or it is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found: dict[str, Any] = dict(arrays)
        about = json.loads(str(found.pop(_ABOUT)))
        index = found.pop("index")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file, expected a table") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: found a damaged table ({error})") from None
    columns = {name.removeprefix("columns/"): values for name, values in found.items()}
    fields = {
        name: Field(kind, tuple(shape), dtype, facts)
        for name, (kind, shape, dtype, facts) in about["fields"].items()
    }
    ordered = {name: columns[name] for name in fields}
    return Table(index, ordered, fields, about["samples"], about["facts"])
