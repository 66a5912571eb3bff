"""A stage that makes a table: what its config says, and when a table that is there is kept."""

import inspect
import json
import pathlib
import sys
import time
import typing
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxssl.tables
from jaxssl.config import finder
from jaxssl.config import load as configs
from jaxssl.config.by_name import check_fields
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import content_hash
from jaxssl.data.bad import BadRecords
from jaxssl.data.source import Source
from jaxssl.devices.agreement import on_first
from jaxssl.evals.subject import Subject, encode_of
from jaxssl.program import Program
from jaxssl.report.writers import read_json, write_summary
from jaxssl.tables.table import Table, load, save

FILE = "table.npz"
SAMPLED = 64  # samples whose content is looked at to see whether a source has changed
GIVEN = ("subject", "source", "seed")  # not by the config


class Making(NamedTuple):
    """What a stage makes, as its config says.

    Attributes:
      maker: the module.
      name: of the maker.
      of: the stage whose encoder is the subject; "" is none.
      encoder: which of its encoders; "" is the one that its evaluations read.
      stream: whose samples it reads (`config.streams`); "" is the training split.
      fields: of the maker, numbers and texts.
      tables: parameter of the maker -> the stage that made the table.
      field: where in the config it stands; messages begin with it.
    """

    maker: ModuleType
    name: str
    of: str
    encoder: str
    stream: str
    fields: Mapping[str, Any]
    tables: Mapping[str, str]
    field: str

    def described(self) -> tuple[Any, ...]:
        """All that the config says of it, without where it stands."""
        return self.name, self.of, self.encoder, self.stream, dict(self.fields), dict(self.tables)


def parse(entry: Any, field: str, trained: list[str], made: list[str]) -> Making:
    """The field `make` of a stage, checked as far as no data are needed.

    Args:
      entry: of the config.
      field: its full name.
      trained, made: the names of the earlier stages that train, and that make tables.

    Raises:
      ConfigError: no such maker, field or stage, or a value of another kind.
    """
    if not hasattr(entry, "items"):
        raise ConfigError(f"{field}: found {entry!r}, expected a dict with the name of a maker")
    fields = dict(entry)
    name, of = fields.pop("name", None), fields.pop("of", "")
    encoder, stream = fields.pop("encoder", ""), fields.pop("stream", "")
    maker = finder.find(
        jaxssl.tables, name, defines="make", field=f"{field}.name", what="a maker of tables"
    )
    if not isinstance(stream, str):
        raise ConfigError(f"{field}.stream: found {stream!r}, expected the name of a stream")
    if of and of not in trained:
        raise ConfigError(f"{field}.of: no earlier stage {of!r} that trains{near(of, trained)}")
    parameters = dict(inspect.signature(maker.make).parameters)
    alone = parameters["subject"].annotation
    if not of and alone is Subject:
        raise ConfigError(f"{field}.of: missing; {name!r} reads the encoder of an earlier stage")
    if of and alone is None:
        raise ConfigError(f"{field}.of: found {of!r}, but {name!r} reads no encoder")
    if encoder and not of:
        raise ConfigError(f"{field}.encoder: found {encoder!r} without `of`")
    known = {key: p for key, p in parameters.items() if key not in GIVEN}
    read = {key for key, p in known.items() if _is_table(p.annotation)}
    # A table is given by its name, which is text; any other field is as the maker says.
    given = {k: p.replace(annotation=str) if k in read else p for k, p in known.items()}
    check_fields(field, name, fields, given)
    tables = {key: fields.pop(key) for key in sorted(read & fields.keys())}
    for key, table in tables.items():
        if table not in made:
            raise ConfigError(f"{field}.{key}: no earlier table {table!r}{near(table, made)}")
    return Making(maker, name, of, encoder, stream, fields, tables, field)


def _is_table(annotation: Any) -> bool:
    return Table in (typing.get_args(annotation) or (annotation,))


def subject_of(making: Making, program: Program, state: Any) -> Subject:
    """The encoder that a stage left, as evaluations see it.

    Args:
      making: of the table.
      program: of the stage `making.of`.
      state: its last; shapes are enough for `example`.

    Raises:
      ConfigError: no such encoder.
    """
    encoders = program.method.encoders
    name = making.encoder or program.config.evals.encoder or next(iter(encoders))
    if name not in encoders:
        raise ConfigError(f"{making.field}.encoder: no {name!r}{near(name, encoders)}")
    encode = jax.jit(encode_of(program, name), static_argnames="output")
    return Subject("trained", program, state, program.source, encode)


