"""The step of every experiment is the same program on one device and on eight.

What is compared is the text before compilation: nothing is compiled, and nothing runs.
"""

import re

import jax
import jax.numpy as jnp
import pytest

import experiments
from jaxssl.bench.small import small
from jaxssl.program import Program
from jaxssl.run import stages, table_stages
from jaxssl.step import make_step

# All that may differ: how many devices there are, and how arrays lie on them.
PLACEMENT = (
    (re.compile(r"mhlo\.num_partitions = \d+"), "mhlo.num_partitions"),
    (re.compile(r"sdy\.mesh @mesh = .*"), "sdy.mesh"),
    (re.compile(r"<@mesh, \[[^>\n]*\]>"), "<@mesh>"),
)


def programs(config, devices):
    """The program of each stage that trains, on the shapes that earlier stages would leave."""
    plan = experiments.plan(config)
    left = {}
    for stage in plan:
        if stage.make:
            left[stage.name] = table_stages.table(stage, plan, left)
        elif not stage.evaluates_only:
            program = Program(stage.config, left, jax.devices()[:devices])
            left[stage.name] = stages.artifact(program.shapes)
            yield program


def traced(program, step=make_step):
    """The step, traced."""
    with jax.set_mesh(program.mesh):
        compiled = jax.jit(
            step(program.method, program.optimizers),
            donate_argnums=0,
            out_shardings=(program.shardings, None),
        )
        return compiled.trace(program.abstract_state(), program.abstract_batch())


def text_of(step):
    """Its text, without how arrays lie on devices."""
    text = step.lower().as_text()
    for pattern, rest in PLACEMENT:
        text = pattern.sub(rest, text)
    return text


def first_difference(one, other):
    """Two lines, of one text and the other; nothing where all are the same."""
    a, b = one.splitlines(), other.splitlines()
    return next(((x[:300], y[:300]) for x, y in zip(a, b) if x != y), None) or (
        (f"{len(a)} lines", f"{len(b)} lines") if len(a) != len(b) else None
    )


@pytest.mark.parametrize("name", experiments.NAMES)
def test_one_device_and_eight_have_the_same_program(name):
    one = programs(small(name), 1)
    eight = programs(small(name, **{"mesh.fsdp": 4}), 8)
    for single, many in zip(one, eight, strict=True):
        step = traced(single)
        assert first_difference(text_of(step), text_of(traced(many))) is None
        # A step leaves a state of the shapes and types that it found.
        form = lambda x: (x.shape, x.dtype, getattr(x, "weak_type", False))
        before = jax.tree.map(form, single.shapes)
        assert jax.tree.map(form, step.out_info[0]) == before


def test_a_step_that_asks_for_the_devices_is_another_program():
    """The test above sees what it is there for."""

    def counting(method, optimizers):
        step = make_step(method, optimizers)

        def asks(state, batch):
            state, metrics = step(state, batch)
            mesh = jax.sharding.get_abstract_mesh()
            return state, {**metrics, "devices": jnp.float32(mesh.size)}

        return asks

    (one,), (eight,) = (list(programs(small("lejepa"), n)) for n in (1, 8))
    assert first_difference(*(text_of(traced(p, counting)) for p in (one, eight)))
