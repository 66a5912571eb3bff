"""Views alone: how many a second the devices make, and their part of a step."""

import jax

from jaxssl import modalities
from jaxssl.bench.measure import Measure, in_turn, ratios, seconds
from jaxssl.bench.workload import Workload
from jaxssl.devices.sharding import batch_sharding
from jaxssl.report import human


def run(workload: Workload, repeats: int) -> list[Measure]:
    """All views of a batch, jitted, against the whole step that makes and uses them."""
    config, program = workload.config, workload.program
    make = modalities.build(config.views, workload.program.info.fields, config.data)
    count = sum(len(ids) for ids in modalities.group_ids(config.views).values())
    batch, key = workload.batches[0], jax.random.key(0)
    with jax.set_mesh(program.mesh):
        jitted = jax.jit(make, out_shardings=batch_sharding(program.mesh))
        alone = jitted.lower(key, batch).compile()

    def views_seconds() -> float:
        return seconds(lambda: [alone(key, batch) for _ in range(workload.steps - 1)])

    found = in_turn({"views": views_seconds, "step": workload.bare_seconds}, repeats)
    made = (workload.steps - 1) * config.train.global_batch * count
    return [
        Measure("views over step, in time", ratios(found["views"], found["step"])),
        Measure("views/s", [made / s for s in found["views"]], human.count),
    ]
