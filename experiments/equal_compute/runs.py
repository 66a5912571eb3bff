"""The runs of a comparison: planned, made one after another, and collected.

A run that is finished is not made again; one that was cut short goes on from its last checkpoint.
"""

import contextlib
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType, MappingProxyType
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.equal_compute import tables
from experiments.equal_compute.one import facts_path
from experiments.equal_compute.tables import PRESET, Table
from experiments.prove import arms
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError, near
from jaxssl.report import human
from jaxssl.report.writers import read_json

METRICS = {"knn": "knn/accuracy", "linear": "linear/accuracy", "rankme": "features/rankme"}
KINDS = ("trained", "random_init", "raw_input")
# What a row of the record takes from the facts of its runs.
FIELDS = ("experiment", "recipe", "labels", "own_encoder", "own_data", "cost_of_step", "steps")


class Run(NamedTuple):
    """One experiment at one seed, in a folder of the comparison's."""

    experiment: str
    seed: int
    file: pathlib.Path
    workdir: pathlib.Path

    @property
    def log(self) -> pathlib.Path:
        """What the run printed."""
        return self.workdir.with_name(f"{self.workdir.name}.log")


def plan(
    root: pathlib.Path,
    folder: pathlib.Path,
    table: Table,
    names: Sequence[str],
    seeds: Sequence[int],
) -> list[Run]:
    """Every named experiment at every seed; no names are all of the table that have one stage.

    Raises:
      ConfigError: an unknown experiment, one without the preset, or of another table.
    """
    folder_of = root / "experiments"
    presets = {name: arms.read(folder_of, name).presets for name in arms.names(folder_of)}
    fit = [name for name in presets if PRESET in presets[name]]
    loaded = {
        name: configs.load(f"{root / 'experiments' / name}.py:{PRESET}")
        for name in (names or fit)
        if name in fit
    }
    at_home = {name for name, config in loaded.items() if tables.of(config) == table}
    everything = [name for name in loaded if name in at_home and not loaded[name].stages]
    for name in names:
        if name not in presets:
            raise ConfigError(f"--experiments: no {name!r}{near(name, presets)}")
        if name not in fit:
            raise ConfigError(f"--experiments: {name!r} has no preset {PRESET!r}")
        if name not in at_home:
            other = tables.of(loaded[name]).name
            raise ConfigError(f"--experiments: {name!r} belongs to --table={other}")

    planned = dict.fromkeys(names or everything)
    file = lambda name: folder_of / f"{name}.py"
    return [Run(n, seed, file(n), folder / f"{n}-{seed}") for seed in seeds for n in planned]


def check_folder(folder: pathlib.Path, table: Table, budget: float) -> None:
    """Refuses a folder with runs of another table or budget: they are never put in one.

    Raises:
      ConfigError: it holds some.
    """
    for facts in _all_facts(folder):
        if (facts["table"], facts["budget"]) != (table.name, budget):
            raise ConfigError(
                f"--workdir={folder}: found runs of --table={facts['table']} --budget="
                f"{facts['budget']:g}, expected {table.name} and {budget:g}; use a new folder"
            )


def recipe(run: Run) -> str:
    """The fingerprint of the experiment's config as it is today.

    Raises:
      ConfigError: the config cannot be loaded.
    """
    return tables.recipe(tables.load(run.file))


def finished(run: Run, budget: float) -> bool:
    """Whether the run is there, whole, and of today's config and this budget."""
    facts, summary = _facts(run.workdir), _summary(run.workdir)
    if not facts or summary.get("status") != "finished" or facts["budget"] != budget:
        return False
    return facts["recipe"] == recipe(run) and _is_own(run.workdir, facts)


def recorded(run: Run, budget: float, record: Mapping[str, Any]) -> bool:
    """Whether the record holds the run, of today's config and this budget."""
    rows = {row["experiment"]: row for row in record.get("rows", ())}
    row = rows.get(run.experiment)
    if row is None or record["budget"] != budget or run.seed not in row["seeds"]:
        return False
    return bool(row["recipe"] == recipe(run))


