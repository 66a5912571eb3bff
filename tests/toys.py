"""Toy methods on vectors, for tests of the loop: small enough to compile in a second."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxssl.method import INDEX, Aux, Field, Info, Method, Optimizer
from jaxssl.state import State, make_init
from jaxssl.step import make_step

INFO = Info(
    fields={"index": INDEX, "x": Field("series", (4,), "float32")},
    num_samples=64,
    num_classes=0,
    steps=10,
    steps_per_epoch=4,
    global_batch=16,
)


def scalar(theta=1.0, **kw):
    """L = theta^2 / 2 on one parameter, which no batch changes."""

    def loss(context):
        params, _, extra, _, _, _ = context
        return 0.5 * params["net"]["w"] ** 2, Aux(extra, {})

    init = lambda key, batch: ({"net": {"w": jnp.float32(theta)}}, {})
    encode = lambda context: {"pooled": context.params["net"]["w"][None]}
    return Method(init, {"main": loss}, {"student": encode}, **kw)


def sgd(rate=0.1, on=()):
    """Plain gradient descent, as the loop passes it `step`."""
    return Optimizer(optax.with_extra_args_support(optax.sgd(rate)), on)


def batch(step=0, size=16):
    """A batch of random vectors, a function of the step."""
    x = np.random.default_rng(step).standard_normal((size, 4)).astype(np.float32)
    return {"index": jnp.arange(size, dtype=jnp.int32), "x": jnp.asarray(x)}


def start(method, optimizers, seed=0) -> State:
    """The state at step 0."""
    return jax.jit(make_init(method, optimizers, INFO))(jax.random.key(seed), {})


def run(method, optimizers, steps=1, state=None):
    """`steps` compiled steps; (state, list of metrics)."""
    state = start(method, optimizers) if state is None else state
    step = jax.jit(make_step(method, optimizers))
    log = []
    for i in range(steps):
        state, metrics = step(state, batch(i))
        log.append({k: float(v) for k, v in metrics.items()})
    return state, log
