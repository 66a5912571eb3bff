"""A config's stages, one after another: any method, any number of devices, killed and resumed."""

import contextlib
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from jaxssl import config as configs
from jaxssl import runtime, stages
from jaxssl.checkpoint import CheckpointNotWritten, Checkpoints
from jaxssl.errors import ConfigError, Diverged
from jaxssl.evaluator import Evaluator
from jaxssl.loop import Loop, Outcome
from jaxssl.program import Program
from jaxssl.report.writers import read_json, write_json
from jaxssl.stages import Stage
from jaxssl.stopping import stop_requests
from jaxssl.workdir import claimed


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
                loop = Loop(stage, artifacts, program, evaluator, checkpoints, stop)
                return loop.run(last)
        except CheckpointNotWritten as error:
            raise Diverged(str(error)) from error


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
