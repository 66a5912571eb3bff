"""A config's stages, one after another: any method, any number of devices, killed and resumed."""

import contextlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError, Diverged
from jaxssl.devices import runtime
from jaxssl.program import Program
from jaxssl.report.writers import read_json, write_json
from jaxssl.run import rehearsal, stages, table_stages
from jaxssl.run.checkpoint import CheckpointNotWritten, Checkpoints
from jaxssl.run.evaluator import Evaluator
from jaxssl.run.loop import Loop, Outcome
from jaxssl.run.stages import Stage
from jaxssl.run.stopping import stop_requests
from jaxssl.run.workdir import claimed
from jaxssl.state import State
from jaxssl.tables import Table


def run(
    config: Any, workdir: str | pathlib.Path, programs: dict[str, Program] | None = None
) -> Mapping[str, Any]:
    """Runs all stages of a config, or what is left of them, and returns the last summary.

    Args:
      config: from `jaxssl.config.load`.
      workdir: of the run.
      programs: of the stages by name, from a run whose config differs in `train.seed` alone: their
        steps are not compiled again. Those that are missing are built and added.

    Raises:
      ConfigError: the config, the data or the workdir does not fit.
      Diverged: the loss is not finite, or (`Alarmed`) an alarm is to stop the run.
    """
    workdir = pathlib.Path(workdir).resolve()
    plan = stages.resolve(config, workdir)
    for stage in plan:
        if not stage.make:  # a table that is another is made again
            _refuse_other_run(stage)
    stages.refuse_other_start(plan, workdir)
    artifacts: dict[str, Any] = stages.imported(config)
    if len(plan) > 1 and not programs:
        rehearsal.rehearsed(plan, artifacts)
    outcome: Outcome | None = None
    states: dict[str, State] = {}
    last = [stage for stage in plan if not stage.make][-1]
    for stage in plan:
        if stage.make:
            artifacts[stage.name] = _run_table(stage, plan, artifacts, states)
            continue
        program = None
        if programs is not None:
            program = _reused(stage, artifacts, programs)
        outcome = run_stage(stage, artifacts, last=stage is last, program=program)
        if config.stages and jax.process_index() == 0:
            stages.write_index(plan, workdir)
        if outcome.summary["status"] != "finished":
            break
        artifacts[stage.name] = stages.artifact(outcome.state)
        states[stage.name] = outcome.state
    assert outcome is not None
    return outcome.summary


def _reused(stage: Stage, artifacts: Mapping[str, Any], programs: dict[str, Program]) -> Program:
    """The stage's program: that of another seed with this one's, or a new one, which is kept.

    What reads tables is always new: they are constants of what is compiled.
    """
    if any(isinstance(left, Table) for left in artifacts.values()):
        return stages.built(stage, artifacts)
    if stage.name not in programs:
        programs[stage.name] = stages.built(stage, artifacts)
        return programs[stage.name]
    return programs[stage.name].with_seed(stage.config.train.seed, artifacts)


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
        table_stages.refuse_other_tables(stage, artifacts)
        _leave_config(stage)
        try:
            with contextlib.closing(Checkpoints(folder, keep)) as checkpoints:
                loop = Loop(stage, artifacts, program, evaluator, checkpoints, stop)
                return loop.run(last)
        except CheckpointNotWritten as error:
            raise Diverged(str(error)) from error


def _run_table(
    stage: Stage,
    plan: Sequence[Stage],
    artifacts: Mapping[str, Any],
    states: Mapping[str, State],
) -> Table:
    """The table of a stage, made or kept; what is left half made by a kill is made again."""
    with claimed(stage.folder, make=True), runtime.compilation_cache(stage.folder):
        table = table_stages.table(stage, plan, artifacts, states)
        _leave_config(stage)
    if jax.process_index() == 0:
        stages.write_index(plan, stage.folder.parent)
    return table


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
