"""Runs the cells of a proof one after another, and puts each on record once it is finished."""

import contextlib
import importlib.metadata
import pathlib
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.prove import arms, record
from experiments.prove.arms import METHOD, Experiment
from experiments.prove.record import Cell
from jaxssl.config.errors import ConfigError, Diverged, near
from jaxssl.devices import host, runtime
from jaxssl.program import Program
from jaxssl.report import human
from jaxssl.report.markdown import count, spread
from jaxssl.report.writers import read_json
from jaxssl.run import stages, train

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn")


class Job(NamedTuple):
    """One arm of an experiment at one seed, to be run or on record."""

    experiment: Experiment
    arm: str
    seed: int

    @property
    def text(self) -> str:
        """For a line of progress."""
        return f"{self.experiment.name} {self.arm} seed {self.seed}"


class Stopped(Exception):
    """A run was asked to stop and has saved a checkpoint."""


class Proofs:
    """The proofs of several experiments, one cell after another.

    Args:
      root: of the checkout.
      workdir: holds a folder for each cell.
      minutes: no cell starts once they are over; None is no limit.
      say: is told of each line of progress.
    """

    def __init__(
        self,
        root: pathlib.Path,
        workdir: pathlib.Path,
        minutes: float | None,
        say: Callable[[str], None] = print,
    ):
        self._path = root / "experiments" / record.PLACE
        self._workdir, self._say = workdir, say
        self._limit = None if minutes is None else 60 * minutes
        self._began = time.perf_counter()
        versions = {name: importlib.metadata.version(name) for name in PACKAGES}
        versions["python"] = platform.python_version()
        facts = dict(commit=commit(root), versions=versions, machine=host.machine())
        self._facts: dict[str, Any] = facts
        self._spent: list[float] = []
        self._programs: dict[str, dict[str, Program]] = {}

    def run(self, jobs: Sequence[Job]) -> int:
        """Runs what is not on record; the exit code: 0 done or out of time, 1 a cell failed.

        Raises:
          ConfigError: an arm's config does not fit its data; other cells are not tried.
        """
        code, of = 0, _fingerprints(jobs)
        rows = record.read(self._path)
        for done, job in enumerate(jobs):
            if done and jobs[done - 1].experiment.spec != job.experiment.spec:
                self._end(jobs[done - 1].experiment, rows)
            fingerprint = of[job.experiment.spec][job.arm]
            found = record.kept(rows, job.experiment, job.arm, job.seed, fingerprint)
            if isinstance(found, Cell):
                self._line(jobs, done, f"on record, {_value(job, found)}")
                continue
            if self._over():
                self._out_of_time(jobs[done:], rows, of)
                self._end(job.experiment, rows)
                return code
            if isinstance(found, str):
                self._line(jobs, done, "its config has changed since it was recorded: run again")
            try:
                cell = self._cell(job, fingerprint)
            except Stopped:
                self._line(jobs, done, "stopped; the same command goes on")
                return code
            rows = self._put_on_record(job, cell, of[job.experiment.spec])
            code = code or int(cell.value is None)
            took = human.duration(cell.seconds)
            self._line(jobs, done, f"{_value(job, cell)}, {took} of training")
        if jobs:
            self._end(jobs[-1].experiment, rows)
        return code

    def _put_on_record(self, job: Job, cell: Cell, marks: Mapping[str, str]) -> list[record.Row]:
        e = job.experiment
        # What makes this experiment's cells again, whatever else the same call made.
        command = f"python -m experiments.prove {e.spec}"
        facts = {**self._facts, "command": command, "better": arms.better(e.metric)}
        args = (e, job.arm, job.seed, cell, facts, marks)
        return record.update(self._path, lambda rows: record.added(rows, *args))

    def _cell(self, job: Job, fingerprint: str) -> Cell:
        """Runs one cell; what it prints is in a log beside its folder.

        Raises:
          Stopped: it was asked to stop.
        """
        began = time.perf_counter()
        config = arms.config(job.experiment, job.arm, job.seed)
        folder = self._workdir / f"{job.experiment.name}-{job.experiment.preset}"
        folder.mkdir(parents=True, exist_ok=True)
        # Another config has another folder: the runs of both may be gone on with.
        workdir = folder / f"{job.arm}-{job.seed}-{fingerprint}"
        programs = self._programs.setdefault(fingerprint, {})
        with (
            workdir.with_name(f"{workdir.name}.log").open("a") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
            # What the step does not hold, such as evaluations, is compiled once for all seeds, too.
            runtime.compilation_cache(folder),
        ):
            try:
                summary = train.run(config, workdir, programs)
            except Diverged as error:
                return Cell(None, reason=str(error), seconds=time.perf_counter() - began)
        if summary["status"] != "finished":
            raise Stopped
        self._spent.append(time.perf_counter() - began)
        return _finished(job, config, workdir, summary)

    def _end(self, experiment: Experiment, rows: Sequence[record.Row]) -> None:
        """After the last cell of an experiment: its summary, and the memory of its programs."""
        self._programs.clear()
        for line in summary(experiment, rows):
            self._say(line)

    def _over(self) -> bool:
        return self._limit is not None and time.perf_counter() - self._began >= self._limit

    def _out_of_time(
        self,
        jobs: Sequence[Job],
        rows: Sequence[record.Row],
        of: Mapping[str, Mapping[str, str]],
    ) -> None:
        def on_record(job: Job) -> bool:
            mark = of[job.experiment.spec][job.arm]
            found = record.kept(rows, job.experiment, job.arm, job.seed, mark)
            return isinstance(found, Cell)

        left = [job for job in jobs if not on_record(job)]
        names = ", ".join(job.text for job in left[:3]) + (", ..." if len(left) > 3 else "")
        minutes = f"--minutes={(self._limit or 0.0) / 60:g} are over"
        self._say(f"{minutes}: {count(len(left), 'cell')} left: {names}; the same command goes on")

    def _line(self, jobs: Sequence[Job], done: int, words: str) -> None:
        left = len(jobs) - done - 1
        time_left = ""
        if left and self._spent:
            most = human.duration(sum(self._spent) / len(self._spent) * left)
            time_left = f" | left at most {most}"
        self._say(f"[{done + 1}/{len(jobs)}] {jobs[done].text}: {words}{time_left}")


