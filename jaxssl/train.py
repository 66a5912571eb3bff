"""The one training loop: any method, any number of devices, killed and resumed at will."""

import contextlib
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxssl import alarms, stages
from jaxssl import config as configs
from jaxssl.alarms.judge import Judge
from jaxssl.alarms.readings import Reader
from jaxssl.checkpoint import Checkpoints
from jaxssl.errors import ConfigError
from jaxssl.evals.features import to_host
from jaxssl.evaluator import Evaluator, Results
from jaxssl.naming import content_hash
from jaxssl.program import Program
from jaxssl.report import report, startup
from jaxssl.report.progress import Progress, screen
from jaxssl.report.writers import MetricsWriter, read_json, read_metrics, write_json, write_summary
from jaxssl.stages import Stage
from jaxssl.state import State


class Diverged(RuntimeError):
    """A loss that is not finite: the step, the first such term and the last good checkpoint."""


class Alarmed(Diverged):
    """An alarm of a run whose `alarms.action` is "stop": the alarm's line."""


class Outcome(NamedTuple):
    """How a stage ended: its last state, and what `summary.json` holds."""

    state: State
    summary: Mapping[str, Any]


def run(config: Any, workdir: str | pathlib.Path) -> Mapping[str, Any]:
    """Runs all stages of a config, or what is left of them, and returns the last summary.

    Raises:
      ConfigError: the config, the data or the workdir does not fit.
      Diverged: the loss is not finite, or (`Alarmed`) an alarm is to stop the run.
    """
    workdir = pathlib.Path(workdir).resolve()
    plan = stages.resolve(config, workdir)
    for stage in plan:
        _refuse_other_run(stage)
    stages.refuse_other_start(plan, workdir)
    artifacts: dict[str, Any] = stages.imported(config)
    if len(plan) > 1:
        stages.rehearsed(plan, artifacts)
    outcome: Outcome | None = None
    for stage in plan:
        outcome = run_stage(stage, artifacts, last=stage is plan[-1])
        if config.stages and jax.process_index() == 0:
            stages.write_index(plan, workdir)
        if outcome.summary["status"] != "finished":
            break
        artifacts[stage.name] = stages.artifact(outcome.state)
    assert outcome is not None
    return outcome.summary


def run_stage(
    stage: Stage,
    artifacts: Mapping[str, Any],
    last: bool = True,
    program: Program | None = None,
) -> Outcome:
    """Runs one stage to its end, or until it is told to stop.

    Args:
      stage: from `stages.resolve`.
      artifacts: what earlier stages left, by name.
      last: whether to write the report.
      program: of the stage's config, where there is one already; its step compiles only once.
    """
    program = program or stages.built(stage, artifacts)
    evaluator = Evaluator(program, stage.folder)
    _claim(stage)  # only now: a config that does not fit leaves nothing behind
    folder, keep = stage.folder / "checkpoints", stage.config.checkpoint.keep
    with _stop_requests() as stop, contextlib.closing(Checkpoints(folder, keep)) as checkpoints:
        return _train(stage, artifacts, last, program, evaluator, checkpoints, stop)


