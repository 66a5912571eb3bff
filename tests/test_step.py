"""Step rules on toys with known numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys

from jaxssl import teachers
from jaxssl.method import Aux, Method, Optimizer, Teacher
from jaxssl.step import Phase, alternating, gradient_step, lookahead, make_step, two_step

MAIN = {"main": toys.sgd(0.1)}


def ema(decay=0.99, when="before"):
    return teachers.ema(decay, when=when)


def theta(state):
    return float(state.params["net"]["w"])


def phi(state, name="ema"):
    return float(state.teachers[name]["net"]["w"])


@pytest.mark.smoke
def test_gradient_step_descends_then_teaches_after():
    method = toys.scalar(teachers={"ema": ema(when="after")}, step=gradient_step())
    state, log = toys.run(method, MAIN)
    assert theta(state) == pytest.approx(0.9)
    assert phi(state) == pytest.approx(0.99 * 1 + 0.01 * 0.9)
    assert int(state.step) == 1
    assert log[0]["loss"] == pytest.approx(0.5)
    assert log[0]["gradient_norm"] == pytest.approx(1.0)


def test_a_teacher_before_the_step_sees_the_params_that_the_step_starts_from():
    state, _ = toys.run(toys.scalar(teachers={"ema": ema(0.5)}), MAIN, steps=2)
    # First update leaves 1; the second averages 1 and 0.9.
    assert phi(state) == pytest.approx(0.95)


def test_lookahead_gives_the_published_scalar_toy():
    method = toys.scalar(teachers={"ema": ema()}, step=lookahead(1))
    state, _ = toys.run(method, MAIN)
    assert phi(state) == pytest.approx(0.999)  # saw the virtual student at 0.9
    assert theta(state) == pytest.approx(0.9)  # only the real step is left


def test_lookahead_zero_is_the_mean_teacher():
    wanted, _ = toys.run(toys.scalar(teachers={"ema": ema()}), MAIN, steps=3)
    found, _ = toys.run(toys.scalar(teachers={"ema": ema()}, step=lookahead(0)), MAIN, steps=3)
    assert theta(found) == theta(wanted)
    assert phi(found) == phi(wanted)


def test_lookahead_at_rate_zero_is_k_more_teacher_updates():
    start = lambda key, params, extra, artifacts: {"net": {"w": jnp.float32(0.0)}}
    teacher = ema()._replace(init=start)
    method = toys.scalar(teachers={"ema": teacher}, step=lookahead(3))
    state, _ = toys.run(method, {"main": toys.sgd(0.0)})
    assert phi(state) == pytest.approx(1 - 0.99**4, rel=1e-5)


def test_lookahead_puts_moments_and_extra_back():
    def loss(context):
        params, _, extra, _, _, _ = context
        return 0.5 * params["net"]["w"] ** 2, Aux({"count": extra["count"] + 1}, {})

    init = lambda key, batch: ({"net": {"w": jnp.float32(1.0)}}, {"count": jnp.int32(0)})
    method = toys.scalar(step=lookahead(4))._replace(init=init, losses={"main": loss})
    momentum = optax.with_extra_args_support(optax.sgd(0.1, momentum=0.9))
    state, _ = toys.run(method, {"main": Optimizer(momentum)})
    assert int(state.extra["count"]) == 1
    assert float(state.optimizer["main"][0].trace["net"]["w"]) == pytest.approx(1.0)


def test_two_step_feeds_the_change_of_the_probe_to_the_second_loss():
    def first(context):
        params, _, extra, _, _, _ = context
        return params["net"]["w"], Aux(extra, {})  # gradient 1: moves by -0.1

    def probe(context):
        params, _, extra, _, _, _ = context
        return 3.0 * params["net"]["w"], Aux(extra, {})

    def second(context):
        params, _, extra, _, _, _ = context
        return extra["h"] * params["net"]["w"], Aux(extra, {})

    method = toys.scalar()._replace(
        init=lambda key, batch: ({"net": {"w": jnp.float32(1.0)}}, {"h": jnp.float32(0.0)}),
        losses={"first": first, "probe": probe, "second": second},
        step=two_step("first", "second", "probe", lambda extra, h: {"h": h}),
    )
    optimizers = {"first": toys.sgd(0.1), "second": toys.sgd(1.0)}
    state, log = toys.run(method, optimizers)
    assert log[0]["feedback"] == pytest.approx(-0.3, abs=1e-6)
    assert theta(state) == pytest.approx(1 - 0.1 + 0.3, abs=1e-6)


def test_alternating_moves_one_part_in_each_phase_and_pads_absent_metrics():
    def of(name):
        def loss(context):
            params, _, extra, _, _, _ = context
            value = 0.5 * params[name]["w"] ** 2
            return value, Aux(extra, {f"only_{name}": value})

        return loss

    init = lambda key, batch: ({n: {"w": jnp.float32(1.0)} for n in "ab"}, {})
    method = Method(
        init,
        {"a": of("a"), "b": of("b")},
        {"student": lambda *args: {}},
        step=alternating([Phase("a", "a", ("a",), 1), Phase("b", "b", ("b",), 2)]),
    )
    optimizers = {"a": toys.sgd(0.1, ("a",)), "b": toys.sgd(0.5, ("b",))}
    state, log = toys.run(method, optimizers, steps=4)
    assert [entry["phase"] for entry in log] == [0, 1, 1, 0]
    assert float(state.params["a"]["w"]) == pytest.approx(0.81)
    assert float(state.params["b"]["w"]) == pytest.approx(0.25)
    assert np.isnan(log[0]["only_b"]) and np.isnan(log[1]["only_a"])
    assert np.isfinite([entry["loss"] for entry in log]).all()


def test_no_gradient_reaches_the_params_through_a_teacher():
    def loss(context):
        params, seen, extra, _, _, _ = context
        return seen["self"]["net"]["w"] * params["net"]["w"], Aux(extra, {})

    read = lambda t, params, extra, step: params
    itself = Teacher(lambda *a: {}, lambda t, *a: t, read)
    method = toys.scalar(teachers={"self": itself})._replace(losses={"main": loss})
    state, _ = toys.run(method, MAIN)
    assert theta(state) == pytest.approx(0.9)  # 2 theta, were it seen, would give 0.8


def test_several_teachers_each_keep_their_own_state():
    method = toys.scalar(
        teachers={
            "slow": ema(0.9, "after"),
            "fast": ema(0.0, "after"),
            "first": teachers.frozen(),
            "snap": teachers.snapshot(2),
        }
    )
    state, _ = toys.run(method, MAIN, steps=3)
    assert phi(state, "fast") == pytest.approx(0.9**3)
    assert phi(state, "first") == 1.0
    assert phi(state, "slow") > phi(state, "snap") > phi(state, "fast")


def test_the_second_step_does_not_compile_again():
    method = toys.scalar(teachers={"ema": ema()})
    state = toys.start(method, MAIN)
    traces = []

    def counted(state, batch):
        traces.append(1)
        return make_step(method, MAIN)(state, batch)

    step = jax.jit(counted)
    for i in range(3):
        state, _ = step(state, toys.batch(i))
    assert len(traces) == 1


def test_keys_differ_by_step_and_by_salt():
    def loss(context):
        params, _, extra, _, key, _ = context
        return params["net"]["w"] * 0, Aux(extra, {"draw": jax.random.uniform(key)})

    method = toys.scalar()._replace(losses={"main": loss})
    _, log = toys.run(method, MAIN, steps=3)
    assert len({entry["draw"] for entry in log}) == 3
