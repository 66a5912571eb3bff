"""What a run says of itself before its first step: one screen."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxssl import modalities, optim
from jaxssl.config import schedules
from jaxssl.report import human

Sections = list[tuple[str, Sequence[tuple[str, Any]]]]


def sections(program: Any, state: Any, stage: str, start: int, compile_seconds: float) -> Sections:
    """The rows of the start screen, for `jaxssl.report.progress.screen`."""
    config = program.config
    method: list[tuple[str, Any]] = [("name", config.name), ("family", config.method)]
    if config.preset:
        method.append(("preset", config.preset))
    if stage:
        method.append(("stage", stage))
    method.append(("terms", _terms(config)))
    method.append(("teachers", ", ".join(config.teachers) or "none"))
    return [
        ("method", method),
        ("networks", _networks(program, state.params)),
        ("views", _views(program)),
        ("data", _data(program)),
        ("optimizer", _optimizer(program)),
        ("run", _run(program, start)),
        ("step", _step(program, compile_seconds)),
    ]


def _terms(config: Any) -> str:
    number = lambda w: f"{w:g}" if isinstance(w, int | float) else str(w)
    weights = {name: term.get("weight", 1.0) for name, term in config.losses.items()}
    return " + ".join(f"{number(weight)} {name}" for name, weight in weights.items())


def _networks(program: Any, params: Mapping[str, Any]) -> list[tuple[str, Any]]:
    size = lambda tree: sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
    rows: list[tuple[str, Any]] = []
    for name, tree in params.items():
        kind = program.config.encoder.name if name == "encoder" else ""
        kind = kind or program.config.student.get(name, {}).get("name", "")
        rows.append((name, f"{human.count(size(tree))} parameters" + (f" ({kind})" * bool(kind))))
    for name, teacher in program.config.teachers.items():
        decay = teacher.get("decay", None)
        rows.append((f"teacher {name}", f"{teacher.get('rule')}{_half_life(decay, program.info)}"))
    return rows


def _half_life(decay: Any, info: Any) -> str:
    if decay is None:
        return ""
    values = schedules.make(decay, info.steps)
    ends = [float(values(s)) for s in (0, info.steps - 1)]
    lives = [human.count(schedules.half_life(d)) if d < 1 else "infinite" for d in ends]
    same = lives[0] == lives[1]
    return f", half-life {lives[0]}{'' if same else ' -> ' + lives[1]} steps"


def _views(program: Any) -> list[tuple[str, Any]]:
    config, info = program.config, program.info
    make, rows = modalities.build(config.views, info.fields, config.data), []
    for name, shape in modalities.view_shapes(make, program.abstract_batch()).items():
        text = f"{config.views[name].count} x {' x '.join(map(str, shape))}"
        patch = config.encoder.get("patch", 0) if config.encoder.name == "vit" else 0
        if patch:
            height, width = shape[-3:-1]
            text += f", {(height // patch) * (width // patch)} patches a view"
        rows.append((name, text))
    return rows


def _data(program: Any) -> list[tuple[str, Any]]:
    source = program.source
    trained = {name: len(stream.source) for name, stream in program.streams.items()}
    held = [
        f"{name} {' x '.join(map(str, field.shape))} {field.dtype}"
        for name, field in source.fields.items()
        if field.shape
    ]
    classes = f"{source.num_classes} classes" if source.num_classes else "no labels"
    return [
        ("source", source.name),
        ("samples", f"{len(source):,}, {classes}"),
        *(
            (f"trains on {name}".rstrip(), f"{samples:,}")
            for name, samples in trained.items()
            if name or samples != len(source)
        ),
        ("fields", ", ".join(held)),
        ("fingerprint", source.fingerprint),
    ]


def _optimizer(program: Any) -> list[tuple[str, Any]]:
    config, info = program.config, program.info
    rate = optim.learning_rate_at(config.optimizer, info.steps)
    points = sorted({0, info.steps // 10, info.steps // 2, info.steps - 1})
    values = ", ".join(f"{float(rate(s)):.2e} at step {s:,}" for s in points)
    rows: list[tuple[str, Any]] = [("rule", config.optimizer.name), ("learning rate", values)]
    if not program.method.optimizers:
        for row in optim.describe(config.optimizer, program.shapes.params, info.steps):
            factors = sorted({f"x{f:g}" for f in row.learning_rate})
            decays = "decayed" if row.decays else "not decayed"
            size = f"{human.count(row.params)} in {row.leaves} leaves"
            rows.append((row.group, f"{size}, {decays}, rate {' to '.join(factors)}"))
    return rows


def _run(program: Any, start: int) -> list[tuple[str, Any]]:
    info, config = program.info, program.config
    epochs = info.steps / info.steps_per_epoch
    mesh = ", ".join(f"{axis} {n}" for axis, n in program.mesh.shape.items())
    devices = program.mesh.devices.size
    split = [s for s in jax.tree.leaves(program.shardings) if not s.is_fully_replicated]
    rows: list[tuple[str, Any]] = [
        ("steps", f"{info.steps:,} ({epochs:.1f} epochs of {info.steps_per_epoch:,})"),
        ("global batch", f"{info.global_batch:,} in {config.train.microbatches} microbatches"),
        ("mesh", f"{mesh}: {devices} {jax.devices()[0].platform} devices"),
        ("sharding", f"{len(split)} of {len(jax.tree.leaves(program.shapes))} leaves split"),
        ("precision", config.train.precision),
    ]
    if start:
        rows.append(("resumed", f"at step {start:,}"))
    return rows


def _step(program: Any, compile_seconds: float) -> list[tuple[str, Any]]:
    flops = step_flops(program)
    memory = program.step.memory_analysis()
    rows: list[tuple[str, Any]] = [("compiled in", human.duration(compile_seconds))]
    rows.append(("work", f"{human.flops(flops)} a step (compiler's count, loops once)"))
    if memory is not None:
        rows.append(("temporary memory", f"{human.size(memory.temp_size_in_bytes)} a device"))
    return rows


def step_flops(program: Any) -> float:
    """FLOPs of one step over all devices, as the compiler counts them for one device."""
    cost = program.step.cost_analysis() or {}
    return float(np.asarray(cost.get("flops", math.nan))) * program.mesh.devices.size
