"""The compiled step: its compile time, work and memory, and the rate against a matrix product."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from jaxssl.bench.measure import Measure, in_turn, ratios, seconds, temporary_bytes
from jaxssl.bench.workload import Workload
from jaxssl.devices.sharding import AXES
from jaxssl.report import human
from jaxssl.report.startup import step_flops

SIDES = {"cpu": 2048}  # of the square matrices; elsewhere:
SIDE = 8192


def run(workload: Workload, repeats: int, side: int = 0) -> list[Measure]:
    """FLOP/s of the step and their part of what one large product a device reaches in its dtype.

    FLOPs are the compiler's count: it counts the body of a `lax.scan` or `lax.map` once.
    """
    program = workload.program
    flops, devices = step_flops(program), program.mesh.devices.size
    side = side or SIDES.get(jax.default_backend(), SIDE)
    dtype = jnp.dtype(workload.config.train.precision)
    split = NamedSharding(program.mesh, PartitionSpec(AXES))
    ones = jax.jit(lambda: jnp.ones((devices, side, side), dtype), out_shardings=split)()
    product = jax.jit(jnp.matmul, out_shardings=split)

    found = in_turn(
        {"step": workload.bare_seconds, "product": lambda: seconds(product, ones, ones)}, repeats
    )
    rates = [flops * (workload.steps - 1) / s for s in found["step"]]
    peaks = [devices * 2.0 * side**3 / s for s in found["product"]]
    per_second = lambda x: f"{human.flops(x)}/s"
    assert workload.compile_seconds is not None  # the program is there
    return [
        Measure("FLOP/s over those of a product", ratios(rates, peaks)),
        Measure("FLOP/s", rates, per_second),
        Measure("FLOP/s of a product", peaks, per_second),
        Measure("FLOPs a step", [flops], human.flops),
        Measure("temporary bytes a device", [temporary_bytes(program.step)], human.size),
        Measure("steps/s", [(workload.steps - 1) / s for s in found["step"]]),
        Measure("compile seconds", [workload.compile_seconds], human.duration),
    ]
