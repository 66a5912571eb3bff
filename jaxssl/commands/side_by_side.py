"""Finished runs beside each other on one page: evaluations, what differs, curves, spectra."""

import argparse
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.config.load import differences
from jaxssl.config.skeleton import OPEN
from jaxssl.evals import LOOP
from jaxssl.report import controls, curves, plots, samples, writers
from jaxssl.report.page import drawing, page, table, text
from jaxssl.run import runs

OTHER = "*"  # marks an evaluation that was not made the same way in all runs


class Run(NamedTuple):
    """What a finished run left that is compared.

    Attributes:
      name: of its workdir, or as much of its path as tells it from the others.
      config: as `config.json` holds it.
      evals: of `summary.json`: metric -> {"trained": x, "random_init": y, ...}.
      series: metric -> step -> value.
      spectrum: eigenvalues [D] of the covariance of its features, greatest first; None is unknown.
    """

    name: str
    config: Mapping[str, Any]
    evals: Mapping[str, Mapping[str, Any]]
    series: curves.Series
    spectrum: np.ndarray | None


def read(workdirs: Sequence[str | pathlib.Path]) -> list[Run]:
    """The runs of some workdirs; of one with stages, the last stage.

    Raises:
      ConfigError: fewer than two, one twice, no run there, or one of its files is broken.
    """
    folders = [pathlib.Path(workdir).resolve() for workdir in workdirs]
    if len(folders) < 2 or len(set(folders)) < len(folders):
        found = " ".join(map(str, workdirs))
        raise ConfigError(f"workdirs: found {found!r}, expected two runs or more, each once")
    return [_read(name, folder) for name, folder in zip(_names(folders), folders)]


def _read(name: str, workdir: pathlib.Path) -> Run:
    folder = runs.folder_of(workdir)
    shown = samples.load(folder)
    return Run(
        name,
        writers.read_json(folder / "config.json"),
        writers.read_json(folder / "summary.json").get("evals") or {},
        curves.series(writers.read_metrics(folder / writers.METRICS)),
        None if shown is None else plots.principal(shown.bank_features)[1],
    )


def _names(folders: Sequence[pathlib.Path]) -> list[str]:
    """As few last parts of each path as make all names different."""
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return names


def evals_table(shown: Sequence[Run]) -> list[tuple[str, ...]]:
    """Head and rows: (evaluation, run, trained, difference to the first run, and of each control
    its value and trained minus it), texts; "" is not known.

    An evaluation whose settings are not the same in all runs ends with OTHER.
    """
    names = list(dict.fromkeys(name for run in shown for name in run.evals))
    kinds = [c for c in controls.CONTROLS if any(c in e for r in shown for e in r.evals.values())]
    head = ["evaluation", "run", "trained", f"- {shown[0].name}"]
    for kind in kinds:
        head += [kind.replace("_", " "), f"- {kind.replace('_', ' ')}"]
    rows = [tuple(head)]
    for name in names:
        entries = [run.evals.get(name, {}) for run in shown]
        lower = any(entry.get("better") == "lower" for entry in entries)
        title = name + (" (less is better)" if lower else "")
        title += f" {OTHER}" if _settings_differ(name, shown) else ""
        for i, (run, entry) in enumerate(zip(shown, entries)):
            trained = entry.get("trained")
            cells = [_number(trained), _change(trained, entries[0].get("trained")) if i else ""]
            for kind in kinds:
                cells += [_number(entry.get(kind)), _change(trained, entry.get(kind))]
            rows.append((title, run.name, *cells))
    return rows


def _number(x: float | None) -> str:
    return "" if x is None else controls.digits(float(x))


def _change(x: float | None, other: float | None) -> str:
    if x is None or other is None:
        return ""
    change = float(x) - float(other)
    return f"{'+' if change > 0 else ''}{controls.digits(change)}"


def _settings_differ(name: str, shown: Sequence[Run]) -> bool:
    """Whether the runs that have an evaluation made it by other settings, or on other data."""

    def settings(run: Run) -> list[Any]:
        evals, data = run.config.get("evals", {}), run.config.get("data", {})
        own = evals.get(name.partition("/")[0])
        shared = {k: evals.get(k) for k in LOOP if k not in ("every_steps", "batch_size")}
        return [own, shared, {k: data.get(k) for k in ("source", "size", "test_split")}]

    found = [settings(run) for run in shown if name in run.evals]
    return any(one != found[0] for one in found)


