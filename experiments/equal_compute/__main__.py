"""Runs and collects a comparison of experiments at one compute budget.

python -m experiments.equal_compute --workdir=runs/comparison            # makes the runs
python -m experiments.equal_compute --record --workdir=runs/comparison   # puts them on record
python -m experiments.prove --write                                      # shows what is on record
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from experiments.equal_compute import render, runs, tables
from jaxssl.config.errors import ConfigError
from jaxssl.report.markdown import count

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main(argv: Sequence[str] | None = None, root: pathlib.Path = ROOT) -> int:
    """The exit code: 0 done, 1 a run failed, 2 bad input."""
    parser = argparse.ArgumentParser(prog="experiments.equal_compute", allow_abbrev=False)
    parser.add_argument("--workdir", type=pathlib.Path, help="holds a folder for each run")
    parser.add_argument("--experiments", default="all", help="names with commas between, or all")
    parser.add_argument("--seeds", default="0", help="with commas between")
    parser.add_argument(
        "--table", default=tables.DEFAULT, help=f"one of {', '.join(tables.TABLES)}"
    )
    parser.add_argument("--budget", type=float, help="of each run, in the table's unit")
    parser.add_argument("--machine", default="", help="in words, if it is not this one's own name")
    parser.add_argument("--record", action="store_true", help="put finished runs on record")
    flags = parser.parse_args(argv)
    try:
        if flags.workdir is None:
            raise ConfigError("--workdir: missing; expected a folder for the runs")
        if flags.record:
            found = runs.collect(flags.workdir)
            render.write_record(root, runs.merged(render.read(root, found["table"]), found))
            print("python -m experiments.prove --write")
            return 0
        names = [] if flags.experiments == "all" else flags.experiments.split(",")
        table = tables.find(flags.table)
        budget = table.budget if flags.budget is None else flags.budget
        runs.check_folder(flags.workdir, table, budget)
        planned = runs.plan(root, flags.workdir, table, names, _seeds(flags.seeds))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    record = render.read(root, table.name)
    failures = runs.execute(planned, table, budget, flags.machine, record=record)
    for run, reason in failures.items():
        print(f"failed: {run.experiment} seed {run.seed}: {reason}", file=sys.stderr)
    print(f"{count(len(planned) - len(failures), 'run')} of {len(planned)} finished")
    print(f"python -m experiments.equal_compute --record --workdir={flags.workdir}")
    return 1 if failures else 0


def _seeds(text: str) -> list[int]:
    """The seeds of `--seeds`.

    >>> _seeds("0,2")
    [0, 2]
    """
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError:
        found = [-1]
    if min(found) < 0 or len(set(found)) < len(found):
        raise ConfigError(f"--seeds: found {text!r}, expected whole numbers, each once, as 0,1,2")
    return found


if __name__ == "__main__":
    sys.exit(main())
