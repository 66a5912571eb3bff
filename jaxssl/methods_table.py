"""The README's tables of methods and of measured numbers, both made from files, none by hand.

  python -m jaxssl.methods_table --record runs/lejepa-0 runs/lejepa-1   # into results.json
  python -m jaxssl.methods_table --write                                # the tables, into README.md
  python -m jaxssl.methods_table --check                                # exit code 1: not current

A row of the methods comes from the docstring and the `PRESETS` of a file in `experiments/`; a
number from `experiments/results.json`, which `--record` fills from the workdirs of finished runs.
Workdirs that differ in the seed alone are one measurement. What was not run at its own length
stands as it does in the comparisons at equal compute (`jaxssl.compare`), if it is there.
"""

import argparse
import ast
import itertools
import json
import pathlib
import re
import runpy
import shlex
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxssl import measurements
from jaxssl.bench import invariance
from jaxssl.bench.faults import command as faults
from jaxssl.compare.tables import CONTROL, TABLES
from jaxssl.errors import ConfigError
from jaxssl.markdown import count, filled, spread, table
from jaxssl.report.writers import read_json

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What commands of `jaxssl.bench` wrote with --json=experiments/NAME.json, and how it is shown.
BENCHES: Mapping[str, Callable[[Any], str]] = {
    "invariance": invariance.block,
    "faults": faults.block,
}
OWN = "its_control"  # the rival that a method's docstring names
COMPARED = ("knn", "linear")  # the metrics of a comparison at equal compute that are won or lost
ERRORS = "pretext/"  # metrics that begin with this are errors: less is better, and no shares


class Control(NamedTuple):
    """The same method without what makes it: what it does, in words, and its overrides."""

    words: str
    overrides: tuple[str, ...]


class Experiment(NamedTuple):
    """What a file in `experiments/` says of itself."""

    name: str
    method: str
    idea: str
    reference: str
    presets: tuple[str, ...]
    control: Control | None


