"""Metrics over the steps of a run, each evaluation with its controls."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxssl.report import plots
from jaxssl.report.controls import is_interval
from jaxssl.report.page import drawing, text

_MOST_CHARTS = 24
Series = dict[str, dict[int, float]]


def series(metrics: Sequence[Mapping[str, Any]]) -> Series:
    """metric -> step -> value, of what `writers.read_metrics` returns.

    A step may come twice, after a restart: the later line holds.

    >>> series([{"step": 1, "train/loss": 3.0}, {"step": 1, "train/loss": 2.0}])
    {'train/loss': {1: 2.0}}
    """
    found: Series = {}
    for row in metrics:
        for name, x in row.items():
            if name != "step" and isinstance(x, int | float):
                found.setdefault(name, {})[int(row["step"])] = float(x)
    return found


def section(metrics: Sequence[Mapping[str, Any]], evals: Mapping[str, Any]) -> list[str]:
    """A chart of each metric, by group, evaluations first and the total loss first of its group.

    But of no interval: its width is in the table of controls.
    """
    found = series(metrics)
    found = {name: points for name, points in found.items() if not is_interval(name, found)}
    # An evaluation made once is no curve.
    once = [n for n, points in found.items() if n.startswith("eval/") and len(points) == 1]
    groups: dict[str, list[str]] = {}
    for name in sorted((n for n in found if n not in once), key=lambda n: n != "train/loss"):
        groups.setdefault(name.split("/", 1)[0] if "/" in name else "other", []).append(name)
    html = ["<h2>Curves</h2>"]
    if not found:
        html.append('<p class="soft">No metrics were written.</p>')
    if once:
        html.append(
            '<p class="soft">Of evaluations that were made once the table above has the numbers: '
            f"{text(', '.join(n.removeprefix('eval/') for n in once))}.</p>"
        )
    for group, names in sorted(groups.items(), key=lambda pair: pair[0] != "eval"):
        html += [f"<h3>{text(group)}</h3>", '<div class="charts">']
        for name in names[:_MOST_CHARTS]:
            short = name.removeprefix(f"{group}/")
            steps = sorted(found[name])
            entry = _entry(short, names, group, evals) if group == "eval" else {}
            svg = plots.curve(
                steps,
                [found[name][s] for s in steps],
                title=short,
                controls={c: float(entry[c]) for c in plots.CONTROLS if entry.get(c) is not None},
                marks=len(steps) <= 30,
            )
            html.append(drawing(svg))
        html.append("</div>")
        if len(names) > _MOST_CHARTS:
            html.append(f'<p class="soft">{len(names) - _MOST_CHARTS} more are in the files.</p>')
    return html


def _entry(
    name: str, names: Sequence[str], group: str, evals: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    """The controls of a metric: of its full name, or of its first word if no other shares that."""
    word = name.split("/", 1)[0]
    alone = sum(other.startswith(f"{group}/{word}/") for other in names) == 1
    return evals.get(name) or (evals.get(word) if alone else None) or {}