def _train(
    stage: Stage,
    artifacts: Mapping[str, Any],
    last: bool,
    program: Program,
    evaluator: Evaluator,
    checkpoints: Checkpoints,
    stop: "_StopRequest",
) -> Outcome:
    config, workdir = stage.config, stage.folder
    total = 0 if stage.evaluates_only else program.info.steps
    batch = program.info.global_batch
    main_process = jax.process_index() == 0

    # ------------------------------------------------------------------ state, or what is saved
    # In this order:
    #   1. a checkpoint in this workdir: go on from the newest, whatever else the config says;
    #   2. `init_from` of the stage: a new state with the named parts of an earlier stage;
    #   3. a new state.
    saved = checkpoints.latest()
    if saved is None:
        state = stages.started(program.init(), stage, artifacts)
    else:
        state = checkpoints.restore(program.shapes, program.shardings)
    start = int(state.step)
    seconds_before, rate_before = _speed_before(workdir)

    # ------------------------------------------------------------------ compile, start screen
    if start < total:
        began = time.perf_counter()
        step = program.step
        compiled_in = time.perf_counter() - began
        startup_sections = startup.sections(program, state, stage.name, start, compiled_in)
        screen(startup_sections, title=f"jaxssl: {workdir}", enabled=main_process)
    elif main_process:
        print(f"{workdir}: finished at step {start}; evaluating only", flush=True)

    # ------------------------------------------------------------------ the loop
    judge = Judge(config.alarms, total)
    judge.catch_up(workdir, saved)  # on every process, each from the same rows
    reader = Reader(program, evaluator.encoder, config.alarms.samples)
    reading_every = alarms.interval(config.alarms, total)
    writer = MetricsWriter(workdir, resume_step=saved, enabled=main_process)
    clock = _Clock(seconds_before)
    results: Results = {}
    status = "running"

    def summarise(now: int, **more: Any) -> Mapping[str, Any]:
        facts: dict[str, Any] = dict(status=status, step=now, seconds=clock.total(), evals=results)
        facts["examples_per_second"] = clock.rate(batch) or rate_before
        facts["alarms"] = [alarm.record() for alarm in judge.alarms]
        facts["protocols"] = evaluator.protocols()
        return write_summary(workdir, **facts, **more) if main_process else {**facts, **more}

    def evaluate(now: int) -> None:
        nonlocal results
        with clock.paused():
            results = evaluator(state)
            shown = {f"eval/{name}": values["trained"] for name, values in results.items()}
            if shown:
                writer.write(now, shown)
                progress.evals(now, shown)

    def heed(row: Mapping[str, Any]) -> None:
        for alarm in judge.add(row):
            progress.message(f"alarm: {alarm.line()}")
            if config.alarms.action == "stop":
                raise Alarmed(alarm.line())

    def read(now: int, state: State) -> None:
        with clock.paused():
            found = reader(state)
            writer.write(now, found)
        heed({"step": now, **found})

    def save(now: int, wait: bool = False) -> None:
        with clock.paused():
            checkpoints.save(state, wait=wait)
            summarise(now)

    with Progress(total, start, enabled=main_process) as progress, writer:
        batches = program.batches(start) if start < total else iter(())
        pending: tuple[int, Mapping[str, jax.Array]] | None = None

        def settle() -> None:
            """Reads the metrics of the last step that was dispatched, and checks them."""
            nonlocal pending
            if pending is None:
                return
            (done, metrics), pending = pending, None
            values = {name: np.asarray(value) for name, value in metrics.items()}
            clock.step()
            _check_finite(done, values, checkpoints)
            if done % config.report.every_steps == 0 or done in (start + 1, total):
                rate = clock.window_rate(batch)
                named = {f"train/{name}": value for name, value in values.items()}
                speed = {} if rate is None else {"perf/examples_per_second": rate}
                writer.write(done, {**named, **speed})
                scalars = {name: float(value) for name, value in named.items()}
                # Parts of a number ("gradient_norm/encoder") are for the files.
                shown = {name: x for name, x in scalars.items() if name.count("/") == 1}
                progress.update(done, shown, examples_per_second=rate)
                heed({"step": done, **scalars})

        if reading_every and not judge.has_baseline and start < total:
            with clock.paused():  # the random start, even where the run began from another
                fresh = saved is None and not stage.init_from
                baseline = evaluator.random_init(state if fresh else None)
            read(0, baseline)
            del baseline

        try:
            for now in range(start + 1, total + 1):
                state, metrics = step(state, next(batches))
                settle()  # of the step before, while the device works on this one
                pending = now, metrics
                reading = _due(now, reading_every) and now < total
                evaluating = _due(now, config.evals.every_steps) and now < total
                saving = _due(now, config.checkpoint.every_steps) and now < total
                stopping = stop.reached(now) and now < total
                if reading or evaluating or saving or stopping:
                    settle()  # nothing that is not finite is ever saved
                if reading:
                    read(now, state)
                if evaluating:
                    evaluate(now)
                if saving or stopping:
                    save(now, wait=stopping)
                if stopping:
                    status = "stopped"
                    progress.message(f"stopped at step {now}; run the same command to go on")
                    return Outcome(state, summarise(now))
            settle()
        except Diverged as error:
            status = "failed"
            summarise(now, reason=str(error))
            raise

        # -------------------------------------------------------------- the end
        if start < total or saved is None:  # a stage that only evaluates can be read back, too
            save(total, wait=True)
        evaluate(total)
        status = "finished"
        with clock.paused():
            artifact = content_hash(jax.tree.map(to_host, state.params))
        summary = summarise(total, artifact=artifact)
        samples = evaluator.samples(state, config.report.samples) if last else None
        pictures = evaluator.pictures(state) if last else {}
        if last and main_process:
            metrics_so_far = read_metrics(workdir / "metrics.jsonl")
            report.write(
                workdir,
                config=configs.to_dict(config),
                metrics=metrics_so_far,
                summary=summary,
                samples=samples,
                pictures=pictures,
            )
    return Outcome(state, summary)


