"""Forward and backward pass of an encoder that sees a quarter of the patches, against all."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxssl import encoders
from jaxssl.bench.measure import Measure, in_turn, ratios, seconds
from jaxssl.bench.workload import Workload
from jaxssl.config.errors import ConfigError

GOAL = 0.40
RATIO = 0.75  # hidden
BATCH = 8


def run(workload: Workload, repeats: int) -> list[Measure]:
    """ViT-S/16 at 224 px, or the config's own vision transformer where it has one."""
    fields = workload.config.encoder.to_dict()
    if fields.get("name") != "vit":
        fields = {"name": "vit", "size": "S", "patch": 16, "image_size": 224, "pool": "mean"}
    side = fields.get("image_size", 224)
    if not isinstance(side, int):
        raise ConfigError(f"encoder.image_size: found {side}, expected one number")
    module = encoders.build(fields, dtype=jnp.float32)
    total = (side // module.patch) ** 2
    key = jax.random.key(0)
    x = jax.random.normal(key, (BATCH, side, side, len(workload.config.data.mean)))
    params = jax.jit(lambda: module.init(key, x, train=False))()
    kept = max(1, int(total * (1 - RATIO)))
    order = jax.vmap(lambda k: jax.random.permutation(k, total))(jax.random.split(key, BATCH))

    def step(tokens: jax.Array | None) -> Any:
        def loss(params: Any, x: jax.Array) -> jax.Array:
            out: Any = module.apply(params, x, train=True, tokens=tokens)
            return jnp.square(out["tokens"]).mean()

        return jax.jit(jax.grad(loss)).lower(params, x).compile()

    sides = {"masked": step(order[:, :kept]), "whole": step(None)}
    flops = {name: float(fn.cost_analysis()["flops"]) for name, fn in sides.items()}
    timed = {name: lambda fn=fn: seconds(fn, params, x) for name, fn in sides.items()}
    found = in_turn(timed, repeats)
    return [
        Measure(
            f"step time at mask ratio {RATIO} over that of the whole view",
            ratios(found["masked"], found["whole"]),
            goal=("<=", GOAL),
        ),
        Measure("FLOPs over those of the whole view", [flops["masked"] / flops["whole"]]),
    ]
