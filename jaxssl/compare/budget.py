"""What a step costs in a table's unit, and a config that spends a given amount of it."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from jaxssl import base, schedules
from jaxssl.config import merged
from jaxssl.errors import ConfigError
from jaxssl.evals import protocol
from jaxssl.program import Program
from jaxssl.step import make_step

WARM_UP = 0.1  # of the steps
CHECKPOINTS = 4  # in a run, so that one that is killed does not start again


class Cost(NamedTuple):
    """What a method's step costs.

    Attributes:
      amount: in the table's unit: full views that pass an encoder, the student's and the teachers'
        together, or GFLOP of the whole step by the compiler's count.
      labels: whether the loss reads the labels.
    """

    amount: float
    labels: bool


def full_view(preset: str) -> int:
    """The pixels of the preset's full view, the unit in which encoded views are counted."""
    size: int = base.vision(preset).views["global"].size
    return size**2


def cost(config: Any, full: int, unit: str = "views") -> Cost:
    """Counts the images that enter the encoders in one step, or its arithmetic, computing nothing.

    The step is traced, and every outermost call of a module of `jaxssl.encoders` counts its
    images: [B, H, W, C] is B H W / `full` views, less where the encoder is told to read a part of
    the tokens alone. A step rule that chooses among losses counts them all. Arithmetic is that of
    the whole step: views, teachers, heads, gradients and updates, before any optimisation. No
    method is known here by its name.

    Args:
      config: of a run of one stage.
      full: pixels of a full view.
      unit: "views" or "GFLOP".

    Raises:
      ConfigError: nothing enters an encoder, or the run has several stages.
    """
    if config.stages:
        raise ConfigError("stages: found several; views are counted in a run of one stage")
    # Microbatches are a loop whose body is traced once; without them the same views pass.
    alone = {"train.microbatches": 1, "mesh.data": 1, "mesh.fsdp": 1, "mesh.model": 1}
    program = Program(merged(config, alone), devices=jax.local_devices()[:1])
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
    if not found:
        raise ConfigError("method: no image enters an encoder of jaxssl.encoders")
    if unit == "views":
        return Cost(found / full, labels)
    with jax.set_mesh(program.mesh):
        counted: Any = jax.jit(step).lower(program.shapes, batch).cost_analysis()
    return Cost(float(counted["flops"]) / 1e9, labels)


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
        if args[0].ndim < 4:  # a part of an encoder that a head uses, on tokens
            return call(*args, **kwargs)
        images, *sides, _ = args[0].shape
        area = float(math.prod(sides))
        tokens = kwargs.get("tokens")
        if tokens is not None:
            module = context.module
            area = tokens.shape[1] * module.patch**2 * getattr(module, "tubelet", 1)
        self.pixels += images * area
        self._inside = True
        try:
            return call(*args, **kwargs)
        finally:
            self._inside = False


def steps(budget: float, found: Cost) -> int:
    """How many steps a budget pays for.

    Raises:
      ConfigError: less than one.

    >>> steps(1000, Cost(64.0, labels=False))
    15
    """
    paid = int(budget // found.amount)
    if paid < 1:
        raise ConfigError(f"--budget={budget:g}: found less than the {found.amount:g} of one step")
    return paid


def changes(config: Any, length: int) -> dict[str, Any]:
    """The fields that make `config` a run of `length` steps that is evaluated once, at its end.

    The warm-up of learning rates becomes a tenth of the steps; all else stays the experiment's.
    """
    warm = max(1, round(WARM_UP * length))
    changed: dict[str, Any] = {
        "train.steps": length,
        "train.epochs": 0.0,
        "train.examples": 0,
        "checkpoint.every_steps": max(1, length // CHECKPOINTS),
        "evals.every_steps": 0,
        "evals.knn": protocol.resolve("knn", {}),
        "evals.linear": protocol.resolve("linear", {}),
        "evals.fewshot": None,
    }
    rates = {"optimizer.learning_rate": config.optimizer.learning_rate}
    for name, group in config.optimizer.groups.items():
        if "own_learning_rate" in group:
            rates[f"optimizer.groups.{name}.own_learning_rate"] = group["own_learning_rate"]
    for field, spec in rates.items():
        if schedules.is_spec(spec) and spec[0] in ("warmup_cosine", "warmup_linear"):
            kind, peak, _, *rest = spec
            changed[field] = (kind, peak, warm, *rest)
    return changed