def execute(
    runs: Sequence[Run],
    table: Table,
    budget: float,
    machine: str = "",
    console: Console | None = None,
    record: Mapping[str, Any] = MappingProxyType({}),
) -> dict[Run, str]:
    """Makes the runs that are neither finished nor on record; which failed and why, in one line."""
    console = console or Console(stderr=True, soft_wrap=True)
    failures: dict[Run, str] = {}
    spent: list[float] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(runs), left="")
        for done, run in enumerate(runs):
            name = f"{run.experiment} seed {run.seed}"
            bar.update(task, description=name, completed=done)
            began = time.perf_counter()
            failed, word = "", ""
            try:
                if finished(run, budget):
                    word = f"finished before, {_shown(run)}"
                elif recorded(run, budget, record):
                    word = "on record"
                else:
                    failed = _start(run, table, budget, machine)
                    spent.append(time.perf_counter() - began)
            except ConfigError as error:
                failed = f"error: {error}"
            if failed:
                failures[run] = failed
            word = failed or word or f"done, {_shown(run)}"
            left = _left(spent, len(runs) - done - 1)
            line = f"[{done + 1}/{len(runs)}] {name}: {word} | {left}"
            bar.console.print(line, markup=False, highlight=False)
            bar.update(task, completed=done + 1, left=left)
    return failures


def _left(spent: Sequence[float], runs: int) -> str:
    """Time left, if the runs to come take as long as those that were made."""
    if not runs:
        return "left 0 s"
    if not spent:
        return "left ?"
    return f"left {human.duration(sum(spent) / len(spent) * runs)}"


def _start(run: Run, table: Table, budget: float, machine: str) -> str:
    """Makes one run in a process of its own; why it failed, or nothing."""
    words = [sys.executable, "-m", "experiments.equal_compute.one", f"--config={run.file}"]
    words += [f"--workdir={run.workdir}", f"--seed={run.seed}"]
    words += [f"--table={table.name}", f"--budget={budget:.17g}", f"--machine={machine}"]
    run.log.parent.mkdir(parents=True, exist_ok=True)
    with run.log.open("w") as log, _signals_stop():
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
        try:
            code = process.wait()
        finally:
            if process.poll() is None:  # this command is being stopped: the run saves, and ends
                process.terminate()
                process.wait()
    if code < 0:
        return f"killed by {signal.Signals(-code).name}; its log is {run.log}"
    if code:
        return _reason(run.log)
    status = _summary(run.workdir).get("status", "without a summary")
    return "" if status == "finished" else f"{status}; start the command again to go on"


def _reason(log: pathlib.Path) -> str:
    """The one line in which a run says why it ended, else the last that it printed."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(("error: ", "stopped: "))]
    return said[-1] if said else f"{lines[-1] if lines else 'no word'}; its log is {log}"


@contextlib.contextmanager
def _signals_stop() -> Iterator[None]:
    """SIGTERM unwinds this process, so that the one it waits for is told to stop, too."""

    def stop(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    old = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _shown(run: Run) -> str:
    summary = _summary(run.workdir)
    knn, linear, rank = (summary["evals"][m]["trained"] for m in METRICS.values())
    seconds = human.duration(summary["seconds"])
    return f"kNN {100 * knn:.1f}, linear {100 * linear:.1f}, RankMe {rank:.1f}, {seconds}"


# ------------------------------------------------------------------ collecting


def collect(folder: pathlib.Path) -> dict[str, Any]:
    """What the runs in `folder` give: one row per experiment, its seeds together.

    A run whose loss became not finite is a row's `diverged`; runs under way are left out.

    Raises:
      ConfigError: no run is finished, or the runs are of several budgets.
    """
    rows: dict[str, dict[str, Any]] = {}
    spent: set[tuple[str, float]] = set()
    for facts in _all_facts(folder):
        workdir = folder / f"{facts['experiment']}-{facts['seed']}"
        summary = _summary(workdir)
        if summary.get("status") not in ("finished", "failed") or not _is_own(workdir, facts):
            continue
        spent.add((facts["table"], facts["budget"]))
        row = rows.setdefault(
            facts["experiment"],
            {name: facts[name] for name in FIELDS}
            | {"seeds": [], "seconds": [], "machines": [], "diverged": {}}
            | {"evals": {m: {kind: [] for kind in KINDS} for m in METRICS}, "pretext": []},
        )
        if row["recipe"] != facts["recipe"]:
            raise ConfigError(
                f"--workdir={folder}: found {facts['experiment']} with several configs, expected "
                "one; remove the folders of the older"
            )
        if summary["status"] == "failed":
            row["diverged"][str(facts["seed"])] = summary.get("reason", "")
            continue
        row["seeds"].append(facts["seed"])
        row["seconds"].append(round(summary["seconds"], 1))
        row["machines"] = sorted({*row["machines"], facts["machine"]})
        for metric, name in METRICS.items():
            for kind in KINDS:
                row["evals"][metric][kind].append(round(float(summary["evals"][name][kind]), 5))
        row["pretext"].append(_pretext(summary["evals"]))
    if not rows:
        raise ConfigError(f"--workdir={folder}: no finished run; expected those of a comparison")
    if len(spent) > 1:
        found = ", ".join(f"{name} {budget:g}" for name, budget in sorted(spent))
        raise ConfigError(f"--workdir={folder}: found runs of budgets {found}; expected one")
    name, budget = spent.pop()
    ordered = [rows[experiment] for experiment in sorted(rows)]
    return {"preset": PRESET, "table": name, "budget": budget, "rows": ordered}


def _pretext(evals: Mapping[str, Mapping[str, Any]]) -> float | None:
    """The largest error of what is predicted, over that of the best constant; None without any.

    One that hides nothing has nothing to predict: both of its errors are 0.
    """
    errors = [e for name, e in evals.items() if name.startswith("pretext/") and e["constant"]]
    ratios = [float(e["trained"]) / float(e["constant"]) for e in errors]
    return round(max(ratios), 4) if ratios else None


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the rows of both; seeds of one config come together, else `new` stands.

    Raises:
      ConfigError: the two are of different budgets.
    """
    if not old:
        return dict(new)
    if old["budget"] != new["budget"]:
        raise ConfigError(
            f"the record has --budget={old['budget']:g}, the new runs {new['budget']:g}; remove "
            f"experiments/{new['table']}.json to start another"
        )
    rows = {row["experiment"]: row for row in old["rows"]}
    for row in new["rows"]:
        before = rows.get(row["experiment"], {"recipe": ""})
        together = before["recipe"] == row["recipe"]
        rows[row["experiment"]] = _joined(before, row) if together else row
    return {**new, "rows": [rows[name] for name in sorted(rows)]}


