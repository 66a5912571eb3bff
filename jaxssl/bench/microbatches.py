"""Four microbatches against one: memory, the same loss and gradient, and what recomputing costs."""

from typing import Any

import jax

from jaxssl.bench.measure import Measure, in_turn, ratios, relative_gap, temporary_bytes
from jaxssl.bench.workload import Workload
from jaxssl.config.load import merged
from jaxssl.program import Program
from jaxssl.report import human
from jaxssl.step import make_ops

GOAL = 0.4
PARTS = 4
STEPS = 4  # of one repeat: the memory is what matters, and XLA's loops can be slow on a CPU


def run(workload: Workload, repeats: int) -> list[Measure]:
    """The config with group and layer norms in place of batch norms, which microbatches refuse.

    The goal is for configs whose activations, not params or views, fill the memory. XLA's CPU
    backend has no fast gradient of a depthwise convolution inside a loop, so there the steps of a
    ConvNeXt in parts are several times slower; that time says nothing about accelerators.
    """
    config = without_batch_norm(workload.config)
    steps = min(workload.steps, STEPS)
    one, parts = (Workload(merged(config, {"train.microbatches": k}), steps) for k in (1, PARTS))
    memory = [temporary_bytes(w.program.step) for w in (parts, one)]
    batch = one.batches[0]
    (value, grads), (whole_value, whole_grads) = (
        _value_and_grad(w.program, batch) for w in (parts, one)
    )
    found = in_turn({"parts": parts.bare_seconds, "one": one.bare_seconds}, repeats)
    return [
        Measure("temporary bytes over those of one", [memory[0] / memory[1]], goal=("<", GOAL)),
        Measure(f"temporary bytes in {PARTS}", memory[:1], human.size),
        Measure("temporary bytes in one", memory[1:], human.size),
        Measure("loss relative gap", [relative_gap(value, whole_value)]),
        Measure("gradient relative gap", [relative_gap(grads, whole_grads)]),
        Measure("step time over that of one", ratios(found["parts"], found["one"])),
    ]


def without_batch_norm(config: Any) -> Any:
    """The same config with norms that see one sample at a time."""
    changes = {"encoder.norm": "group"} if config.encoder.get("norm") == "batch" else {}
    for name, head in config.student.items():
        if head.get("norm") == "batch":
            changes[f"student.{name}.norm"] = "layer"
    return merged(config, changes)


def _value_and_grad(program: Program, batch: Any) -> tuple[Any, Any]:
    ops = make_ops(program.method, program.optimizers)
    loss = next(iter(program.method.losses))

    def value_and_grad(state: Any, batch: Any) -> tuple[Any, Any]:
        grads, value, _ = ops.grad(state, batch, loss)
        return value, grads

    with jax.set_mesh(program.mesh):
        return jax.jit(value_and_grad)(program.init(), batch)
