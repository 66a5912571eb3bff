"""A source with the columns of tables beside its own fields, found by the sample's stored place."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxssl.config.errors import ConfigError, near
from jaxssl.data.part import Part, Wrapper, stored_places
from jaxssl.data.source import Array, Source


class Joined(Wrapper):
    """A source whose samples have, beside their own fields, "<table>.<column>" of tables.

    Args:
      whole: the source.
      tables: name -> table (`jaxssl.tables.Table`), with a row for every sample.
      rows: name -> the row [N] of each sample, where the table does not say it by its index.
      lacking: whether samples may be without a row, as long as nobody reads them.

    Raises:
      ConfigError: a table of other samples, with two rows for a sample, or with none.
    """

    def __init__(
        self,
        whole: Source,
        tables: Mapping[str, Any],
        rows: Mapping[str, Array] | None = None,
        lacking: bool = False,
    ):
        fields = dict(whole.fields)
        self._columns: dict[str, tuple[Array, Array]] = {}  # field -> (values, row of each sample)
        for name, table in tables.items():
            given = (rows or {}).get(name)
            found = _rows_of(whole, name, table) if given is None else given
            if not lacking and np.any(found < 0):
                raise ConfigError(_missing(whole, name, found < 0))
            for column, values in table.columns.items():
                fields[f"{name}.{column}"] = table.fields[column]
                self._columns[f"{name}.{column}"] = values, found
        contents = [f"{name} {table.content}" for name, table in tables.items()]
        super().__init__(whole, whole.name, "".join(contents).encode())
        self.fields = fields

    def rows(self, indices: Sequence[int] | Array) -> dict[str, Array]:
        """The samples at `indices`, stacked, with their rows of the tables."""
        index, found = np.asarray(indices), dict(self.whole.rows(indices))
        for field, (values, rows) in self._columns.items():
            if np.any(rows[index] < 0):
                absent = np.zeros(len(self), bool)
                absent[index[rows[index] < 0]] = True
                raise ConfigError(_missing(self.whole, field.partition(".")[0], absent))
            found[field] = values[rows[index]]
        return found


def with_tables(source: Source, config: Any, tables: Mapping[str, Any]) -> Source:
    """The source of a stage: of `data.part` the samples, and the columns of `data.join`.

    Args:
      source: the training split.
      config: the `data` fields.
      tables: that earlier stages made, by name.

    Raises:
      ConfigError: a table that is not there, or is of other samples.
    """
    part, names = config.get("part", ""), config.get("join", ())
    rows: dict[str, Array] = {}
    if part:
        if not isinstance(part, str) or part not in tables:
            raise ConfigError(f"data.part: found no table {part!r}{near(part, tables)}")
        places = _places_of(source, part, tables[part], "data.part")
        if not len(places):
            raise ConfigError(f"data.part: table {part!r} has no samples, expected at least one")
        source = Part(source, places)
        rows[part] = np.arange(len(places))  # row by row, even where a sample is there twice
    if not isinstance(names, tuple | list):
        raise ConfigError(f"data.join: found {names!r}, expected a tuple of names of tables")
    for name in names:
        if not isinstance(name, str) or name not in tables:
            raise ConfigError(f"data.join: found no table {name!r}{near(name, tables)}")
    lacking = config.get("on_bad_record", "error") == "skip"  # none was made for bad records
    return Joined(source, {n: tables[n] for n in names}, rows, lacking) if names else source


def _places_of(source: Source, name: str, table: Any, field: str) -> Array:
    """The position in `source` of the sample of each row of the table."""
    whole, places = _of_same_samples(source, name, table, field)
    positions = np.full(len(whole), -1)
    positions[places] = np.arange(len(places))
    found: Array = positions[table.index]
    if np.any(found < 0):
        place = int(table.index[np.argmax(found < 0)])
        raise ConfigError(
            f"{field}: table {name!r} has {whole.where(place)}, which is not in {source.name}"
        )
    return found


def _rows_of(source: Source, name: str, table: Any) -> Array:
    """The row [N] in the table of each sample; -1 where it has none."""
    whole, places = _of_same_samples(source, name, table, "data.join")
    if len(np.unique(table.index)) < len(table.index):
        raise ConfigError(f"data.join: table {name!r} has a sample twice, expected one row each")
    rows = np.full(len(whole), -1)
    rows[table.index] = np.arange(len(table.index))
    found: Array = rows[places]
    return found


def _of_same_samples(source: Source, name: str, table: Any, field: str) -> tuple[Source, Array]:
    whole, places = stored_places(source)
    if table.samples != whole.fingerprint:
        what = "other samples than" if table.samples else "no samples, expected one of"
        raise ConfigError(f"{field}: table {name!r} is of {what} {whole.name}")
    return whole, places


def _missing(source: Source, name: str, absent: Array) -> str:
    where = source.where(int(np.argmax(absent)))
    return (
        f"data.join: table {name!r} has no row for {int(absent.sum())} of {len(source)} samples, "
        f"e.g. {where}; data.part chooses samples"
    )
