"""What a step reports of teachers and of gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxssl.method import Aux, Method
from jaxssl.methods.composed import teacher_metrics as observed
from jaxssl.methods.composed import terms
from jaxssl.methods.composed.arguments import OutputSpec, Scene
from jaxssl.step import Phase, alternating, two_step

B, P = 16, 6
IDS = {"global": (0, 1), "local": (2,)}
KNOWN = OutputSpec(
    IDS,
    {"": ("global", "local"), "input": ("global", "local"), "ema": ("global",)},
    dict.fromkeys(("", "ema"), ("projection", "scores", "tokens")),
    ("index", "label"),
    (),
    ("pixels",),
)
DINO = dict(
    fn="dino",
    student="scores",
    teacher="ema/scores",
    pairs="all",
    center=dict(memory="center"),
    student_temperature=0.5,
    teacher_temperature=("linear", 0.5, 0.25),
)


def scene():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape).astype(np.float32))
    stacks = {
        (who, name): {group: draw(B, len(IDS[group]), *shape) for group in KNOWN.sees[who]}
        for who in ("", "ema", "input")
        for name, shape in (("projection", (P,)), ("scores", (P,)), ("tokens", (3, P)))
    }
    stacks["input", "pixels"] = stacks.pop(("input", "projection"))
    memory = {"main": {"center": draw(P)}}
    return Scene(
        stacks,
        IDS,
        {},
        {},
        jnp.int32(toys.INFO.steps),
        lambda head, x: x,
        memory,
        jax.random.key(0),
    )


def found(entry, where):
    (term,) = terms.parse({"main": entry}, toys.INFO, KNOWN)
    return {name: float(x) for name, x in observed.of_teachers([term], where).items()}


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def test_the_cosine_is_of_the_same_views_of_student_and_teacher():
    where = scene()
    entry = dict(fn="byol", student="projection", teacher="ema/projection", pairs="cross")
    values = found(entry, where)
    assert set(values) == {"teacher/main/cosine"}
    s, t = (np.asarray(where.outputs[who, "projection"]["global"]) for who in ("", "ema"))
    norm = lambda x: np.linalg.norm(x, axis=-1)
    expected = ((s * t).sum(-1) / norm(s) / norm(t)).mean()
    assert values["teacher/main/cosine"] == pytest.approx(expected, abs=1e-6)

    itself = {("ema", "projection"): where.outputs["", "projection"]}
    same = where._replace(outputs={**where.outputs, **itself})
    assert found(entry, same)["teacher/main/cosine"] == pytest.approx(1, abs=1e-6)


def test_softmax_targets_are_those_of_the_loss_with_its_center_and_its_temperature_now():
    where = scene()
    values = found(DINO, where)
    assert set(values) == {f"teacher/main/{n}" for n in ("cosine", "entropy", "kl", "used")}
    s, t = (np.asarray(where.outputs[who, "scores"]["global"], np.float64) for who in ("", "ema"))
    p = softmax((t - np.asarray(where.memory["main"]["center"])) / 0.25)  # the schedule's end
    q = softmax(s / 0.5)
    mean = p.mean((0, 1))
    expected = {
        "entropy": -(p * np.log(p)).sum(-1).mean(),
        "kl": (p * np.log(p / q)).sum(-1).mean(),
        "used": np.exp(-(mean * np.log(mean)).sum()) / P,
    }
    for name, value in expected.items():
        assert values[f"teacher/main/{name}"] == pytest.approx(value, rel=1e-5)


def test_a_collapsed_teacher_shows_in_entropy_and_in_prototypes_used():
    """On one prototype, or on none: the two ways in which a centred teacher collapses."""
    entry = dict(fn="kl_divergence", student="scores", teacher="ema/scores", pairs="cross")
    for scores, entropy, used in (
        (1e4 * np.eye(P)[np.zeros(B, int)], 0, 1 / P),
        (np.zeros((B, P)), np.log(P), 1),
        (1e4 * np.eye(P)[np.arange(B) % 3], 0, 3 / P),  # three of them, each by a third, nearly
    ):
        stack = jnp.asarray(scores, jnp.float32)[:, None].repeat(2, axis=1)
        where = scene()
        outputs = {**where.outputs, ("ema", "scores"): {"global": stack}}
        values = found(entry, where._replace(outputs=outputs))
        assert values["teacher/main/entropy"] == pytest.approx(entropy, abs=1e-5)
        assert values["teacher/main/used"] == pytest.approx(used, rel=5e-3)
        assert np.isfinite(list(values.values())).all()


def test_terms_without_a_teacher_or_with_nothing_to_compare_report_nothing():
    where = scene()
    given = dict(mask=dict(batch="label"), center=dict(memory="center"))
    for entry in (
        dict(fn="byol", student="projection", teacher="projection", pairs="cross"),
        dict(fn="byol", student="scores", teacher="input/pixels", pairs="same"),
        dict(fn="ibot", student="tokens", teacher="ema/tokens", pairs="same", **given),
    ):
        parsed = terms.parse({"main": entry}, toys.INFO, KNOWN)
        assert observed.of_teachers(parsed, where) == {}


def test_a_teacher_of_keys_is_compared_by_cosine_alone():
    entry = dict(
        fn="relational_consistency",
        student="projection",
        teacher="ema/projection",
        pairs="cross",
        queue=dict(memory="queue", size=32),
        student_temperature=0.1,
        teacher_temperature=0.04,
    )
    assert set(found(entry, scene())) == {"teacher/main/cosine"}


def test_eight_devices_report_what_one_does_and_nothing_has_a_gradient():
    parsed = terms.parse({"main": DINO}, toys.INFO, KNOWN)
    where = scene()
    report = lambda outputs: observed.of_teachers(parsed, where._replace(outputs=outputs))
    one = jax.jit(report)(where.outputs)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split = jax.device_put(where.outputs, NamedSharding(mesh, PartitionSpec("data")))
    many = jax.jit(report)(split)
    for name, value in one.items():
        np.testing.assert_allclose(many[name], value, rtol=1e-5)
    slopes = jax.grad(lambda outputs: sum(report(outputs).values()))(where.outputs)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slopes))


def of_two_networks(**kw):
    """L = (3 a)^2 / 2 + (4 b)^2 / 2 with a, b vectors of ones: gradients 9 a and 16 b."""

    def loss(context):
        params, _, extra, _, _, _ = context
        a, b = params["encoder"]["a"], params["head"]["b"]
        return 4.5 * (a**2).sum() + 8 * (b**2).sum(), Aux(extra, {})

    init = lambda key, batch: ({"encoder": {"a": jnp.ones(4)}, "head": {"b": jnp.ones(9)}}, {})
    encode = lambda params, seen, extra, batch: {"pooled": params["encoder"]["a"][None]}
    return Method(init, {"main": loss, "other": loss}, {"student": encode}, **kw)


def test_every_network_has_the_norm_of_its_gradient():
    _, log = toys.run(of_two_networks(), {"main": toys.sgd(0.0)})
    assert log[0]["gradient_norm/encoder"] == pytest.approx(9 * 2)
    assert log[0]["gradient_norm/head"] == pytest.approx(16 * 3)
    assert log[0]["gradient_norm"] == pytest.approx(np.hypot(18, 48))


def test_a_network_that_a_phase_does_not_move_has_no_norm_in_it():
    phases = (Phase("main", "main", ("encoder",)), Phase("other", "other", ("head",)))
    method = of_two_networks(step=alternating(phases))
    optimizers = {"main": toys.sgd(0.0, ("encoder",)), "other": toys.sgd(0.0, ("head",))}
    _, log = toys.run(method, optimizers, steps=2)
    assert log[0]["gradient_norm/encoder"] == log[0]["gradient_norm"] == pytest.approx(18)
    assert np.isnan(log[0]["gradient_norm/head"])
    assert log[1]["gradient_norm/head"] == pytest.approx(48)


def test_two_steps_report_the_norms_of_the_second():
    feedback = lambda extra, change: extra
    method = of_two_networks(step=two_step("main", "other", "main", feedback))
    _, log = toys.run(method, {"main": toys.sgd(0.0), "other": toys.sgd(0.0)})
    assert log[0]["gradient_norm/head"] == pytest.approx(48)
