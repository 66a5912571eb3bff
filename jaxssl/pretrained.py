"""The encoder of a finished run as a pure function, for use outside of the library.

encode, params = jaxssl.load_encoder("runs/lejepa")
features = encode(params, images)
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxssl import modalities
from jaxssl.config.errors import ConfigError, near
from jaxssl.evals.features import to_host
from jaxssl.method import Context
from jaxssl.run import runs
from jaxssl.run.runs import Run
from jaxssl.step import make_ops

PyTree = Any
Encode = Callable[[PyTree, jax.Array], jax.Array]


def load_encoder(
    workdir: str | pathlib.Path,
    checkpoint: int | None = None,
    output: str = "",
    *,
    stage: str = "",
    encoder: str = "",
) -> tuple[Encode, PyTree]:
    """A run's encoder in evaluation mode: (encode, params).

    `encode(params, images)` takes images uint8 [B, H, W, C], or float in [0, 1], which are rounded
    to 8 bits, of any B, and gives float32 [B, D] (the output "tokens": [B, T, D]), the same numbers
    that the run's own evaluations see. It is pure and compiled, and may be compiled again inside of
    another function or differentiated with respect to the params.
    The run's evaluation view (size, mean and standard deviation) is in it; its batch statistics are
    in `params`, which holds the arrays that `encode` reads and None in place of all others.

    Args:
      workdir: of `jaxssl.main`.
      checkpoint: a step; None is the newest.
      output: of the encoder, e.g. "tokens"; "" is the run's `evals.output`.
      stage: of a run with stages; "" is the last that has begun.
      encoder: "student" or a teacher that has one; "" is the run's `evals.encoder`.

    Raises:
      ConfigError: no run, checkpoint, encoder or output there.
    """
    run = runs.load(workdir, checkpoint=checkpoint, stage=stage)
    return of_run(run, output, encoder)


def of_run(run: Run, output: str = "", encoder: str = "") -> tuple[Encode, PyTree]:
    """`load_encoder` of a run that is loaded already."""
    program, state = run.program, run.state
    method, config = program.method, program.config.evals
    name = encoder_name(run, encoder)
    output = output or config.output
    read, key = method.readouts[name], jax.random.key(0)
    of, field = modalities.evaluated(program.config, program.source.fields)

    def encode(params: PyTree, x: jax.Array) -> jax.Array:
        batch = {of: _eight_bits(x) if field.dtype == "uint8" else x}
        found = read(Context(**params, batch=batch, key=key, step=state.step))
        if output not in found:
            raise ConfigError(f"output: the encoder gives no {output!r}{near(output, found)}")
        return found[output]

    whole = {"params": state.params, "teachers": seen(run), "extra": state.extra}
    example = jax.ShapeDtypeStruct((1, *field.shape), field.dtype)
    is_read = _leaves_read(encode, whole, example)
    leaves, structure = jax.tree.flatten(whole)
    kept = [jnp.asarray(to_host(leaf)) if r else None for leaf, r in zip(leaves, is_read)]
    return jax.jit(encode), jax.tree.unflatten(structure, kept)


def _eight_bits(images: jax.Array) -> jax.Array:
    """uint8 as it is; float in [0, 1] in 255ths, rounded: what views are made of."""
    if not jnp.issubdtype(images.dtype, jnp.floating):
        return images
    return jnp.round(255 * jnp.clip(images, 0, 1)).astype(jnp.uint8)


def encoder_name(run: Run, encoder: str = "") -> str:
    """The name of an encoder that the run has; "" is that of its evaluations.

    Raises:
      ConfigError: no such encoder.
    """
    encoders: Mapping[str, Any] = run.program.method.encoders
    name = encoder or run.program.config.evals.encoder or next(iter(encoders))
    if name not in encoders:
        raise ConfigError(f"encoder: no {name!r}{near(name, encoders)}")
    return str(name)


def seen(run: Run) -> dict[str, PyTree]:
    """The params of the run's teachers, as losses and encoders see them."""
    program = run.program
    with jax.set_mesh(program.mesh):
        context = make_ops(program.method, program.optimizers).context(run.state, {})
        return dict(context.teachers)


def _leaves_read(encode: Encode, params: PyTree, images: jax.ShapeDtypeStruct) -> Sequence[bool]:
    """Which leaves of `params` the computation reads, in the order of `jax.tree.leaves`."""
    jaxpr = jax.make_jaxpr(encode)(jax.eval_shape(lambda p: p, params), images).jaxpr
    # From the output backwards: the encoder may have made others, of heads that are not asked for.
    used = {id(v) for v in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if any(id(v) in used for v in equation.outvars):
            used |= {id(v) for v in equation.invars}
    return [id(v) in used for v in jaxpr.invars[:-1]]