def _joined(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """One experiment's row from two; where both have a seed, the new one."""
    kept = [i for i, seed in enumerate(old["seeds"]) if seed not in new["seeds"]]
    seeds = [old["seeds"][i] for i in kept] + new["seeds"]
    order = sorted(range(len(seeds)), key=seeds.__getitem__)

    def join(a: Sequence[Any], b: Sequence[Any]) -> list[Any]:
        both = [*(a[i] for i in kept), *b]
        return [both[i] for i in order]

    evals = {
        m: {kind: join(old["evals"][m][kind], new["evals"][m][kind]) for kind in KINDS}
        for m in METRICS
    }
    ran = {str(seed) for seed in seeds}
    diverged = {k: v for k, v in (old["diverged"] | new["diverged"]).items() if k not in ran}
    return {
        **new,
        "seeds": sorted(seeds),
        "seconds": join(old["seconds"], new["seconds"]),
        "machines": sorted({*old["machines"], *new["machines"]}),
        "diverged": diverged,
        "evals": evals,
        "pretext": join(old["pretext"], new["pretext"]),
    }


def _all_facts(folder: pathlib.Path) -> list[dict[str, Any]]:
    found = [read_json(path) for path in sorted(folder.glob("*-*.json"))]
    return sorted(found, key=lambda facts: (facts["experiment"], facts["seed"]))


def _facts(workdir: pathlib.Path) -> dict[str, Any]:
    path = facts_path(workdir)
    return read_json(path) if path.exists() else {}


def _summary(workdir: pathlib.Path) -> dict[str, Any]:
    """That of the last stage, over the time of all; of one that is not finished, its own."""
    found: list[dict[str, Any]] = []
    for part in _facts(workdir).get("stages", ()):
        path = workdir / part / "summary.json"
        found.append(read_json(path) if path.exists() else {})
        if found[-1].get("status") != "finished":
            return found[-1]
    return {**found[-1], "seconds": sum(one["seconds"] for one in found)} if found else {}


def _is_own(workdir: pathlib.Path, facts: dict[str, Any]) -> bool:
    """Whether the workdir holds the run that its facts speak of, and no older one."""
    return not any(
        configs.differences(read_json(workdir / part / "config.json"), config)
        for part, config in facts["stages"].items()
    )