def run(
    making: Making,
    subject: Subject | None,
    source: Source,
    left: Mapping[str, Any],
    seed: int,
    *,
    example: bool = False,
) -> Table:
    """The table, or with `example` its shapes.

    Args:
      making: what to make.
      subject, source: as the maker takes them.
      left: what earlier stages left, by name; tables among it.
      seed: of the stage.
      example: whether nothing is to be computed.

    Raises:
      ConfigError: what the maker refuses.
    """
    make = making.maker.example if example else making.maker.make
    given = {**making.fields, **{key: left[name] for key, name in making.tables.items()}}
    if "seed" in inspect.signature(making.maker.make).parameters:
        given["seed"] = seed
    try:
        table: Table = make(subject, source, **given)
        return table.checked()
    except BadRecords:
        raise
    except ConfigError as error:
        raise ConfigError(f"{making.field}.{error}") from error


def made_from(
    making: Making,
    subject: Subject | None,
    source: Source,
    left: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """All that the table depends on, in words that people can compare; arguments as of `run`."""
    parts: dict[str, Any] = {
        "maker": making.name,
        "stream": making.stream,
        "source": source.fingerprint,
    }
    parts["samples"] = _sampled(source)
    parts |= {f"field {key}": value for key, value in making.fields.items()}
    for key, name in making.tables.items():
        parts[f"table {name} as {key}"] = left[name].content
    if "seed" in inspect.signature(making.maker.make).parameters:
        parts["seed"] = seed
    if subject is not None:
        config = subject.program.config
        parts[f"state of {making.of}"] = subject.content
        parts[f"config of {making.of}"] = configs.fingerprint(configs.to_dict(config))
        parts["encoder"] = making.encoder or config.evals.encoder
        parts["output"], parts["size"] = config.evals.output, config.evals.size
    found: dict[str, Any] = json.loads(json.dumps(parts, default=str))
    return found


def _sampled(source: Source) -> str:
    """A hash of what some samples hold: a fingerprint may be of names and numbers alone."""
    places = np.unique(np.linspace(0, len(source) - 1, SAMPLED).astype(int))
    try:
        return content_hash(source.rows(places))
    except BadRecords:
        return ""


def kept_or_made(
    folder: pathlib.Path,
    making: Making,
    subject: Subject | None,
    source: Source,
    left: Mapping[str, Any],
    seed: int,
) -> Table:
    """The table in `folder`, if it was made from the same things and is whole; else made (again).

    A line on the screen says which, and what has changed. Other arguments as of `run`.

    Raises:
      ConfigError: what the maker refuses.
    """
    parts = made_from(making, subject, source, left, seed)
    why = on_first(lambda: _why_made(folder, parts))
    title = f"{folder}: table {making.name}"
    if why is not None:
        began = time.perf_counter()
        if jax.process_index() == 0:
            print(f"{title}: {why}", file=sys.stdout, flush=True)
        table = run(making, subject, source, left, seed)
        if not len(table.index):
            raise ConfigError(f"{making.field}: the table is empty, expected at least one row")
        on_first(lambda: _write(folder, table, parts, time.perf_counter() - began))
    table = load(folder / FILE)  # on all processes the same
    if jax.process_index() == 0:
        facts = "".join(f", {name} {value:.6g}" for name, value in table.facts.items())
        print(f"{title}: {len(table.index)} rows{facts}", flush=True)
    return table


def _why_made(folder: pathlib.Path, parts: Mapping[str, Any]) -> str | None:
    """Why a table is to be made; None where there is one to keep."""
    path = folder / "summary.json"
    if not path.exists():
        return "made"
    summary = read_json(path)
    old = summary.get("made_from", {})
    for name in (*parts, *old):
        if parts.get(name) != old.get(name):
            change = f"{old.get(name, 'none')} -> {parts.get(name, 'none')}"
            return f"made again: {name} has changed, {change}"
    try:
        whole = load(folder / FILE).content == summary["artifact"]
    except ConfigError as error:
        return f"made again: {error}"
    return None if whole else "made again: its file is not what was written"


def _write(folder: pathlib.Path, table: Table, parts: Mapping[str, Any], seconds: float) -> None:
    save(folder / FILE, table)
    write_summary(
        folder,
        status="finished",
        step=0,
        seconds=seconds,
        artifact=table.content,
        rows=len(table.index),
        columns={name: field._asdict() for name, field in table.fields.items()},
        facts=table.facts,
        made_from=parts,
    )


def read_by(config: Any, names: Mapping[str, Any]) -> dict[str, str]:
    """Name -> content hash of the tables that a stage's config reads.

    Args:
      config: of the stage.
      names: what earlier stages left, by name.
    """
    text = [config.data.part, *config.data.join, *_in_terms(config.losses.to_dict())]
    tables = {n: t for n, t in names.items() if isinstance(t, Table)}
    read = dict.fromkeys(entry.partition("/")[0] for entry in text)
    return {name: tables[name].content for name in read if name in tables}


def _in_terms(tree: Any) -> list[str]:
    if not isinstance(tree, Mapping):
        return []
    own = [tree["table"]] if isinstance(tree.get("table"), str) else []
    return own + [name for value in tree.values() for name in _in_terms(value)]