def main(argv: Sequence[str] | None = None, root: pathlib.Path = ROOT) -> int:
    """The exit code: 0 done, 1 README.md is not current, 2 bad input."""
    parser = argparse.ArgumentParser(prog="jaxssl.methods_table", allow_abbrev=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write the tables into README.md")
    what.add_argument("--check", action="store_true", help="fail where README.md is not current")
    what.add_argument("--record", nargs="+", metavar="WORKDIR", help="collect finished runs")
    parser.add_argument("--name", help="the experiment, where config.json does not say")
    parser.add_argument("--preset", help="the preset, where config.json does not say")
    parser.add_argument("--machine", help="where the runs were made, if not on this machine")
    flags = parser.parse_args(argv)
    try:
        if flags.record:
            where = flags.machine or measurements.machine()
            measurements.record(root, flags.record, flags.name, flags.preset, where)
            return 0
        readme = root / "README.md"
        old = readme.read_text() if readme.exists() else ""
        new = filled(old, tables(root))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if flags.write:
        readme.write_text(new)
    elif new != old:
        print(f"{readme.name}: not current; run python -m jaxssl.methods_table --write")
        return 1
    return 0


# ------------------------------------------------------------------ the tables


def experiments(root: pathlib.Path) -> list[Experiment]:
    """Every experiment, by name.

    Raises:
      ConfigError: a docstring that is not "Method: idea.", then a paragraph with the reference.
    """
    found = []
    for path in sorted((root / "experiments").glob("*.py")):
        paragraphs = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")
        method, colon, idea = " ".join(paragraphs[0].split()).partition(": ")
        if not colon or len(paragraphs) < 2:
            raise ConfigError(f"{path.name}: expected a docstring 'Method: idea.' and a reference")
        presets = tuple(runpy.run_path(str(path)).get("PRESETS", ()))
        reference = " ".join(paragraphs[1].split())
        idea, control = idea.rstrip("."), _control(paragraphs)
        found.append(Experiment(path.stem, method, idea, reference, presets, control))
    return found


def _control(paragraphs: Sequence[str]) -> Control | None:
    """The first "... The control does so:" that is followed by the overrides which make it so.

    >>> _control(["An idea.", "CIFAR-10. The control has no head:", "  ... --config.losses.a.b=0"])
    Control(words='has no head', overrides=('--config.losses.a.b=0',))
    """
    for said, command in itertools.pairwise(paragraphs):
        words = re.search(r"The control (.+):$", " ".join(said.split()))
        parts = shlex.split(command, posix=True) if words else []
        if words and parts[:1] == ["..."]:
            return Control(words[1], tuple(parts[1:]))
    return None


def tables(root: pathlib.Path) -> dict[str, str]:
    """Marker -> the Markdown that belongs there."""
    made = {"methods": methods(root), "numbers": numbers(measurements.results(root))}
    for name, shown in BENCHES.items():
        path = root / "experiments" / f"{name}.json"
        made[name] = shown(read_json(path)) if path.exists() else "Nothing is measured yet."
    return made


def methods(root: pathlib.Path) -> str:
    """One row per experiment: its idea, its reference, its presets and how it stands."""
    rows = []
    measured, compared = measurements.results(root), comparisons(root)
    for e in experiments(root):
        stands = []
        for preset in e.presets:
            of = [r for r in measured if (r["experiment"], r["preset"]) == (e.name, preset)]
            plain = [verdict(r) for r in of if not r["changes"]]
            found = compared.get((e.name, preset), ())
            short = [f"at equal compute {verdict(r)}" for r in found]
            stands.append(f"`{preset}`: {(plain or short or ['not measured'])[0]}")
        link = f"[{e.method}](experiments/{e.name}.py)"
        reference = re.sub(
            r"arXiv[: ](\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", e.reference
        )
        rows.append((link, e.idea, reference, "<br>".join(stands)))
    return table(("method", "idea", "reference", "presets and how they stand"), rows)


def verdict(result: Mapping[str, Any]) -> str:
    """How a measurement stands against its controls; a metric is won where every seed wins.

    >>> verdict({"seeds": [0], "evals": {"knn": {"trained": [0.9], "raw_input": [0.95]}}})
    'not better than raw input on knn (1 seed)'
    """
    lost = []
    for metric, entry in result["evals"].items():
        for control in (*measurements.CONTROLS, OWN):
            pairs = zip(entry["trained"], entry.get(control, ()))
            sign = -1 if metric.startswith(ERRORS) else 1
            if not all(sign * trained > sign * rival for trained, rival in pairs):
                lost.append(f"{control.replace('_', ' ')} on {metric}")
    seeds = count(len(result["seeds"]), "seed")
    if not lost:
        return f"better than its controls on {count(len(result['evals']), 'metric')} ({seeds})"
    return f"not better than {', '.join(lost)} ({seeds})"


def comparisons(root: pathlib.Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(experiment, preset) -> how it did in comparisons, in the form that `verdict` takes.

    The control counts at the seeds at which it was run.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for kind in TABLES.values():
        path = root / kind.record
        record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rows": ()}
        rows = {row["experiment"]: row for row in record["rows"] if row["seeds"]}
        for name, row in rows.items():
            control = rows.get(name + CONTROL, {"seeds": ()})
            seeds = sorted(row["seeds"], key=lambda s: s not in control["seeds"])
            evals = {metric: _ordered(row, metric, seeds) for metric in COMPARED}
            shared = [s for s in seeds if s in control["seeds"]]
            for metric in COMPARED if shared else ():
                evals[metric][OWN] = _ordered(control, metric, shared)["trained"]
            found.setdefault((name, record["preset"]), []).append({"seeds": seeds, "evals": evals})
    return found


def _ordered(row: Mapping[str, Any], metric: str, seeds: Sequence[int]) -> dict[str, list[float]]:
    """kind -> the values of a metric at some seeds of a recorded row."""
    at = [row["seeds"].index(seed) for seed in seeds]
    kinds = row["evals"][metric]
    return {k: [kinds[k][i] for i in at] for k in ("trained", *measurements.CONTROLS) if k in kinds}


def numbers(measured: Sequence[Mapping[str, Any]]) -> str:
    """The measured numbers beside their controls, then the command and machine of each."""
    if not measured:
        return "Nothing is measured yet."
    rows, commands = [], []
    for r in measured:
        name = " ".join((f"{r['experiment']}:{r['preset']}", *_overrides(r["changes"], prefix="")))
        for metric, entry in r["evals"].items():
            trained = statistics.fmean(entry["trained"])
            error = metric.startswith(ERRORS)
            cells = [spread(entry["trained"], 1 if error else 100, 3 if error else 1)]
            for control in measurements.CONTROLS:
                if control in entry and error:
                    least = statistics.fmean(entry[control])
                    ratio = f" (x {trained / least:.2f})" if least else ""
                    cells.append(spread(entry[control], 1, 3) + ratio)
                elif control in entry:
                    gain = 100 * (trained - statistics.fmean(entry[control]))
                    cells.append(f"{spread(entry[control])} ({gain:+.1f})")
                else:
                    cells.append("")
            rows.append((f"`{name}`", metric, *cells, str(len(r["seeds"]))))
        seconds = f"{statistics.fmean(r['seconds']):.0f} s of training for each seed"
        commands.append(f"- `{name}`: {seconds} on {r['machine']}\n\n  `{command(r)}`")
    head = (
        *("run", "metric", "trained", "random init (gain)", "raw input (gain)"),
        *("best constant (ratio)", "seeds"),
    )
    return "\n\n".join((table(head, rows), *commands))


def command(result: Mapping[str, Any]) -> str:
    """The shell command that makes the runs of a measurement."""
    name, preset, seeds = (result[k] for k in ("experiment", "preset", "seeds"))
    words = ["python -m jaxssl.main", f"--config=experiments/{name}.py:{preset}"]
    words += [f"--workdir=runs/{name}-{preset}-$seed", "--config.train.seed=$seed"]
    words += _overrides(result["changes"])
    return f"for seed in {' '.join(map(str, seeds))}; do {' '.join(words)}; done"


def _overrides(changed: Mapping[str, Any], prefix: str = "--config.") -> list[str]:
    return [f"{prefix}{key}={_literal(value)}" for key, value in changed.items()]


def _literal(value: Any) -> str:
    """A value as the command line takes it: JSON's lists are the config's tuples."""
    tuples: Callable[[Any], Any] = lambda v: tuple(map(tuples, v)) if isinstance(v, list) else v
    return shlex.quote(f"{tuples(value)!r}" if isinstance(value, list) else str(value))


if __name__ == "__main__":
    sys.exit(main())
