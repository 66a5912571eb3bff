"""The one training loop: any method, any number of devices, killed and resumed at will."""

import contextlib
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxssl import alarms, nonfinite, rewinds, runtime, stages
from jaxssl import config as configs
from jaxssl.alarms.judge import Alarm, Judge
from jaxssl.alarms.readings import PREFIX, Reader
from jaxssl.checkpoint import CheckpointNotWritten, Checkpoints
from jaxssl.clock import Clock
from jaxssl.errors import ConfigError
from jaxssl.evals.features import to_host
from jaxssl.evaluator import Evaluator, Results
from jaxssl.naming import content_hash
from jaxssl.program import Program
from jaxssl.report import report, startup
from jaxssl.report.progress import Progress, screen
from jaxssl.report.writers import MetricsWriter, read_json, read_metrics, write_json, write_summary
from jaxssl.rewinds import Rewind
from jaxssl.stages import Stage
from jaxssl.state import State
from jaxssl.stopping import StopRequest, stop_requests
from jaxssl.workdir import claimed


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
    folder, keep = stage.folder / "checkpoints", stage.config.checkpoint.keep
    # Only now: a config that does not fit leaves nothing behind.
    with (
        claimed(stage.folder, make=True),
        stop_requests() as stop,
        runtime.compilation_cache(stage.folder),
    ):
        _leave_config(stage)
        try:
            with contextlib.closing(Checkpoints(folder, keep)) as checkpoints:
                return _train(stage, artifacts, last, program, evaluator, checkpoints, stop)
        except CheckpointNotWritten as error:
            raise Diverged(str(error)) from error


