"""What a run costs in a table's unit, and a config that spends a given amount of it.

The stages of a run share its budget in the proportions that they have in its config.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from jaxssl.config import recipes, schedules
from jaxssl.config.errors import ConfigError
from jaxssl.config.load import merged
from jaxssl.evals import protocol
from jaxssl.program import Program
from jaxssl.run import rehearsal, stages
from jaxssl.step import make_step

WARM_UP = 0.1  # of the steps
CHECKPOINTS = 4  # in a run, so that one that is killed does not start again


class Cost(NamedTuple):
    """What a method's step costs.

    Attributes:
      amount: in the table's unit: full views that pass an encoder, the student's and the teachers'
        together, or GFLOP of the whole step by the compiler's count.
      labels: whether the loss reads the labels.
      planned: steps that the config itself asks for.
    """

    amount: float
    labels: bool
    planned: int = 1


def full_view(preset: str) -> int:
    """The pixels of the preset's full view, the unit in which encoded views are counted."""
    size: int = recipes.base(preset).views["global"].size
    return size**2


def costs(config: Any, full: int, unit: str = "views") -> list[Cost]:
    """What a step of each stage costs; of a config without stages, one.

    Args:
      config, full, unit: as of `cost`.

    Raises:
      ConfigError: as `cost`, or of a config whose stages do not fit each other.
    """
    if not config.stages:
        return [cost(config, full, unit)]
    plan = stages.resolve(config, pathlib.Path())
    left = rehearsal.shapes_left(plan, rehearsal.rehearsed(plan))
    none = Cost(0.0, labels=False, planned=0)
    return [cost(stage.config, full, unit, left) if stage.trains else none for stage in plan]


def cost(
    config: Any,
    full: int,
    unit: str = "views",
    artifacts: Mapping[str, Any] = MappingProxyType({}),
) -> Cost:
    """Counts the images that enter the encoders in one step, or its arithmetic, computing nothing.

    The step is traced, and every outermost call of a module of `jaxssl.encoders` counts its
    images: [B, H, W, C] is B H W / `full` views, less where the encoder is told to read a part of
    the tokens alone. A step rule that chooses among losses counts them all. Arithmetic is that of
    the whole step: views, teachers, heads, gradients and updates, before any optimisation. No
    method is known here by its name.

    Args:
      config: of one stage.
      full: pixels of a full view.
      unit: "views" or "GFLOP".
      artifacts: shapes of what earlier stages leave, by name.

    Raises:
      ConfigError: views are counted and nothing enters an encoder, or the config has stages.
    """
    if config.stages:
        raise ConfigError("stages: found several; the cost of a step is that of one stage")
    # Microbatches are a loop whose body is traced once; without them the same views pass.
    alone = {"train.microbatches": 1, "mesh.data": 1, "mesh.fsdp": 1, "mesh.model": 1}
    program = Program(merged(config, alone), artifacts, devices=jax.local_devices()[:1])
    step = make_step(program.method, program.optimizers)
    batch = program.abstract_batch()
    unlabelled = {name: x for name, x in batch.items() if name != "label"}

    def pixels(batch: Mapping[str, Any]) -> float:
        watch = _Watch()
        with jax.set_mesh(program.mesh), nn.intercept_methods(watch):
            jax.eval_shape(step, program.shapes, batch)
        return watch.pixels

    try:
        found, labels = pixels(unlabelled), False
    except KeyError as error:
        if error.args != ("label",):
            raise
        found, labels = pixels(batch), True
    if unit == "views":
        if not found:
            raise ConfigError("method: no image enters an encoder of jaxssl.encoders")
        return Cost(found / full, labels, program.info.steps)
    with jax.set_mesh(program.mesh):
        counted: Any = jax.jit(step).lower(program.shapes, batch).cost_analysis()
    return Cost(float(counted["flops"]) / 1e9, labels, program.info.steps)


