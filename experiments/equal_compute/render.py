"""The table of a comparison, and its figure, both from the record alone."""

import html
import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.equal_compute.tables import TABLES
from jaxssl.report import human
from jaxssl.report.markdown import count, spread, table

CONTROLS = {"random_init": "random init", "raw_input": "raw pixels"}
LOST, OWN, LABELS, ELSEWHERE = "▼", "†", "‡", "◇"
NOTES = {
    LOST: "kNN at or below random init of the same run",
    OWN: "an encoder of its own",
    LABELS: "trained with labels",
    ELSEWHERE: "judged on data of its own: beside its own controls alone",
}
# The figure's measures in pixels, and the colours of its kinds of bars.
WIDTH, LEFT, RIGHT, TOP, ROW = 920, 300, 70, 78, 22
BAR, LABELLED_BAR, LOST_BAR = "#2f7ed8", "#52606d", "#d64545"
LINES = {"random_init": "#d9822b", "raw_input": "#8a6fc7"}


class Row(NamedTuple):
    """One line of the table: an experiment, or a control in its place among them."""

    name: str
    link: str
    marks: str
    evals: Mapping[str, Sequence[float]]
    record: Mapping[str, Any]

    @property
    def knn(self) -> float:
        """What the table is sorted by."""
        return statistics.fmean(self.evals["knn"])


def read(root: pathlib.Path, name: str) -> dict[str, Any]:
    """The record of a table; nothing where there is none."""
    path = root / TABLES[name].record
    return json.loads(path.read_text()) if path.exists() else {}


def write_record(root: pathlib.Path, record: Mapping[str, Any]) -> None:
    """Puts a comparison on record."""
    path = root / TABLES[record["table"]].record
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