def _train(
    stage: Stage,
    artifacts: Mapping[str, Any],
    last: bool,
    program: Program,
    evaluator: Evaluator,
    checkpoints: Checkpoints,
    stop: StopRequest,
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
    # Where the run has gone back to that step, the random numbers are those of another attempt.
    gone_back = rewinds.before(workdir)

    def newest() -> tuple[State, int | None]:
        strict = config.checkpoint.strict
        found = checkpoints.recover(program.shapes, program.shardings, strict=strict)
        for note in found.notes if found and main_process else ():
            print(f"checkpoint: {note}", file=sys.stderr, flush=True)
        if found is None:
            return stages.started(program.init(), stage, artifacts), None
        return found.state, found.step

    state, saved = newest()
    start = int(state.step)
    state = rewinds.other_numbers(state, rewinds.attempt(gone_back, start))
    seconds_before, rate_before = _speed_before(workdir)
    skipped = _skipped_before(workdir, start)

    # ------------------------------------------------------------------ compile, start screen
    if start < total:
        began = time.perf_counter()
        step = program.step
        compiled_in = time.perf_counter() - began
        startup_sections = startup.sections(program, state, stage.name, start, compiled_in)
        screen(startup_sections, title=f"jaxssl: {workdir}", enabled=main_process)
    elif main_process:
        print(f"{workdir}: finished at step {start}; evaluating only", flush=True)

    # ------------------------------------------------------------------ what the loop calls
    judge = Judge(config.alarms, total)
    judge.catch_up(workdir, saved)  # on every process, each from the same rows
    reader = Reader(program, evaluator.encoder, config.alarms.samples)
    reading_every = alarms.interval(config.alarms, total)
    writer = MetricsWriter(workdir, resume_step=saved, enabled=main_process)
    clock = Clock(seconds_before)
    results: Results = {}
    status = "running"

    def summarise(now: int, **more: Any) -> Mapping[str, Any]:
        facts: dict[str, Any] = dict(status=status, step=now, seconds=clock.total(), evals=results)
        facts["examples_per_second"] = clock.rate(batch) or rate_before
        facts["alarms"] = [alarm.record() for alarm in judge.alarms]
        facts["rewinds"] = [entry._asdict() for entry in gone_back]
        facts["skipped"] = skipped
        facts["bad_records"] = program.source.bad_records
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
            if config.alarms.action == "rewind":
                raise Rewind("alarms", _last_healthy(alarm, reading_every), alarm.line())

    def read(now: int, state: State) -> None:
        with clock.paused():
            found = reader(state)
            writer.write(now, found)
        heed({"step": now, **found})

    def save(now: int, wait: bool = False) -> None:
        with clock.paused():
            try:
                checkpoints.save(state, wait=wait)
            except CheckpointNotWritten as error:
                if config.checkpoint.on_failure == "stop" or now == total:
                    raise
                progress.message(f"checkpoint: {error}")
            summarise(now)

    def refuse(done: int, bad: list[str]) -> None:
        """What is done about a step whose numbers are not finite."""
        causes = nonfinite.sources(state, next(program.batches(done - 1)))
        line = f"step {done}: {', '.join([*causes, *bad])}"
        action, limit = config.nonfinite.action, config.nonfinite.limit
        if action == "rewind":
            raise Rewind("nonfinite", done - 1, line)
        if action == "skip" and len(skipped) < limit:
            skipped.append(done)
            progress.message(f"skipped: {line}")
            return
        beyond = f"; {limit} steps were skipped before" if action == "skip" else ""
        raise Diverged(f"{line}{beyond}; {_last_good(checkpoints)}")

    def go_back(rewind: Rewind, now: int) -> State:
        """The state to go on from, as if nothing had been done since."""
        nonlocal judge, skipped
        limit = config[rewind.cause].limit
        if sum(entry.cause == rewind.cause for entry in gone_back) >= limit:
            line = f"{rewind.reason}; went back {limit} times before"
            raise Diverged(f"{line}; {_last_good(checkpoints)}")
        checkpoints.discard_after(rewind.newest)
        for leaf in jax.tree.leaves(state):
            leaf.delete()  # there may be no room for two
        older, _ = newest()
        to = int(older.step)
        gone_back.append(rewinds.Entry(rewind.cause, now, to, rewind.reason))
        progress.message(f"back to step {to}: {rewind.reason}")
        writer.rewind(to)
        judge, skipped = Judge(config.alarms, total), [s for s in skipped if s <= to]
        judge.catch_up(workdir, to)
        summarise(to)
        return rewinds.other_numbers(older, rewinds.attempt(gone_back, to))

    with Progress(total, start, enabled=main_process) as progress, writer:
        pending: tuple[int, Mapping[str, jax.Array]] | None = None

        def settle() -> None:
            """Reads the metrics of the last step that was dispatched, and checks them."""
            nonlocal pending
            if pending is None:
                return
            (done, metrics), pending = pending, None
            values = {name: np.asarray(value) for name, value in metrics.items()}
            clock.step()
            if bad := nonfinite.found(values):
                refuse(done, bad)
            elif done % config.report.every_steps == 0 or done in (start + 1, total):
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

        # -------------------------------------------------------------- the loop
        now = first = start
        try:
            while now < total:
                batches = program.batches(first)
                try:
                    for now in range(first + 1, total + 1):
                        state, metrics = step(state, next(batches))
                        settle()  # of the step before, while the device works on this one
                        pending = now, metrics
                        ended = now == total
                        reading = _due(now, reading_every) and not ended
                        evaluating = _due(now, config.evals.every_steps) and not ended
                        saving = _due(now, config.checkpoint.every_steps) and not ended
                        stopping = stop.reached(now) and not ended
                        if reading or evaluating or saving or stopping or ended:
                            settle()  # nothing that is not finite is ever saved
                        if reading:
                            read(now, state)
                        if evaluating:
                            evaluate(now)
                        if saving or stopping:
                            save(now, wait=stopping)
                        if stopping:
                            status = "stopped"
                            progress.message(f"stopped at step {now}; the same command goes on")
                            return Outcome(state, summarise(now))
                except Rewind as rewind:
                    state, pending = go_back(rewind, now), None
                    now = first = int(state.step)
            if start < total or saved is None:  # what only evaluates can be read back, too
                save(total, wait=True)
        except (Diverged, ConfigError, CheckpointNotWritten) as error:
            status = "failed"
            summarise(now, reason=str(error))
            raise

        # -------------------------------------------------------------- the end
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


def _leave_config(stage: Stage) -> None:
    """Makes the workdir this config's own.

    Raises:
      ConfigError: it cannot be written.
    """
    if jax.process_index() == 0:
        try:
            write_json(stage.folder / "config.json", configs.to_dict(stage.config))
        except OSError as error:
            raise ConfigError(f"--workdir={stage.folder}: {error.strerror}") from error


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
