"""How work and memory of batch losses grow with the batch; and SIGReg's share of a large step.

Counted in the traced programs, value and gradient together: nothing is run, so no machine is in it.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl import losses
from jaxssl.bench.measure import Measure
from jaxssl.bench.workload import Workload
from jaxssl.config import recipes
from jaxssl.evals.features import DeviceFeatures
from jaxssl.evals.probes import knn
from jaxssl.plan import flops

SIZES = (512, 1024, 2048)  # N
WIDTH = 64  # D
PROTOTYPES = 1024  # K
QUADRATIC = 2.05  # an exponent above is none of a quadratic cost


class Cost(NamedTuple):
    """Operations on numbers, of products and of all else, and the numbers of the largest array."""

    work: float
    largest: int


def cost(fn: Callable[..., Any], *args: Any) -> Cost:
    """Of `fn(*args)`, traced; a scan counts its length times its body.

    >>> cost(lambda x: jnp.exp(x).sum(), jnp.ones(8))
    Cost(work=9.0, largest=8)
    """
    closed = jax.make_jaxpr(fn)(*args)
    return Cost(flops.count(fn, *args).model + _elements(closed.jaxpr), _largest(closed.jaxpr))


def _elements(jaxpr: Any) -> float:
    total = 0.0
    for eqn in jaxpr.eqns:
        inner = [_elements(program) for program in flops.programs(eqn)]
        if inner:
            each = max(inner) if eqn.primitive.name == "cond" else sum(inner)
            total += each * (eqn.params["length"] if eqn.primitive.name == "scan" else 1)
        elif eqn.primitive.name not in ("dot_general", "conv_general_dilated"):
            total += sum(_size(v) for v in eqn.outvars)
    return total


def _largest(jaxpr: Any) -> int:
    found = [_size(v) for eqn in jaxpr.eqns for v in eqn.outvars]
    inner = [_largest(program) for eqn in jaxpr.eqns for program in flops.programs(eqn)]
    return max([*found, *inner, 0])


def _size(variable: Any) -> int:
    return math.prod(getattr(variable.aval, "shape", ()))


def exponent(values: dict[int, float]) -> float:
    """e of values ~ N^e, between the smallest and the largest N.

    >>> exponent({2: 8.0, 4: 64.0})
    3.0
    """
    low, high = min(values), max(values)
    return math.log(values[high] / values[low]) / math.log(high / low)


def of_losses() -> dict[str, Callable[[int], Cost]]:
    """N -> cost, of each loss that couples the samples of a batch."""
    embeddings = lambda n: jax.ShapeDtypeStruct((n, WIDTH), jnp.float32)
    scores = lambda n: jax.ShapeDtypeStruct((n, PROTOTYPES), jnp.float32)
    directions = jax.ShapeDtypeStruct((WIDTH, PROTOTYPES), jnp.float32)

    def of(loss: Any) -> Callable[[int], Cost]:
        return lambda n: cost(jax.grad(loss), embeddings(n))

    def neighbours(n: int) -> Cost:
        chunk, f32 = knn.PROTOCOL["chunk"], jnp.float32
        of_bank = (((n, WIDTH), f32), ((n,), jnp.int32), ((n,), f32))
        of_queries = (((WIDTH,), f32), ((), jnp.int32), ((), f32))
        bank: Any = DeviceFeatures(*(jax.ShapeDtypeStruct(s, kind) for s, kind in of_bank))  # type: ignore
        asked = [jax.ShapeDtypeStruct((n // chunk, chunk, *s), kind) for s, kind in of_queries]
        vote = lambda bank, *asked: knn.hits(bank, *asked, 0.07, k=20, num_classes=10)
        return cost(vote, bank, *asked)

    return {
        "sigreg": lambda n: cost(jax.grad(losses.sigreg), embeddings(n), directions),
        "koleo": of(losses.koleo),
        "t_regs": of(losses.tree_length_regularizer),
        "sinkhorn": lambda n: cost(
            lambda s: losses.sinkhorn(s, epsilon=0.05, iterations=3), scores(n)
        ),
        "knn": neighbours,
    }


def share(batch: int = 2048, slices: int = 1024, width: int = 128, views: int = 2) -> float:
    """FLOPs of SIGReg, value and gradient, over those of a ViT-B/16's `views` at 224 px."""
    from jaxssl import encoders

    config = recipes.base("imagenet1k_vit_b16")
    module = encoders.build(config.encoder.to_dict(), dtype=jnp.bfloat16)
    image = jax.ShapeDtypeStruct((batch * views, 224, 224, 3), jnp.float32)
    params = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        found: Any = module.apply(params, x, train=True)
        return jnp.square(found["pooled"].astype(jnp.float32)).mean()

    step = flops.count(jax.grad(loss), params, image).model
    z = jax.ShapeDtypeStruct((batch, width), jnp.float32)
    directions = jax.ShapeDtypeStruct((width, slices), jnp.float32)
    return views * cost(jax.grad(losses.sigreg), z, directions).work / step


def run(workload: Workload, repeats: int) -> list[Measure]:
    """The exponents of work and of the largest array, and SIGReg's share."""
    del workload, repeats
    measures = [
        Measure(
            "SIGReg over a ViT-B/16 step, in FLOPs", [share()], lambda x: f"{x:.3%}", ("<=", 0.01)
        )
    ]
    for name, of in of_losses().items():
        found = {n: of(n) for n in SIZES}
        work = exponent({n: c.work for n, c in found.items()})
        array = exponent({n: float(c.largest) for n, c in found.items()})
        most = max(SIZES)
        measures += [
            Measure(f"{name}: work ~ N^", [work], goal=("<=", QUADRATIC)),
            Measure(f"{name}: largest array ~ N^", [array], goal=("<=", QUADRATIC)),
            Measure(
                f"{name}: numbers in the largest array over N^2, N = {most}",
                [float(np.divide(found[most].largest, most**2))],
            ),
        ]
    return measures
