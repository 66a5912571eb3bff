"""What a run left in its workdir, read back: its config, its program and the state of a step."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxssl import tables
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError, near
from jaxssl.program import Program
from jaxssl.report.writers import read_json
from jaxssl.run import stages, table_stages
from jaxssl.run.checkpoint import Checkpoints
from jaxssl.state import State
from jaxssl.tables import making

# What a reader of a run may change: none of it makes the encoder another one.
CHANGEABLE = ("evals.", "mesh.", "data.path", "data.cache", "report.")


class Run(NamedTuple):
    """A run, or one stage of it, at one of its checkpoints.

    Attributes:
      folder: with config.json and checkpoints; of a run with stages, one of its folders.
      program: of its config.
      state: of the checkpoint.
    """

    folder: pathlib.Path
    program: Program
    state: State


def load(
    workdir: str | pathlib.Path,
    *,
    checkpoint: int | None = None,
    stage: str = "",
    overrides: Sequence[str] = (),
) -> Run:
    """A run at a checkpoint: the newest, unless `checkpoint` names its step.

    Args:
      workdir: of `jaxssl.main`.
      checkpoint: a step.
      stage: of a run with stages; "" is the last that has begun.
      overrides: `--config.key=value` of CHANGEABLE fields.

    Raises:
      ConfigError: no run, stage or checkpoint there, or another field.
    """
    for text in overrides:
        if not text.removeprefix("--config.").startswith(CHANGEABLE):
            raise ConfigError(
                f"{text}: a finished run's field; expected one of --config."
                f"{', --config.'.join(CHANGEABLE)}"
            )
    folder = folder_of(workdir, stage)
    config = configs.from_dict(read_json(folder / "config.json"), overrides)
    build = Program if stages.has_length(config) else stages.of_no_length
    program = build(config, _artifacts(folder, config))
    checkpoints = Checkpoints(folder / "checkpoints", cleanup=False)
    try:
        steps = checkpoints.steps()
        step = checkpoint if checkpoint is not None else max(steps, default=None)
        if step not in steps:
            found = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            known = near(str(step), map(str, steps)) if steps else ""
            raise ConfigError(f"{folder / 'checkpoints'}: {found}{known}")
        state = checkpoints.restore(program.shapes, program.shardings, step)
    finally:
        checkpoints.close()
    return Run(folder, program, state)


def folder_of(workdir: str | pathlib.Path, stage: str = "") -> pathlib.Path:
    """The folder with config.json: the workdir itself, or that of one of its stages.

    Raises:
      ConfigError: no run or stage there.
    """
    workdir = pathlib.Path(workdir).resolve()
    if (workdir / stages.INDEX).exists():
        rows = [row for row in read_json(workdir / stages.INDEX) if "make" not in row]
        begun = {row["name"]: workdir / row["folder"] for row in rows}
        begun = {n: f for n, f in begun.items() if (f / "config.json").exists()}
        if stage and stage not in begun:
            raise ConfigError(f"--stage={stage}: no such stage{near(stage, begun)}")
        if begun:
            return begun[stage] if stage else list(begun.values())[-1]
    elif stage:
        raise ConfigError(f"--stage={stage}: {workdir} holds a run without stages")
    if not (workdir / "config.json").exists():
        raise ConfigError(f"--workdir={workdir}: holds no run (no config.json)")
    return workdir


def _artifacts(folder: pathlib.Path, config: ConfigDict) -> dict[str, Any]:
    """What this stage reads: files, and what the earlier stages of its teachers and tables left."""
    names = {t.get("artifact", "") for t in config.teachers.values()} - {""}
    files = stages.imported(config)
    earlier = sorted(names - files.keys())
    return (
        files
        | _tables(folder)
        | {n: stages.artifact(load(folder.parent, stage=n).state) for n in earlier}
    )


def _tables(folder: pathlib.Path) -> dict[str, Any]:
    """The tables that the stage in a folder was begun with."""
    path, index = folder / table_stages.TABLES, folder.parent / stages.INDEX
    if not path.exists():
        return {}
    folders = {row["name"]: folder.parent / row["folder"] for row in read_json(index)}
    return {name: tables.load(folders[name] / making.FILE) for name in read_json(path)}
