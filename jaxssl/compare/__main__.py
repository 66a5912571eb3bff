"""Runs, collects and shows a comparison of experiments at one compute budget.

python -m jaxssl.compare --workdir=runs/comparison                # makes the runs
python -m jaxssl.compare --render --workdir=runs/comparison       # puts them on record and shows
python -m jaxssl.compare --render | --check                       # from the record alone

python -m jaxssl.compare DIR DIR ... [--output=compare.html]      # puts finished runs side by side
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from jaxssl.compare import described, render, runs, side_by_side, tables
from jaxssl.errors import ConfigError
from jaxssl.markdown import count, filled
from jaxssl.methods_table import ROOT


def main(argv: Sequence[str] | None = None, root: pathlib.Path = ROOT) -> int:
    """The exit code: 0 done, 1 a run failed or README.md is not current, 2 bad input."""
    parser = argparse.ArgumentParser(prog="jaxssl.compare", allow_abbrev=False)
    parser.add_argument("workdirs", nargs="*", help="of finished runs, to put side by side")
    parser.add_argument("--output", type=pathlib.Path, help="the page of runs side by side")
    parser.add_argument("--workdir", type=pathlib.Path, help="holds a folder for each run")
    parser.add_argument("--experiments", default="all", help="names with commas between, or all")
    parser.add_argument("--seeds", default="0", help="with commas between")
    parser.add_argument(
        "--table", default=tables.DEFAULT, help=f"one of {', '.join(tables.TABLES)}"
    )
    parser.add_argument("--budget", type=float, help="of each run, in the table's unit")
    parser.add_argument(
        "--controls", action="store_true", help="instead of each, the control its docstring names"
    )
    parser.add_argument("--machine", default="", help="in words, if it is not this one's own name")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--render", action="store_true", help="write README.md, figures, docstrings")
    what.add_argument("--check", action="store_true", help="fail where they are not current")
    flags = parser.parse_args(argv)
    try:
        if flags.workdirs or flags.output:
            return _side_by_side(parser, flags)
        if flags.render or flags.check:
            return _show(root, flags.workdir, flags.check)
        if flags.workdir is None:
            raise ConfigError("--workdir: missing; expected a folder for the runs")
        names = [] if flags.experiments == "all" else flags.experiments.split(",")
        table = tables.find(flags.table)
        budget = table.budget if flags.budget is None else flags.budget
        runs.check_folder(flags.workdir, table, budget)
        planned = runs.plan(root, flags.workdir, table, names, _seeds(flags.seeds), flags.controls)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    record = render.read(root, table.name)
    failures = runs.execute(planned, table, budget, flags.machine, record=record)
    for run, reason in failures.items():
        print(f"failed: {run.experiment} seed {run.seed}: {reason}", file=sys.stderr)
    print(f"{count(len(planned) - len(failures), 'run')} of {len(planned)} finished")
    print(f"python -m jaxssl.compare --render --workdir={flags.workdir}")
    return 1 if failures else 0


def _side_by_side(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> int:
    """Writes the page of finished runs and prints their evaluations."""
    own = ("workdirs", "output")
    for name, value in vars(flags).items():
        if name not in own and value != parser.get_default(name):
            raise ConfigError(f"--{name}: not for runs that are put side by side")
    found = side_by_side.read(flags.workdirs)
    path = flags.output or pathlib.Path("compare.html")
    side_by_side.write(found, path)
    print(side_by_side.printed(side_by_side.evals_table(found)))
    print(path)
    return 0


def _seeds(text: str) -> list[int]:
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError:
        found = [-1]
    if min(found) < 0 or len(set(found)) < len(found):
        raise ConfigError(f"--seeds: found {text!r}, expected whole numbers, each once, as 0,1,2")
    return found


def _show(root: pathlib.Path, workdir: pathlib.Path | None, check: bool) -> int:
    """Writes README's blocks, figures and docstrings, or says whether they are current."""
    if workdir is not None and not check:
        found = runs.collect(workdir)
        render.write_record(root, runs.merged(render.read(root, found["table"]), found))
    titles, controls = render.titles(root), render.controls(root)
    records = {name: render.read(root, name) for name in tables.TABLES}
    readme = root / "README.md"
    old = readme.read_text() if readme.exists() else ""
    wanted = {
        readme: filled(old, {n: render.block(r, titles, controls) for n, r in records.items()})
    }
    for name, record in records.items():
        if record:
            wanted[root / tables.TABLES[name].figure] = render.figure(record, titles)
    for name in titles:
        path = root / "experiments" / f"{name}.py"
        said = (described.sentence(name, record) for record in records.values())
        wanted[path] = described.described(path.read_text(), "\n\n".join(filter(None, said)))
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"{path.name}: not current; run python -m jaxssl.compare --render")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(wanted[path])
    if stale and not check:
        print("python -m jaxssl.methods_table --write  # the table of methods rests on it")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
