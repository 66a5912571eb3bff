"""The loop of one stage: its steps, what is due after each, and what is done when one fails."""

import contextlib
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxssl.config import load as configs
from jaxssl.config.errors import Alarmed, ConfigError, Diverged
from jaxssl.config.naming import content_hash
from jaxssl.evals.features import to_host
from jaxssl.program import Program
from jaxssl.report import report, startup
from jaxssl.report.progress import Progress, screen
from jaxssl.report.writers import MetricsWriter, read_json, read_metrics, write_summary
from jaxssl.run import rewinds, stages
from jaxssl.run.checkpoint import CheckpointNotWritten, Checkpoints
from jaxssl.run.clock import Clock
from jaxssl.run.evaluator import Evaluator, Results
from jaxssl.run.rewinds import Rewind
from jaxssl.run.stages import Stage
from jaxssl.run.stopping import StopRequest
from jaxssl.state import State
from jaxssl.watch import alarms, nonfinite
from jaxssl.watch.alarms.judge import Alarm, Judge
from jaxssl.watch.alarms.readings import PREFIX, Reader


class Outcome(NamedTuple):
    """How a stage ended: its last state, and what `summary.json` holds."""

    state: State
    summary: Mapping[str, Any]


class Loop:
    """One stage on its way: its state, its files, and what was seen of it so far.

    Its first state is, in this order:
      1. a checkpoint in this workdir: on from the newest, whatever else the config says;
      2. `init_from` of the stage: a new state with the named parts of an earlier stage;
      3. a new state.
    Where the run has gone back to that step, the random numbers are those of another attempt.
    """

    def __init__(
        self,
        stage: Stage,
        artifacts: Mapping[str, Any],
        program: Program,
        evaluator: Evaluator,
        checkpoints: Checkpoints,
        stop: StopRequest,
    ):
        self._stage, self._config, self._workdir = stage, stage.config, stage.folder
        self._artifacts, self._program, self._evaluator = artifacts, program, evaluator
        self._checkpoints, self._stop = checkpoints, stop
        self._total = 0 if stage.evaluates_only else program.info.steps
        self._batch = program.info.global_batch
        self._main_process = jax.process_index() == 0

        self._gone_back = rewinds.before(self._workdir)
        state, self._saved = self._newest()
        self._start = self._now = int(state.step)
        attempt = rewinds.attempt(self._gone_back, self._start)
        self._state = rewinds.other_numbers(state, attempt)
        seconds_before, self._rate_before = _speed_before(self._workdir)
        self._skipped = _skipped_before(self._workdir, self._start)

        self._judge = Judge(self._config.alarms, self._total)
        self._judge.catch_up(self._workdir, self._saved)  # on every process, from the same rows
        self._reader = Reader(program, evaluator.encoder, self._config.alarms.samples)
        self._reading_every = alarms.interval(self._config.alarms, self._total)
        self._clock = Clock(seconds_before)
        self._results: Results = {}
        self._status = "running"
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None

    def run(self, last: bool) -> Outcome:
        """To the end of the stage, or until it is told to stop.

        Args:
          last: whether to write the report.

        Raises:
          ConfigError, Diverged, CheckpointNotWritten: what `summary.json` then names.
        """
        self._announce()
        with (
            Progress(self._total, self._start, enabled=self._main_process) as self._progress,
            MetricsWriter(
                self._workdir, resume_step=self._saved, enabled=self._main_process
            ) as self._writer,
        ):
            self._read_start()
            try:
                ended = self._train()
            except (Diverged, ConfigError, CheckpointNotWritten) as error:
                self._status = "failed"
                self._summarise(self._now, reason=str(error))
                raise
            if not ended:
                self._status = "stopped"
                self._progress.message(f"stopped at step {self._now}; the same command goes on")
                return Outcome(self._state, self._summarise(self._now))
            return self._finish(last)

    # ------------------------------------------------------------------ before the first step

    def _announce(self) -> None:
        """Compiles the step, and shows the start screen."""
        if self._start < self._total:
            began = time.perf_counter()
            self._step = self._program.step
            took = time.perf_counter() - began
            name = self._stage.name
            sections = startup.sections(self._program, self._state, name, self._start, took)
            screen(sections, title=f"jaxssl: {self._workdir}", enabled=self._main_process)
        elif self._main_process:
            print(f"{self._workdir}: finished at step {self._start}; evaluating only", flush=True)

    def _read_start(self) -> None:
        """The readings that later ones are judged by: those of the random start."""
        known = self._judge.has_baseline or self._start >= self._total
        if not self._reading_every or known:
            return
        with self._clock.paused():  # even where the run began from another
            fresh = self._saved is None and not self._stage.init_from
            baseline = self._evaluator.random_init(self._state if fresh else None)
        self._read(0, baseline)

    def _newest(self) -> tuple[State, int | None]:
        """The state to go on from, and the step of its checkpoint where it has one."""
        program, strict = self._program, self._config.checkpoint.strict
        found = self._checkpoints.recover(program.shapes, program.shardings, strict=strict)
        for note in found.notes if found and self._main_process else ():
            print(f"checkpoint: {note}", file=sys.stderr, flush=True)
        if found is None:
            return stages.started(program.init(), self._stage, self._artifacts), None
        return found.state, found.step

    # ------------------------------------------------------------------ the steps

    def _train(self) -> bool:
        """All steps that are left; whether the last was reached."""
        while self._now < self._total:
            batches = self._program.batches(self._now)
            try:
                for now in range(self._now + 1, self._total + 1):
                    self._now = now
                    self._state, metrics = self._step(self._state, next(batches))
                    self._settle()  # the step before, while the device works on this one
                    self._pending = now, metrics
                    if self._stops_after(now):
                        return False
            except Rewind as rewind:
                self._go_back(rewind)
        if self._start < self._total or self._saved is None:
            self._save(self._total, wait=True)  # what only evaluates can be read back, too
        return True

    def _stops_after(self, now: int) -> bool:
        """Does what is due after a step; whether the run is to stop there."""
        ended, config = now == self._total, self._config
        reading = _due(now, self._reading_every) and not ended
        evaluating = _due(now, config.evals.every_steps) and not ended
        saving = _due(now, config.checkpoint.every_steps) and not ended
        stopping = self._stop.reached(now) and not ended
        if reading or evaluating or saving or stopping or ended:
            self._settle()  # nothing that is not finite is ever saved
        if reading:
            self._read(now, self._state)
        if evaluating:
            self._evaluate(now)
        if saving or stopping:
            self._save(now, wait=stopping)
        return stopping

    def _settle(self) -> None:
        """Reads the metrics of the last step that was dispatched, and checks them."""
        if self._pending is None:
            return
        (done, metrics), self._pending = self._pending, None
        values = {name: np.asarray(value) for name, value in metrics.items()}
        self._clock.step()
        if bad := nonfinite.found(values):
            self._refuse(done, bad)
        elif done % self._config.report.every_steps == 0 or done in (self._start + 1, self._total):
            rate = self._clock.window_rate(self._batch)
            named = {f"train/{name}": value for name, value in values.items()}
            speed = {} if rate is None else {"perf/examples_per_second": rate}
            self._writer.write(done, {**named, **speed})
            scalars = {name: float(value) for name, value in named.items()}
            # Parts of a number ("gradient_norm/encoder") are for the files.
            shown = {name: x for name, x in scalars.items() if name.count("/") == 1}
            self._progress.update(done, shown, examples_per_second=rate)
            self._heed({"step": done, **scalars})

    # ------------------------------------------------------------------ what is due

    def _read(self, now: int, state: State) -> None:
        with self._clock.paused():
            found = self._reader(state)
            self._writer.write(now, found)
        self._heed({"step": now, **found})

    def _evaluate(self, now: int) -> None:
        with self._clock.paused():
            self._results = self._evaluator(self._state)
            shown = {f"eval/{name}": values["trained"] for name, values in self._results.items()}
            if shown:
                self._writer.write(now, shown)
                self._progress.evals(now, shown)

    def _save(self, now: int, wait: bool = False) -> None:
        with self._clock.paused():
            try:
                self._checkpoints.save(self._state, wait=wait)
            except CheckpointNotWritten as error:
                if self._config.checkpoint.on_failure == "stop" or now == self._total:
                    raise
                self._progress.message(f"checkpoint: {error}")
            self._summarise(now)

    def _summarise(self, now: int, **more: Any) -> Mapping[str, Any]:
        facts: dict[str, Any] = {
            "status": self._status,
            "step": now,
            "seconds": self._clock.total(),
            "evals": self._results,
            "examples_per_second": self._clock.rate(self._batch) or self._rate_before,
            "alarms": [alarm.record() for alarm in self._judge.alarms],
            "rewinds": [entry._asdict() for entry in self._gone_back],
            "skipped": self._skipped,
            "bad_records": self._program.bad_records,
            "protocols": self._evaluator.protocols(),
            **more,
        }
        return write_summary(self._workdir, **facts) if self._main_process else facts

    # ------------------------------------------------------------------ when something is wrong

    def _heed(self, row: Mapping[str, Any]) -> None:
        """What is done about alarms: nothing but a line, a stop, or going back."""
        for alarm in self._judge.add(row):
            self._progress.message(f"alarm: {alarm.line()}")
            if self._config.alarms.action == "stop":
                raise Alarmed(alarm.line())
            if self._config.alarms.action == "rewind":
                healthy = _last_healthy(alarm, self._reading_every)
                raise Rewind("alarms", healthy, alarm.line())

    def _refuse(self, done: int, bad: list[str]) -> None:
        """What is done about a step whose numbers are not finite."""
        causes = nonfinite.sources(self._state, next(self._program.batches(done - 1)))
        line = f"step {done}: {', '.join([*causes, *bad])}"
        action, limit = self._config.nonfinite.action, self._config.nonfinite.limit
        if action == "rewind":
            raise Rewind("nonfinite", done - 1, line)
        if action == "skip" and len(self._skipped) < limit:
            self._skipped.append(done)
            self._progress.message(f"skipped: {line}")
            return
        beyond = f"; {limit} steps were skipped before" if action == "skip" else ""
        raise Diverged(f"{line}{beyond}; {_last_good(self._checkpoints)}")

    def _go_back(self, rewind: Rewind) -> None:
        """To the state to go on from, as if nothing had been done since."""
        limit = self._config[rewind.cause].limit
        if sum(entry.cause == rewind.cause for entry in self._gone_back) >= limit:
            line = f"{rewind.reason}; went back {limit} times before"
            raise Diverged(f"{line}; {_last_good(self._checkpoints)}")
        self._checkpoints.discard_after(rewind.newest)
        for leaf in jax.tree.leaves(self._state):
            leaf.delete()  # there may be no room for two
        older, _ = self._newest()
        to = int(older.step)
        self._gone_back.append(rewinds.Entry(rewind.cause, self._now, to, rewind.reason))
        self._state = rewinds.other_numbers(older, rewinds.attempt(self._gone_back, to))
        self._now, self._pending = to, None
        self._skipped = [step for step in self._skipped if step <= to]
        self._progress.message(f"back to step {to}: {rewind.reason}")
        self._writer.rewind(to)
        self._judge = Judge(self._config.alarms, self._total)
        self._judge.catch_up(self._workdir, to)
        self._summarise(to)

    # ------------------------------------------------------------------ after the last step

    def _finish(self, last: bool) -> Outcome:
        """The last evaluation, and where it is asked for the report."""
        self._evaluate(self._total)
        self._status = "finished"
        with self._clock.paused():
            artifact = content_hash(jax.tree.map(to_host, self._state.params))
        summary = self._summarise(self._total, artifact=artifact)
        if last:
            samples = self._evaluator.samples(self._state, self._config.report.samples)
            pictures = self._evaluator.pictures(self._state)
            if self._main_process:
                report.write(
                    self._workdir,
                    config=configs.to_dict(self._config),
                    metrics=read_metrics(self._workdir / "metrics.jsonl"),
                    summary=summary,
                    samples=samples,
                    pictures=pictures,
                )
        return Outcome(self._state, summary)


def _last_good(checkpoints: Checkpoints) -> str:
    with contextlib.suppress(CheckpointNotWritten):  # it is not what the line is about
        checkpoints.wait()
    last = checkpoints.latest()
    return "no checkpoint was written" if last is None else f"last good checkpoint: step {last}"


def _last_healthy(alarm: Alarm, reading_every: int) -> int:
    """The last step at which what the alarm is about was seen to be well."""
    return alarm.since - (reading_every if alarm.metric.startswith(PREFIX) else 1)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _speed_before(workdir: pathlib.Path) -> tuple[float, float | None]:
    """Seconds and examples a second of this run before it was interrupted."""
    path = workdir / "summary.json"
    if not path.exists():
        return 0.0, None
    summary = read_json(path)
    return float(summary["seconds"]), summary["examples_per_second"]


def _skipped_before(workdir: pathlib.Path, step: int) -> list[int]:
    """The steps up to `step` that this run skipped before it was interrupted."""
    path = workdir / "summary.json"
    skipped = read_json(path).get("skipped", ()) if path.exists() else ()
    return [s for s in skipped if s <= step]