class _Watch:
    """An interceptor of linen calls that adds up the pixels that enter encoders."""

    def __init__(self) -> None:
        self.pixels = 0.0
        self._inside = False

    def __call__(
        self, call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        encoder = type(context.module).__module__.startswith("jaxssl.encoders.")
        if self._inside or not encoder or context.method_name != "__call__":
            return call(*args, **kwargs)
        grouped = isinstance(args[0], tuple)  # groups of views side by side, [B, V, ...] each
        groups = args[0] if grouped else args[:1]
        if groups[0].ndim < 4:  # a part of an encoder that a head uses, on tokens
            return call(*args, **kwargs)
        kept = kwargs.get("tokens")
        kept = kept if isinstance(kept, tuple) else (kept,) * len(groups)
        for images, tokens in zip(groups, kept, strict=True):
            count = math.prod(images.shape[: 1 + grouped])
            area = math.prod(images.shape[1 + grouped : -1])
            if tokens is not None:
                module = context.module
                area = tokens.shape[-1] * module.patch**2 * getattr(module, "tubelet", 1)
            self.pixels += count * area
        self._inside = True
        try:
            return call(*args, **kwargs)
        finally:
            self._inside = False


def steps(budget: float, found: Sequence[Cost]) -> list[int]:
    """How many steps of each stage a budget pays for, in the proportions of the config.

    Args:
      budget: in the unit of the costs.
      found: of the stages.

    Raises:
      ConfigError: less than one of a stage that takes any.

    >>> steps(1000, [Cost(64.0, labels=False, planned=700)])
    [15]
    >>> steps(1000, [Cost(0.5, labels=False, planned=40), Cost(4.0, labels=False, planned=20)])
    [400, 200]
    """
    whole = sum(cost.amount * cost.planned for cost in found)
    paid = []
    for cost in found:
        share = cost.amount * cost.planned / whole  # exactly 1 where there is one stage
        paid.append(int(budget * share // cost.amount) if cost.planned else 0)
        if cost.planned and not paid[-1]:
            raise ConfigError(
                f"--budget={budget:g}: found less than the {cost.amount / share:g} of one step"
            )
    return paid


def changes(config: Any, found: Sequence[Cost], lengths: Sequence[int]) -> dict[str, Any]:
    """The fields that make `config` a run of these lengths that is evaluated once, at its end.

    The warm-up of learning rates becomes a tenth of the steps; all else stays the experiment's.

    Args:
      config: of the whole run.
      found: the costs of its stages.
      lengths: steps of each stage.
    """
    if not config.stages:
        return _of_one(config, found[0].planned, lengths[0], evaluated=True)
    plan = stages.resolve(config, pathlib.Path())
    entries = []
    for entry, stage, cost, length in zip(config.stages, plan, found, lengths, strict=True):
        own = _of_one(stage.config, cost.planned, length, evaluated=stage is plan[-1])
        entries.append({**entry, "changes": {**entry.get("changes", {}), **own}})
    return {"stages": tuple(entries)}


def _of_one(config: Any, planned: int, length: int, evaluated: bool) -> dict[str, Any]:
    """The changes of one stage, of `length` steps instead of `planned`."""
    changed: dict[str, Any] = {
        "train.steps": length,
        "train.epochs": 0.0,
        "train.examples": 0,
        "checkpoint.every_steps": max(1, length // CHECKPOINTS),
        "evals.every_steps": 0,
        "evals.knn": protocol.resolve("knn", {}) if evaluated else None,
        "evals.linear": protocol.resolve("linear", {}) if evaluated else None,
        "evals.fewshot": None,
    }
    rates = {"optimizer.learning_rate": config.optimizer.learning_rate}
    for name, group in config.optimizer.groups.items():
        if "own_learning_rate" in group:
            rates[f"optimizer.groups.{name}.own_learning_rate"] = group["own_learning_rate"]
    for field, spec in rates.items() if length else ():
        rescaled = _rescaled(spec, length, length / planned)
        if rescaled != spec:
            changed[field] = rescaled
    return changed


def _rescaled(spec: Any, length: int, scale: float) -> Any:
    """A schedule for a run that is `scale` times as long, `length` steps."""
    if not schedules.is_spec(spec):
        return spec
    if spec[0] in ("warmup_cosine", "warmup_linear"):
        kind, peak, _, *rest = spec
        return (kind, peak, max(1, round(WARM_UP * length)), *rest)
    if spec[0] == "part":
        _, first, total, whole = spec
        first, total = round(scale * first), round(scale * total)
        return ("part", first, total, _rescaled(whole, total, scale))
    return spec
