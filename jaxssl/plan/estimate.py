"""Everything that a plan says of one program on one topology, as one JSON-ready record."""

import math
import time
from typing import Any

import jax
import numpy as np

from jaxssl.plan import collectives, memory, roofline
from jaxssl.plan.chips import Topology
from jaxssl.plan.hlo import Module
from jaxssl.plan.memory import OutOfMemory
from jaxssl.plan.program import Planned
from jaxssl.step import make_step


def compiled(program: Planned) -> Any:
    """The compiled step.

    Raises:
      OutOfMemory: it does not fit; one line.
    """
    try:
        return program.step
    except jax.errors.JaxRuntimeError as error:
        if not memory.is_out_of_memory(error):
            raise
        message = str(error)
    with jax.set_mesh(program.mesh):
        step = make_step(program.method, program.optimizers)
        traced = jax.make_jaxpr(step)(program.shapes, program.abstract_batch())
    arrays = memory.largest_arrays(traced.jaxpr, program.mesh.devices.size)
    raise OutOfMemory(memory.out_of_memory(message, arrays))


def record(program: Planned, topology: Topology, capacity: float) -> dict[str, Any]:
    """Memory, FLOPs, collectives, bounds, input and length of a program.

    Args:
      program: of the topology's devices.
      topology: from `chips.resolve`.
      capacity: bytes of memory of a device; 0 is unknown.

    Raises:
      OutOfMemory: the step does not fit.
    """
    began = time.monotonic()
    step = compiled(program)
    compile_seconds = time.monotonic() - began
    devices = program.mesh.devices.size
    module = Module(step.as_text())
    sent = collectives.find(module, devices)
    counted = program.flops()
    compiler = step.cost_analysis() or {}
    found: dict[str, Any] = {
        "topology": {
            "name": topology.name,
            "devices": devices,
            "chips": topology.chips,
            "hosts": topology.hosts,
            "chip": topology.chip._asdict() if topology.chip else None,
        },
        "mesh": dict(program.mesh.shape),
        "global_batch": program.info.global_batch,
        "microbatches": program.config.train.microbatches,
        "precision": program.config.train.precision,
        "compile_seconds": compile_seconds,
        "memory": _memory(program, step, capacity),
        "flops": {
            "model": counted.model,
            "recomputed": counted.recomputed,
            "uncounted": counted.uncounted,
            "model_per_device": counted.model / devices,
            "executed_per_device": module.product_flops(),
            "compiler_per_device": float(np.asarray(compiler.get("flops", math.nan))),
        },
        "traffic_per_device": module.traffic(),
        "collectives": _collectives(program, sent),
    }
    found["collectives"]["unknown_loops"] = module.unknown_loops
    executed = found["flops"]["executed_per_device"]
    counted_all = counted.model + counted.recomputed
    found["flops"]["executed_over_counted"] = (
        executed * devices / counted_all if counted_all else None
    )
    found["bound"] = found["run"] = None
    figures = topology.per_device
    if figures is not None:
        limits = roofline.bound(
            figures,
            model_flops=counted.model / devices,
            executed_flops=max(executed, counted_all / devices),
            traffic=found["traffic_per_device"],
            sent=found["collectives"]["bytes"],
        )
        found["bound"] = limits._asdict()
        found["run"] = _run(program, topology, limits.seconds)
    return found


def needs(program: Planned) -> dict[str, float]:
    """Bytes of the compiled step alone, as `memory.of_step`.

    Raises:
      OutOfMemory: it does not fit.
    """
    return memory.of_step(compiled(program))


def too_much(found: dict[str, Any]) -> str:
    """One line for a step that compiles and needs more than there is: its largest parts."""
    parts = {n: x for n, x in found.items() if n not in ("peak", "capacity", "arguments")}
    first = sorted(parts, key=lambda name: -parts[name])[:3]
    text = ", ".join(f"{parts[name] / 2**30:.3g} GiB {name}" for name in first)
    needed, there = (found[name] / 2**30 for name in ("peak", "capacity"))
    return (
        f"out of memory on a device: needs {needed:.3g} GiB of {there:.3g}; largest parts: {text}; "
        f"{memory.REMEDY}"
    )


def _memory(program: Planned, step: Any, capacity: float) -> dict[str, Any]:
    parts = memory.of_state(program.shapes, program.shardings)
    batch = program.abstract_batch()
    shardings = {name: x.sharding for name, x in batch.items()}
    return {
        **parts,
        "batch": memory.of_tree(batch, shardings),
        **memory.of_step(step),
        "capacity": capacity or None,
    }


def _collectives(program: Planned, sent: list[collectives.Collective]) -> dict[str, Any]:
    total = sum(c.times * c.bytes for c in sent)
    # What is computed in half precision can be sent in it.
    width = 2 if program.config.train.precision == "bfloat16" else 4
    least = collectives.fsdp_minimum(program.shapes, program.shardings, width)
    return {
        "bytes": total,
        "by_kind": collectives.by_kind(sent),
        "largest": collectives.largest(sent),
        "fsdp_minimum": least,
        "fsdp_minimum_float32": least * 4 / width,
        "over_fsdp_minimum": total / least if least else None,
    }


def _run(program: Planned, topology: Topology, seconds: float) -> dict[str, Any]:
    info = program.info
    step = sum(
        math.prod(field.shape) * np.dtype(field.dtype).itemsize * info.batch_of(name)
        for name, field in info.fields.items()
    )
    images = info.global_batch / seconds / topology.hosts
    hours = info.steps * seconds / 3600
    return {
        "steps": info.steps,
        "samples_per_second_per_host": images,
        "bytes_per_second_per_host": step / seconds / topology.hosts,
        "hours": hours,
        "chip_hours": hours * topology.chips,
    }
