"""All stages of a run as shapes, before the first of them trains."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax

from jaxssl.run import stages, table_stages
from jaxssl.run.evaluator import Evaluator
from jaxssl.run.stages import Stage
from jaxssl.state import State
from jaxssl.step import make_step

PyTree = Any


def rehearsed(
    plan: Sequence[Stage], files: Mapping[str, PyTree] = MappingProxyType({})
) -> dict[str, State]:
    """The shapes of every stage's state, by name: a fault in the last shows before any trains.

    Each stage is built on what the earlier ones would leave, and its step is traced. `files` are
    those that were `imported`.

    Raises:
      ConfigError: as the stage itself would, later.
    """
    shapes: dict[str, State] = {}
    left: dict[str, PyTree] = dict(files)
    for stage in plan:
        if stage.make:
            left[stage.name] = table_stages.table(stage, plan, left)
            continue
        program = stages.built(stage, left)
        Evaluator(program)
        stages.check_start(program.shapes, stage, left)
        with jax.set_mesh(program.mesh):
            step = make_step(program.method, program.optimizers)
            jax.eval_shape(step, program.shapes, program.abstract_batch())
        shapes[stage.name] = program.shapes
        left[stage.name] = stages.artifact(program.shapes)
    return shapes


def shapes_left(plan: Sequence[Stage], shapes: Mapping[str, State]) -> dict[str, PyTree]:
    """What all stages would leave, by name, as shapes.

    Args:
      plan: the stages.
      shapes: as they were `rehearsed`.
    """
    left: dict[str, PyTree] = {}
    for stage in plan:
        made = (
            table_stages.table(stage, plan, left)
            if stage.make
            else stages.artifact(shapes[stage.name])
        )
        left[stage.name] = made
    return left