def _refuse_other_run(stage: Stage) -> None:
    """Refuses a workdir that is not this config's own.

    Raises:
      ConfigError: it holds a run of another config, whose fields are named.
    """
    path = stage.folder / "config.json"
    if not path.exists():
        return
    changed = configs.differences(read_json(path), configs.to_dict(stage.config))
    if changed:
        more = f" (and {len(changed) - 3} more)" if len(changed) > 3 else ""
        raise ConfigError(
            f"--workdir={stage.folder}: holds a run of another config: "
            f"{'; '.join(changed[:3])}{more}; use a new folder"
        )


def _claim(stage: Stage) -> None:
    """Makes the workdir this config's own.

    Raises:
      ConfigError: it cannot be made or written.
    """
    if jax.process_index() == 0:
        try:
            stage.folder.mkdir(parents=True, exist_ok=True)
            write_json(stage.folder / "config.json", configs.to_dict(stage.config))
        except OSError as error:
            raise ConfigError(f"--workdir={stage.folder}: {error.strerror}") from error


def _check_finite(step: int, values: Mapping[str, np.ndarray], checkpoints: Checkpoints) -> None:
    """Stops at a loss or a gradient that is not finite, before it reaches a checkpoint.

    NaN in another metric may only say that the metric does not exist in this phase.
    """
    totals = ("loss", "gradient_norm")
    bad = [name for name in totals if name in values and not np.isfinite(values[name])]
    if not bad:
        return
    if bad[0] == "loss":  # the term that made it so, if one did
        terms = [name for name in values if not name.startswith(totals)]
        bad = [name for name in terms if not np.isfinite(values[name])] + bad
    shown = ", ".join(
        f"{name} is {float(values[name])}" for name in dict.fromkeys((bad[0], "loss"))
    )
    checkpoints.wait()
    last = checkpoints.latest()
    good = "no checkpoint was written" if last is None else f"last good checkpoint: step {last}"
    raise Diverged(f"step {step}: {shown}; {good}")


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _speed_before(workdir: pathlib.Path) -> tuple[float, float | None]:
    """Seconds and examples a second of this run before it was interrupted."""
    path = workdir / "summary.json"
    if not path.exists():
        return 0.0, None
    summary = read_json(path)
    return float(summary["seconds"]), summary["examples_per_second"]


class _Clock:
    """Training time, without evaluations and checkpoints, and examples a second."""

    def __init__(self, before: float):
        self._before = before
        self._began = self._window_began = time.perf_counter()
        self._paused = 0.0
        self._steps = self._window_steps = 0

    def step(self) -> None:
        if self._steps == 0:  # the first step also waits for the first batch
            self._began = self._window_began = time.perf_counter()
            self._paused = 0.0
        self._steps += 1
        self._window_steps += 1

    def total(self) -> float:
        return self._before + time.perf_counter() - self._began - self._paused

    def rate(self, batch: int) -> float | None:
        spent = time.perf_counter() - self._began - self._paused
        return (self._steps - 1) * batch / spent if self._steps > 1 else None

    def window_rate(self, batch: int) -> float | None:
        now = time.perf_counter()
        spent = now - self._window_began
        # The clock starts with the first step's end: no window to speak of yet.
        rate = self._window_steps * batch / spent if self._steps > 1 and spent > 0 else None
        self._window_began, self._window_steps = now, 0
        return rate

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            self._paused += spent
            self._window_began += spent


class _StopRequest:
    requested = False

    def reached(self, step: int) -> bool:
        """Whether to stop after `step`: the same answer on all processes, whichever was asked.

        With several, JAX's runtime takes the signal and agrees on a step, in the background.
        """
        if jax.process_count() > 1:
            return bool(multihost_utils.reached_preemption_sync_point(step))
        return self.requested


@contextlib.contextmanager
def _stop_requests() -> Iterator[_StopRequest]:
    """SIGTERM asks for a checkpoint after the step under way; a second one ends at once."""
    request = _StopRequest()
    mine = threading.current_thread() is threading.main_thread() and jax.process_count() == 1
    if not mine:
        yield request
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if request.requested:
            sys.exit(128 + number)
        request.requested = True

    old = signal.signal(signal.SIGTERM, ask)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, old)