def block(record: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """The Markdown of a table; `titles` are the methods' names by experiment."""
    if not record:
        return "Nothing is measured yet."
    rows, kind = _sorted(record, titles), TABLES[record["table"]]
    predicts = any(_predicted(row.record) for row in rows)
    cells = []
    for row in rows:
        known = row.record
        spent, steps = "", ""
        if known:
            spent = human.duration(statistics.fmean(known["seconds"]))
            steps = " + ".join(
                f"{length:,} × {cost:.4g}"
                for length, cost in zip(known["steps"], known["cost_of_step"], strict=True)
            )
        cells.append(
            (
                " ".join(filter(None, (row.link, row.marks))),
                spread(row.evals["knn"]),
                spread(row.evals["linear"]),
                spread(row.evals["rankme"], scale=1),
                *((_predicted(known),) if predicts else ()),
                steps,
                spent,
                str(len(row.evals["knn"])),
            )
        )
    error = ("prediction error, of the best constant's",) if predicts else ()
    head = ("", "kNN", "linear", "RankMe", *error, f"steps × {kind.unit}", "training", "seeds")
    notes = _notes(rows)
    alt = "kNN accuracy of each method, beside random init and raw pixels"
    diverged = [
        f"- {titles.get(r['experiment'], r['experiment'])}, seed {seed}: {reason}"
        for r in record["rows"]
        for seed, reason in r["diverged"].items()
    ]
    parts = [
        f"![{alt}](../{kind.figure.as_posix()})",
        table(head, cells),
        f"{notes}." if notes else "",
    ]
    parts += ["\n".join(("Not finite:", "", *diverged)) if diverged else "", _about(record)]
    return "\n\n".join(filter(None, parts))


def _predicted(known: Mapping[str, Any]) -> str:
    """The error of what a method predicts, as a share of the best constant's."""
    ratios = [ratio for ratio in known.get("pretext", ()) if ratio is not None]
    return spread(ratios, scale=1, digits=2) if ratios else ""


def _notes(rows: Sequence[Row]) -> str:
    """What the marks mean that stand in some row."""
    shown = "".join(row.marks for row in rows)
    return "; ".join(f"{mark} {text}" for mark, text in NOTES.items() if mark in shown)


def _about(record: Mapping[str, Any]) -> str:
    """The budget, the machines, and the command that makes it all again."""
    machines = sorted({m for row in record["rows"] for m in row["machines"]})
    seeds = sorted({s for row in record["rows"] for s in row["seeds"]})
    kind = TABLES[record["table"]]
    words = f"`{record['preset']}`, {kind.spent(record['budget'])} a run"
    words += "".join(f", `{override}`" for override in kind.overrides)
    if kind.rate:
        rate = str(kind.rate).replace(" ", "")
        words += f", the preset's learning rate replaced by `{rate}`"
    where = f" on {'; '.join(machines)}" if machines else ""
    flags = f"--seeds={','.join(map(str, seeds))} --budget={record['budget']:.0f}"
    place = f"--table={kind.name} --workdir=runs/{kind.name}"
    command = f"python -m experiments.equal_compute {place} {flags}"
    return f"{words}, {count(len(seeds), 'seed')}{where}:\n\n`{command}`"


def _sorted(record: Mapping[str, Any], titles: Mapping[str, str]) -> list[Row]:
    """Best kNN first, random init and raw pixels among them; only rows with a finished run."""
    done = [row for row in record["rows"] if row["seeds"]]
    rows = []
    for r in done:
        name, trained = r["experiment"], {m: kinds["trained"] for m, kinds in r["evals"].items()}
        knn = r["evals"]["knn"]
        lost = statistics.fmean(knn["trained"]) <= statistics.fmean(knn["random_init"])
        marks = {LOST: lost, OWN: r["own_encoder"], LABELS: r["labels"], ELSEWHERE: r["own_data"]}
        title = titles.get(name, name)
        link = f"[{title}]({name}.py)" if name in titles else title
        rows.append(Row(title, link, "".join(m for m in marks if marks[m]), trained, r))
    # The control of the encoder and the data that are shared, where any method shares them.
    shared = [r for r in done if not (r["own_encoder"] or r["own_data"])] or done
    for kind, name in CONTROLS.items() if done else ():
        rows.append(Row(name, f"**{name}**", "", _control(shared, kind), {}))
    return sorted(rows, key=lambda row: -row.knn)


def _control(rows: Sequence[Mapping[str, Any]], kind: str) -> dict[str, list[float]]:
    """metric -> a control's value at each seed, the mean over the runs of that seed."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        for metric, kinds in row["evals"].items():
            for seed, value in zip(row["seeds"], kinds[kind]):
                found.setdefault(metric, {}).setdefault(seed, []).append(value)
    return {
        metric: [statistics.fmean(by_seed[seed]) for seed in sorted(by_seed)]
        for metric, by_seed in found.items()
    }


# ------------------------------------------------------------------ the figure


def figure(record: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """Horizontal bars of kNN with a line at each control, as SVG.

    Written by hand: a plotting library gives other bytes in each of its versions, and then nobody
    could say whether the figure is current.
    """
    rows, spent = _sorted(record, titles), TABLES[record["table"]].spent(record["budget"])
    bars = [row for row in rows if row.record]
    controls = {
        kind: row.knn for kind, name in CONTROLS.items() for row in rows if row.name == name
    }
    highest = max((max(row.evals["knn"]) for row in rows), default=0.0)
    top = min(1.0, max(0.1, -(-highest // 0.1) * 0.1))
    height = TOP + ROW * len(bars) + 64
    x = lambda value: round(LEFT + (WIDTH - LEFT - RIGHT) * value / top, 1)
    bottom = TOP + ROW * len(bars) + 4
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-size="13" fill="#1f2933" '
        'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
        "<title>kNN accuracy of each method, beside random init and raw pixels</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="12" fill="#f7f9fb"/>',
        '<text x="24" y="32" font-size="16" font-weight="600">'
        f"kNN accuracy on {record['preset']}, {spent} each</text>",
    ]
    for percent in range(0, round(100 * top) + 1, 10):
        at = x(percent / 100)
        parts.append(f'<path d="M{at} {TOP - 4}V{bottom}" stroke="#d9e2ec"/>')
        place = f'x="{at}" y="{bottom + 18}" text-anchor="middle" fill="#52606d"'
        parts.append(f"<text {place}>{percent}%</text>")
    for i, row in enumerate(bars):
        parts += _bar(row, TOP + ROW * i, x)
    # The lines cross the bars, and the numbers stand before the lines. The two names stand apart
    # from each other, however near the lines are.
    sides = ("end", "start") if len(controls) > 1 else ("start",)
    for (kind, value), side in zip(sorted(controls.items(), key=lambda c: c[1]), sides):
        at, color = x(value), LINES[kind]
        stroke = f'stroke="{color}" stroke-width="2" stroke-dasharray="5 4"'
        parts.append(f'<path d="M{at} {TOP - 8}V{bottom}" {stroke}/>')
        label = f"{CONTROLS[kind]} {100 * value:.1f}"
        parts.append(
            f'<text x="{at}" y="{TOP - 14}" text-anchor="{side}" fill="{color}">{label}</text>'
        )
    for i, row in enumerate(bars):
        parts.append(_number(row, TOP + ROW * i, x))
    notes = f'<text x="24" y="{height - 16}" font-size="12" fill="#52606d">{_notes(bars)}</text>'
    return "\n".join((*parts, notes, "</svg>")) + "\n"


def _bar(row: Row, y: float, x: Any) -> list[str]:
    """A method's bar with its name before, and the spread of its seeds."""
    color = LOST_BAR if LOST in row.marks else LABELLED_BAR if LABELS in row.marks else BAR
    name = html.escape(" ".join(filter(None, (row.name, row.marks))))
    end, middle = x(row.knn), y + ROW / 2
    parts = [
        f'<text x="{LEFT - 10}" y="{middle + 4.5}" text-anchor="end">{name}</text>',
        f'<rect x="{LEFT}" y="{y + 3}" width="{round(end - LEFT, 1)}" height="{ROW - 6}" rx="2" '
        f'fill="{color}"/>',
    ]
    if wide := _wide(row):
        low, high = x(row.knn - wide), x(row.knn + wide)
        parts.append(f'<path d="M{low} {middle}H{high}" stroke="#102a43" stroke-width="2"/>')
    return parts


def _number(row: Row, y: float, x: Any) -> str:
    """The accuracy behind a bar, with a rim in the background's colour."""
    place = f'x="{round(x(row.knn + _wide(row)) + 6, 1)}" y="{y + ROW / 2 + 4.5}"'
    rim = 'stroke="#f7f9fb" stroke-width="4" paint-order="stroke"'
    return f"<text {place} {rim}>{spread(row.evals['knn'])}</text>"


def _wide(row: Row) -> float:
    """The standard deviation over seeds, 0 where there is one seed."""
    knn = row.evals["knn"]
    return statistics.stdev(knn) if len(knn) > 1 else 0.0