def fields_table(shown: Sequence[Run]) -> list[tuple[str, ...]]:
    """Head and rows: (field, its value in each run), of the fields that make them other runs.

    "default" where a config of an older version does not hold the field, "absent" where a section
    does not have the entry.
    """
    first = dict(shown[0].config)
    lines = [line for run in shown[1:] for line in differences(first, dict(run.config))]
    fields = sorted({line.partition(": ")[0] for line in lines})
    rows = [("field", *(run.name for run in shown))]
    return rows + [(field, *(_value(run.config, field) for run in shown)) for field in fields]


def _value(config: Mapping[str, Any], field: str) -> str:
    node: Any = config
    for part in field.split("."):
        if not isinstance(node, Mapping) or part not in node:
            # A section whose entries the config names has none by default.
            return "absent" if field.partition(".")[0] in OPEN else "default"
        node = node[part]
    return str(node)


def printed(rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal; what a first column repeats is left out."""
    shown = [list(row) for row in rows]
    for above, row in reversed(list(zip(rows, shown[1:]))):
        row[0] = "" if row[0] == above[0] else row[0]
    widths = [max(map(len, column)) for column in zip(*shown)]
    left = lambda cells: "  ".join(c.ljust(w) for c, w in zip(cells, widths[:2]))
    right = lambda cells: "  ".join(c.rjust(w) for c, w in zip(cells, widths[2:]))
    return "\n".join(f"{left(row[:2])}  {right(row[2:])}".rstrip() for row in shown)


def write(shown: Sequence[Run], path: pathlib.Path) -> None:
    """The page, as one file.

    Raises:
      ConfigError: it cannot be written.
    """
    title = " | ".join(run.name for run in shown)
    body = [f"<h1>{text(title)}</h1>", *_evals(shown), *_charts(shown), *_fields(shown)]
    try:
        writers.write_text(path, page(f"{title} - jaxssl", body))
    except OSError as error:
        raise ConfigError(f"--output={path}: {error.strerror}") from None


def _evals(shown: Sequence[Run]) -> list[str]:
    head, *rows = evals_table(shown)
    html = ["<h2>Evaluations</h2>"]
    if not rows:
        return [*html, '<p class="soft">None of these runs made an evaluation.</p>']
    words = "The same evaluation of each run's trained encoder, less that of the first run, and "
    words += "beside the run's own controls."
    if any(row[0].endswith(OTHER) for row in rows):
        words += f" {OTHER} marks what was not made by the same settings in all runs: such numbers "
        words += "do not compare."
    before = ["", *(row[0] for row in rows)]
    cells = [
        [
            f"<b>{text(row[0])}</b>" if row[0] != old else "",
            text(row[1]),
            f"<b>{text(row[2])}</b>",
            *map(text, row[3:]),
        ]
        for old, row in zip(before, rows)
    ]
    titles = [text(name).replace("- ", "&minus; ") for name in head]
    return [*html, f'<p class="soft">{text(words)}</p>', table(titles, cells, words=2)]


def _fields(shown: Sequence[Run]) -> list[str]:
    head, *rows = fields_table(shown)
    html = ["<h2>What differs in the configs</h2>"]
    if not rows:
        return [*html, '<p class="soft">Nothing that moves a parameter.</p>']
    cells = [[text(row[0]), *(f"<code>{text(x)}</code>" for x in row[1:])] for row in rows]
    return [*html, table([*map(text, head)], cells, words=len(head))]


def _charts(shown: Sequence[Run]) -> list[str]:
    names = dict.fromkeys(name for run in shown for name in run.series)
    html = ["<h2>Curves and spectra</h2>", '<div class="charts">']
    for name in names:
        found = {run.name: run.series[name] for run in shown if name in run.series}
        # One evaluation, at the end, is in the table.
        many = name.startswith("eval/") and max(map(len, found.values())) > 1
        if name == "train/loss" or many:
            lines = {
                run: (sorted(points), [points[step] for step in sorted(points)])
                for run, points in found.items()
            }
            html.append(drawing(plots.curves(lines, title=name)))
    spectra = {run.name: run.spectrum for run in shown if run.spectrum is not None}
    if spectra:
        html.append(drawing(plots.spectrum(spectra, width=5.4)))
    return [*html, "</div>"]


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page of finished runs and prints their evaluations; the exit code, 2: bad input.

    python -m jaxssl.commands.side_by_side DIR DIR ... [--output=compare.html]
    """
    parser = argparse.ArgumentParser(prog="jaxssl.commands.side_by_side", allow_abbrev=False)
    parser.add_argument("workdirs", nargs="*", help="of finished runs")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("compare.html"))
    flags = parser.parse_args(argv)
    try:
        shown = read(flags.workdirs)
        write(shown, flags.output)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(printed(evals_table(shown)))
    print(flags.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