def _fingerprints(jobs: Sequence[Job]) -> dict[str, dict[str, str]]:
    """Spec of an experiment -> arm -> the fingerprint of its config, also of arms that are kept."""
    found: dict[str, dict[str, str]] = {}
    for e in {job.experiment.spec: job.experiment for job in jobs}.values():
        configs = {arm: arms.config(e, arm) for arm in (METHOD, *e.controls)}
        found[e.spec] = {arm: arms.fingerprint(c, e.metric) for arm, c in configs.items()}
    return found


def summary(experiment: Experiment, rows: Sequence[record.Row]) -> list[str]:
    """A line for each control: the verdict, and what it rests on."""
    lines = []
    for control in experiment.controls:
        row = record.row_of(rows, experiment, control)
        name = f"{experiment.spec} against {control}"
        shared = row["method"].keys() & row["control_values"] if row else ()
        if row is None or not row["verdict"]:
            wanted = f"{len(shared)} of {count(experiment.seeds, 'seed')}"
            lines.append(f"{name}: no verdict yet, {wanted} on both sides")
            continue
        both = [shown(row[side], row["better"]) for side in record.VALUES]
        rest = [
            f"{n.replace('_', ' ')} {shown(row[n], row['better'])}"
            for n in record.CONTROLS
            if row[n]
        ]
        seeds = f"({count(len(shared), 'seed')})"
        line = f"{name}: {row['verdict']}: {row['metric']} {both[0]} against {both[1]} {seeds}"
        lines.append("; ".join((line, *rest)))
    return lines


