"""Where the time of a run goes: the loop, its parts alone, and who waits for whom."""

import resource
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxssl import modalities
from jaxssl.bench.measure import Measure, in_turn, ratios, seconds, temporary_bytes
from jaxssl.bench.workload import Workload
from jaxssl.devices.sharding import batch_sharding
from jaxssl.plan import chips, flops
from jaxssl.report import human
from jaxssl.step import make_ops, make_step

RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of `ru_maxrss`, in bytes


def run(workload: Workload, repeats: int) -> list[Measure]:
    """Rates of the loop and of its parts alone, the parts taking turns, and memory.

    The loop here draws batches and reads the metrics of the step before, as training does, and
    writes nothing. "Host waits for the device": the part of its time in which the host only waits
    for those metrics. "Device waits for the host": what the loop takes longer than the same steps
    on batches that lie on the device; around 0 the device never waits, below it is noise. Where
    both share a processor, as on a CPU, the second includes work of the host that slows the step.
    The forward pass is the first loss with its views and networks, without its gradient. FLOPs are
    those of matrix products and convolutions of the step as it is traced, recomputed ones not
    counted.
    """
    program, counted = workload.program, workload.steps - 1
    stream = program.batches(0)
    device_waits: list[float] = []
    data_waits: list[float] = []

    def loop() -> float:
        fed = workload.fed(stream)
        device_waits.append(fed.device / fed.seconds)
        data_waits.append(fed.data / fed.seconds)
        return fed.seconds

    def drawn() -> float:
        return seconds(lambda: [jax.block_until_ready(next(stream)) for _ in range(counted)])

    found = in_turn(
        {
            "loop": loop,
            "step": workload.bare_seconds,
            "input": drawn,
            "views": _alone(workload, _views(workload)),
            "forward": _alone(workload, _forward(workload), program.init()),
        },
        repeats,
    )
    batch = workload.config.train.global_batch
    rate = lambda name: [counted / s for s in found[name]]
    counts = step_flops(workload)
    memory = program.step.memory_analysis()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
    waits = [1 - part for part in ratios(found["step"], found["loop"])]
    assert workload.compile_seconds is not None  # the program is there
    return [
        Measure("steps/s", rate("loop")),
        Measure("examples/s", [batch * x for x in rate("loop")], human.count),
        Measure("step alone, steps/s", rate("step")),
        Measure("input alone, batches/s", rate("input")),
        Measure("views alone, batches/s", rate("views")),
        Measure("forward alone, batches/s", rate("forward")),
        Measure("views over step, in time", ratios(found["views"], found["step"])),
        Measure("forward over step, in time", ratios(found["forward"], found["step"])),
        Measure("host waits for the device, part of the time", device_waits[-repeats:]),
        Measure("host waits for data, part of the time", data_waits[-repeats:]),
        Measure("device waits for the host, part of the time", waits),
        Measure("model FLOPs a step", [counts], human.flops),
        Measure("model FLOP/s", [counts * x for x in rate("loop")], _per_second),
        *mfu(counts, rate("loop")),
        Measure("compile seconds", [workload.compile_seconds], human.duration),
        Measure("temporary bytes a device", [temporary_bytes(program.step)], human.size),
        Measure("bytes of state and batch a device", [_arguments(memory)], human.size),
        Measure("largest resident bytes of the process", [resident], human.size),
    ]


def mfu(counts: float, rates: Sequence[float]) -> list[Measure]:
    """Model FLOP/s over the bfloat16 peak of all chips; nothing where no figures are known.

    Args:
      counts: model FLOPs of a step.
      rates: steps/s.
    """
    chip = chips.figures(jax.devices()[0])
    if chip is None:
        return []
    peak = chip.flops * chips.count_chips(jax.devices())
    return [Measure("MFU, of the bfloat16 peak", [counts * x / peak for x in rates])]


def step_flops(workload: Workload) -> float:
    """FLOPs of one step over all devices: of its matrix products and convolutions."""
    program = workload.program
    with jax.set_mesh(program.mesh):
        step = make_step(program.method, program.optimizers)
        return flops.count(step, program.abstract_state(), program.abstract_batch()).model


def _views(workload: Workload) -> Callable[..., Any]:
    config = workload.config
    make = modalities.build(config.views, workload.program.info.fields, config.data)
    return lambda batch, key: make(key, batch)


def _forward(workload: Workload) -> Callable[..., Any]:
    """The first loss of the method, with what it needs of a state."""
    program = workload.program
    ops, loss = make_ops(program.method, program.optimizers), next(iter(program.method.losses))

    def forward(batch: Any, key: jax.Array, state: Any) -> Any:
        return ops.loss(state, batch, loss, key)[0]

    return forward


def _alone(workload: Workload, fn: Callable[..., Any], *rest: Any) -> Callable[[], float]:
    """The seconds that `fn(batch, key, *rest)`, compiled, takes for the batches of a round."""
    program, key = workload.program, jax.random.key(0)
    batches = workload.batches
    with jax.set_mesh(program.mesh):
        split = jax.tree.map(
            lambda x: batch_sharding(program.mesh) if x.ndim else None,
            jax.eval_shape(fn, batches[0], key, *rest),
        )
        compiled = jax.jit(fn, out_shardings=split).lower(batches[0], key, *rest).compile()
    rounds = range(workload.steps - 1)
    return lambda: seconds(
        lambda: [compiled(batches[i % len(batches)], key, *rest) for i in rounds]
    )


def _arguments(memory: Any) -> float:
    return float("nan") if memory is None else float(memory.argument_size_in_bytes)


def _per_second(x: float) -> str:
    return f"{human.flops(x)}/s"
