"""Stages that make tables: made or kept, and begun with by the stages that read them."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxssl import data
from jaxssl.config.errors import ConfigError, near
from jaxssl.data.joined import with_tables
from jaxssl.data.streams import open_streams
from jaxssl.report.writers import read_json, write_json
from jaxssl.run import stages
from jaxssl.run.stages import Stage
from jaxssl.state import State
from jaxssl.tables import Table, making
from jaxssl.tables.making import Making

PyTree = Any
TABLES = "tables.json"  # in the folder of a stage: those that it was begun with


def _source_of(
    make: Making, config: Any, split: data.Source, tables: Mapping[str, Table]
) -> data.Source:
    """The samples that a maker reads: of a stream, or of the training split."""
    if not make.stream:
        return with_tables(split, config.data, tables)
    opened = open_streams(config, split, tables) if config.streams else {}
    if make.stream not in opened:
        raise ConfigError(
            f"{make.field}.stream: no stream {make.stream!r}{near(make.stream, opened)}"
        )
    return opened[make.stream].source


def table(
    stage: Stage,
    plan: Sequence[Stage],
    left: Mapping[str, PyTree],
    states: Mapping[str, State] | None = None,
    split: data.Source | None = None,
) -> Table:
    """The table of a stage: kept, made, or without `states` one of its shapes.

    Args:
      stage: one that makes a table.
      plan: all stages.
      left: what the earlier ones left, by name.
      states: the last states of the earlier ones.
      split: the training split, where it is not to be opened.

    Raises:
      ConfigError: what the maker, or a table that it reads, does not fit.
    """
    make = stage.make
    assert make is not None
    tables = {name: found for name, found in left.items() if isinstance(found, Table)}
    split = data.load(stage.config.data, "train") if split is None else split
    source = _source_of(make, stage.config, split, tables)
    subject = None
    if make.of:
        program = stages.built(next(other for other in plan if other.name == make.of), left)
        state = program.shapes if states is None else states[make.of]
        subject = making.subject_of(make, program, state)
    seed = stage.config.train.seed
    if states is None:
        return making.run(make, subject, source, left, seed, example=True)
    return making.kept_or_made(stage.folder, make, subject, source, left, seed)


def refuse_other_tables(stage: Stage, left: Mapping[str, PyTree]) -> None:
    """Refuses to go on with a stage that was begun with other tables; else notes which they are.

    Raises:
      ConfigError: naming the stage's folder and the table.
    """
    path, now = stage.folder / TABLES, making.read_by(stage.config, left)
    for name, content in (read_json(path) if path.exists() else now).items():
        if now.get(name) != content:
            raise ConfigError(
                f"--workdir={stage.folder}: begun with another table {name!r} ({content}, now "
                f"{now.get(name, 'none')}); remove the folder to train the stage again"
            )
    if now and not path.exists() and jax.process_index() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, now)
