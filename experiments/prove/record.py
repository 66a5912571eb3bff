"""`experiments/records/proofs.json`: a row for each experiment, preset and control."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.prove.arms import METHOD, Experiment
from experiments.prove.verdict import BETTER, WORSE, verdict
from jaxssl.report.writers import read_json, write_json

Row = dict[str, Any]
PLACE = pathlib.Path("records") / "proofs.json"  # in the folder of the experiments
# What a row holds by seed, of the method or of both arms.
VALUES = ("method", "control_values")
CONTROLS = ("random_init", "raw_input")


class Cell(NamedTuple):
    """One arm at one seed, finished.

    Attributes:
      value: of the metric; None where the run diverged.
      random_init, raw_input: of the same metric; None where the evaluator has none.
      steps, seconds: of all stages.
      reason: why the run diverged, or nothing.
    """

    value: float | None
    random_init: float | None = None
    raw_input: float | None = None
    steps: int = 0
    seconds: float = 0.0
    reason: str = ""


def read(path: pathlib.Path) -> list[Row]:
    """All rows; none where there is no record."""
    return list(read_json(path)) if path.exists() else []


def update(path: pathlib.Path, change: Callable[[list[Row]], list[Row]]) -> list[Row]:
    """Changes the record, written beside and renamed; two processes do so in turn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        rows = sorted(change(read(path)), key=identity)
        write_json(path, rows)
    return rows


def identity(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """What a row is of: experiment, preset and control."""
    return row["experiment"], row["preset"], row["control"]


def row_of(rows: Sequence[Row], experiment: Experiment, control: str) -> Row | None:
    """The row of an experiment and one of its controls."""
    wanted = (experiment.name, experiment.preset, control)
    return next((row for row in rows if identity(row) == wanted), None)


def kept(
    rows: Sequence[Row], experiment: Experiment, arm: str, seed: int, fingerprint: str
) -> Cell | str | None:
    """The finished cell of today's config; the fingerprint of another config; or None."""
    other: str | None = None
    side = _side(arm)
    for row in _rows_of(rows, experiment, arm):
        if str(seed) in row[side] | row["diverged"][side]:
            if row["fingerprints"][side] == fingerprint:
                return _cell(row, side, str(seed))
            other = row["fingerprints"][side]
    return other


def added(
    rows: Sequence[Row],
    experiment: Experiment,
    arm: str,
    seed: int,
    cell: Cell,
    facts: Mapping[str, Any],
    fingerprints: Mapping[str, str],
) -> list[Row]:
    """The rows with one more cell; values of other configs are dropped.

    Args:
      rows: of the record.
      experiment: whose cell it is.
      arm: the method, whose value is in the row of each control, or a control.
      seed: of the cell.
      cell: what was found.
      facts: "better", "commit", "versions", "machine" and "command" of the row.
      fingerprints: arm -> that of its config, of the method and of the experiment's controls.
    """
    rows = [row for row in rows if not _of_other_metric(row, experiment)]
    for control in experiment.controls if arm == METHOD else (arm,):
        if row_of(rows, experiment, control) is None:
            rows.append(_new(rows, experiment, control))
    for row in _rows_of(rows, experiment, arm):
        control = row["control"]
        for one in (METHOD, control):
            if row["fingerprints"].get(_side(one)) != fingerprints.get(one) and one in fingerprints:
                _clear(row, _side(one))
                row["fingerprints"][_side(one)] = fingerprints[one]
        row.update(facts, changes=experiment.controls.get(control, row.get("changes")))
        _add(row, _side(arm), str(seed), cell)
        row["verdict"] = judged(row)
    return rows


def judged(row: Mapping[str, Any]) -> str | None:
    """The verdict of a row; a method that diverged is worse, and so is a control at every seed."""
    if row["diverged"]["method"]:
        return WORSE
    if row["diverged"]["control_values"] and row["method"] and not row["control_values"]:
        return BETTER
    return verdict(row["method"], row["control_values"], row["better"])


def _side(arm: str) -> str:
    return VALUES[arm != METHOD]


def _rows_of(rows: Sequence[Row], experiment: Experiment, arm: str) -> list[Row]:
    """The rows that hold an arm: all of the experiment hold its method."""
    who = experiment.name, experiment.preset
    own = [row for row in rows if identity(row)[:2] == who]
    return [row for row in own if arm in (METHOD, row["control"])]


def _of_other_metric(row: Row, experiment: Experiment) -> bool:
    who = experiment.name, experiment.preset
    return identity(row)[:2] == who and row["metric"] != experiment.metric


def _new(rows: Sequence[Row], experiment: Experiment, control: str) -> Row:
    """A row without values, but for those of the method that other rows hold."""
    row: Row = dict(experiment=experiment.name, preset=experiment.preset, control=control)
    row |= {"metric": experiment.metric, **{name: {} for name in (*VALUES, *CONTROLS)}}
    row |= {n: {side: {} for side in VALUES} for n in ("seconds", "diverged")}
    row |= {"steps": {}, "fingerprints": {}}
    for other in _rows_of(rows, experiment, METHOD)[:1]:
        row |= {name: dict(other[name]) for name in ("method", *CONTROLS)}
        for name in ("seconds", "diverged"):
            row[name]["method"] = dict(other[name]["method"])
        for name in ("steps", "fingerprints"):
            row[name] |= {key: x for key, x in other[name].items() if key == "method"}
    return row


def _clear(row: Row, side: str) -> None:
    row[side], row["seconds"][side], row["diverged"][side] = {}, {}, {}
    if side == "method":
        row.update({name: {} for name in CONTROLS})


def _add(row: Row, side: str, seed: str, cell: Cell) -> None:
    row["steps"][side] = cell.steps
    row["seconds"][side][seed] = round(cell.seconds, 1)
    if cell.value is None:
        row["diverged"][side][seed] = cell.reason
        return
    _put(row[side], seed, cell.value)
    if side == "method":
        for name in CONTROLS:
            if (value := getattr(cell, name)) is not None:
                _put(row[name], seed, value)


def _put(values: dict[str, float], seed: str, value: float) -> None:
    """Adds a value; seeds stand in order."""
    values[seed] = round(value, 6)
    ordered = sorted(values.items(), key=lambda pair: int(pair[0]))
    values.clear()
    values.update(ordered)


def _cell(row: Row, side: str, seed: str) -> Cell:
    steps, seconds = row["steps"][side], row["seconds"][side][seed]
    if seed in row["diverged"][side]:
        return Cell(None, steps=steps, seconds=seconds, reason=row["diverged"][side][seed])
    other = {n: row[n].get(seed) for n in CONTROLS} if side == "method" else {}
    return Cell(row[side][seed], steps=steps, seconds=seconds, **other)


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """Holds the folder against other processes; it waits for them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
