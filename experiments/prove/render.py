"""`experiments/README.md`, and the measured blocks of `jaxssl/README.md`: all made from files."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.equal_compute import render as equal_compute
from experiments.equal_compute.tables import TABLES
from experiments.prove import arms, record
from experiments.prove.arms import METHOD, Experiment
from experiments.prove.cells import shown
from jaxssl.bench import invariance
from jaxssl.bench.faults import command as faults
from jaxssl.report.markdown import filled, table
from jaxssl.report.writers import read_json

HEAD = (
    *("method", "idea", "paper", "metric", "trained", "control", "its value"),
    *("random init", "raw input", "seeds", "verdict"),
)
TEXT = """# Experiments

One config a method. `python -m jaxssl.main --config=experiments/NAME.py:PRESET --workdir=DIR`
trains it, and `python -m experiments.prove NAME` compares it with its controls, each of which lacks
what makes the method.

This page is made by `python -m experiments.prove --write` from the files and from
`records/`. A method is **better** than a control where the mean difference over seeds
exceeds twice its standard error and every seed agrees, **worse** where the same holds the other way
round, and **tied** otherwise. Values are mean ± standard deviation over seeds; accuracies are in
percent. {counts}

{table}

## At other scales and on other data

`python -m experiments.prove NAME:PRESET` makes a row. Rows of `cifar10` that say nothing of seeds
are of one, at equal compute, as below.

{others}

## Equal compute

All methods at one budget: of encoded views, the student's and the teachers' passes together and
smaller views counted by their pixels, or of arithmetic. The encoder, the data and the evaluation of
the last step are the same; warm-up is a tenth of the steps, and all else is the experiment's own
`cifar10` preset, which was not tuned for this length. So it says what a method learns from little,
not what it reaches in the end. `python -m experiments.equal_compute --workdir=runs/comparison`
makes the runs, goes on after a kill, and makes none that is on record; with `--record` it puts them
there.

{equal}
"""
NOT_YET = "not yet run"
# What commands of `jaxssl.bench` wrote with --json=experiments/records/NAME.json; how it is shown.
BENCHES: Mapping[str, Callable[[Any], str]] = {
    "invariance": invariance.block,
    "faults": faults.block,
}


def main(root: pathlib.Path, check: bool) -> int:
    """Writes the pages and figures, or says which are not current; the exit code."""
    stale = [path for path, text in made(root).items() if _read(path) != text]
    for path in stale:
        if check:
            name = path.relative_to(root)
            print(f"{name}: not current; run python -m experiments.prove --write")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(made(root)[path])
    return int(check and bool(stale))


def made(root: pathlib.Path) -> dict[pathlib.Path, str]:
    """Every file that is made from the experiments and the records, with its text."""
    folder, rooms = root / "experiments", root / "jaxssl" / "README.md"
    found = {folder / "README.md": page(folder)}
    titles = _titles(folder)
    for kind in TABLES.values():
        if measured := equal_compute.read(root, kind.name):
            found[root / kind.figure] = equal_compute.figure(measured, titles)
    if rooms.exists():
        blocks = {name: _bench(folder, name) for name in BENCHES}
        found[rooms] = filled(rooms.read_text(), blocks)
    return found


def _bench(folder: pathlib.Path, name: str) -> str:
    path = folder / "records" / f"{name}.json"
    return BENCHES[name](read_json(path)) if path.exists() else "Nothing is measured yet."


def _read(path: pathlib.Path) -> str:
    return path.read_text() if path.exists() else ""


def _titles(folder: pathlib.Path) -> dict[str, str]:
    """The methods' names by experiment."""
    return {name: arms.read(folder, name).title for name in arms.names(folder)}


def page(folder: pathlib.Path) -> str:
    """The whole page, from the experiments in a folder and its record."""
    rows = record.read(folder / record.PLACE)
    every = [arms.read(folder, name) for name in arms.names(folder)]
    lines = [line(one, control, rows) for one in every for control in one.controls]
    words = [cells[-1].removeprefix("of an older config: ").strip("*") for cells in lines]
    counts = ", ".join(f"{words.count(w)} {w}" for w in dict.fromkeys(sorted(words)))
    others = [
        line(arms.read(folder, one.name, preset), control, rows)
        for one in every
        for preset in one.presets
        for control in one.controls
        if preset != one.preset
        and any(record.identity(r) == (one.name, preset, control) for r in rows)
    ]
    measured = [equal_compute.read(folder.parent, name) for name in TABLES]
    equal = "\n\n".join(equal_compute.block(one, _titles(folder)) for one in measured if one)
    return TEXT.format(
        counts=f"So far: {counts}.",
        table=table(HEAD, lines),
        others=table(HEAD, others) if others else "Nothing is measured yet.",
        equal=equal or "Nothing is measured yet.",
    )


def line(experiment: Experiment, control: str, rows: Sequence[record.Row]) -> tuple[str, ...]:
    """The cells of a line of the table: an experiment and one of its controls."""
    paper = experiment.paper
    row = record.row_of(rows, experiment, control)
    metric = row["metric"] if row else experiment.metric
    head = (
        f"[{experiment.title}]({experiment.name}.py)",
        experiment.idea,
        f"[{paper}](https://arxiv.org/abs/{paper})" if paper else "",
        f"`{experiment.preset}`, {metric}",
    )
    name = f"`{control}`"
    if row is None:
        return (*head, "", name, "", "", "", "", NOT_YET)
    trained, its, random, raw = (
        shown(row[key], row["better"]) if row[key] else ""
        for key in (*record.VALUES, *record.CONTROLS)
    )
    shared = len(row["method"].keys() & row["control_values"])
    verdict = f"**{row['verdict']}**" if row["verdict"] else NOT_YET
    if row["verdict"] and not _current(experiment, control, row):
        verdict = f"of an older config: {verdict}"
    return (*head, trained, name, its, random, raw, str(shared), verdict)


def _current(experiment: Experiment, control: str, row: record.Row) -> bool:
    """Whether both arms were run with the configs of today."""
    wanted = {
        side: arms.fingerprint(arms.config(experiment, arm), experiment.metric)
        for side, arm in zip(record.VALUES, (METHOD, control))
    }
    return bool(row["fingerprints"] == wanted)