def shown(values: Mapping[str, float], better: str) -> str:
    """Mean and deviation over seeds: of an accuracy in percent, of an error as it is.

    >>> shown({"0": 0.5, "1": 0.52}, "higher"), shown({}, "higher")
    ('51.0 ± 1.4', 'diverged')
    """
    if not values:
        return "diverged"
    if better == "higher" and all(0 <= x <= 1 for x in values.values()):
        return spread(list(values.values()))
    return spread(list(values.values()), scale=1, digits=4)


def _value(job: Job, cell: Cell) -> str:
    better = arms.better(job.experiment.metric)
    if cell.value is None:
        return f"diverged: {cell.reason}"
    words = [f"{job.experiment.metric} {shown({'': cell.value}, better)}"]
    for name in record.CONTROLS:
        if (value := getattr(cell, name)) is not None:
            words.append(f"{name.replace('_', ' ')} {shown({'': value}, better)}")
    return ", ".join(words)


def _finished(job: Job, config: Any, workdir: pathlib.Path, found: Mapping[str, Any]) -> Cell:
    """What a finished run left, over all of its stages.

    Raises:
      ConfigError: its evaluations do not hold the metric.
    """
    metric, evals = job.experiment.metric, found["evals"]
    if metric not in evals:
        raise ConfigError(f"{job.experiment.name}: PROOF on {metric!r}{near(metric, evals)}")
    steps, seconds = 0, 0.0
    for stage in stages.resolve(config, workdir):
        one = read_json(stage.folder / "summary.json")
        steps += 0 if stage.evaluates_only else int(one["step"])
        seconds += one["seconds"]
    entry = evals[metric]
    random_init, raw_input = (entry.get(name) for name in record.CONTROLS)
    return Cell(float(entry["trained"]), random_init, raw_input, steps, seconds)


def commit(root: pathlib.Path) -> str:
    """The checkout's commit, with "-dirty" where its code was changed since; "" outside of git."""

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", *words], cwd=root, capture_output=True, text=True, check=False
        )

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        if head.returncode:
            return ""
        code = git("diff", "--quiet", "HEAD", "--", "jaxssl", "experiments/*.py")
    except OSError:  # no git
        return ""
    return head.stdout.strip() + ("-dirty" if code.returncode else "")


def planned(
    root: pathlib.Path,
    names: Sequence[str],
    seeds: Sequence[int] | None,
    only: Sequence[str],
    controls: Sequence[str],
) -> list[Job]:
    """The cells of some experiments, seed by seed.

    Args:
      root: of the checkout.
      names: "NAME" or "NAME:PRESET" of experiments; "all" is every one.
      seeds: None is as many as each proof names.
      only: names of arms; none are all.
      controls: names of controls that the method is proved against; none are all.

    Raises:
      ConfigError: an unknown name, or an arm whose config does not build.
    """
    folder = root / "experiments"
    every = arms.names(folder)
    if list(names) == ["all"]:
        names = every
    found: list[Experiment] = []
    for spec in names:
        name, _, preset = spec.partition(":")
        one = arms.read(folder, name, preset)
        found += [one] * (one.spec not in [e.spec for e in found])
    # A name may be of one experiment alone; it must be of some.
    known = list(dict.fromkeys(name for e in found for name in e.controls))
    arms.chosen("--controls", controls, known)
    arms.chosen("--only", only, [METHOD, *known])
    jobs = []
    for e in found:
        kept = {n: e.controls[n] for n in e.controls if n in controls or not controls}
        if not kept:
            continue
        e = e._replace(controls=kept)
        run = [arm for arm in (METHOD, *kept) if arm in only or not only]
        of = range(e.seeds) if seeds is None else seeds
        jobs += [Job(e, arm, seed) for seed in of for arm in run]
        arms.better(e.metric)
    return jobs
