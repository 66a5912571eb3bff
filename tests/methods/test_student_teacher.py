"""Teachers with networks of their own: another architecture than the student's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from jaxssl.config.errors import ConfigError
from jaxssl.data.images import image_fields
from jaxssl.method import Context, Info
from jaxssl.methods.composed import wiring
from jaxssl.run import stages, train
from jaxssl.state import example_batch

B = 16
INFO = Info(
    fields=image_fields((16, 16, 1)),
    num_samples=64,
    num_classes=10,
    steps=10,
    steps_per_epoch=4,
    global_batch=B,
)
KEY = jax.random.key(0)


def student(**changes):
    """The config of the student's stage of `kd`, small, on one stream."""
    config = experiments.small("kd", **{"train.global_batch": B})
    config = experiments.plan(config)[-1].config
    views = {name: x for name, x in config.views.transfer.to_dict().items() if name != "of"}
    one_stream = {
        "streams": {},
        "views": {"global": views},
        "losses.classes.student": "logits",
        "losses.classes.labels": dict(batch="label"),
        "losses.kd.student": "logits",
        "losses.kd.teacher": "large/logits",
    }
    return experiments.with_changes(config, one_stream | changes)


def batch_of():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (B, 16, 16, 1)), jnp.uint8)
    return {"image": images, "index": jnp.arange(B), "label": jnp.arange(B) % 10}


def random_teacher():
    large = {"source": "random", "artifact": "", "networks.encoder.widths": (8, 24)}
    return student(**{f"teachers.large.{field}": value for field, value in large.items()})


def started(config):
    method = wiring.build(config, INFO)
    params, extra = method.init(KEY, example_batch(INFO))
    teacher = method.teachers["large"].init(jax.random.key(1), params, extra, {})
    return method, params, extra, teacher


def test_a_teacher_may_be_wider_than_the_student_and_stays_as_it_is():
    method, params, extra, teacher = started(random_teacher())
    assert set(teacher) == {"encoder", "classifier"}
    width = lambda tree: tree["classifier"]["linear0"]["kernel"].shape[0]
    assert (width(teacher), width(params)) == (24, 16)
    moved = method.teachers["large"].update(teacher, params, extra, jnp.int32(3))
    jax.tree.map(np.testing.assert_array_equal, moved, teacher)


def test_the_term_compares_the_students_logits_with_those_of_the_teachers_own_networks():
    """Against the encoders of evaluations, on views without randomness."""
    config = random_teacher()
    with config.unlocked():
        config.views = {"global": dict(count=1, size=16)}
        config.teachers.large.mode = "eval"
    method, params, extra, teacher = started(config)
    batch, seen = batch_of(), {"large": teacher}
    context = Context(params, seen, extra, batch, KEY, jnp.int32(0))
    read = {n: f(context)["logits"] for n, f in method.encoders.items()}
    assert set(read) == {"student", "large"}
    log_p, log_q = (jax.nn.log_softmax(read[n] / 4.0) for n in ("large", "student"))
    expected = 16 * (jnp.exp(log_p) * (log_p - log_q)).sum(-1).mean()
    pretext = wiring.Wiring(config, INFO)
    look = pretext._look(context, train=False)
    term = next(term for term in pretext.terms if term.name == "kd")
    found = wiring.terms.value_of(term, look.scene, look.context)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_no_gradient_reaches_the_teacher_and_its_statistics_stand_still():
    method, params, extra, teacher = started(random_teacher())
    loss = lambda teacher: method.losses["main"](
        Context(params, {"large": teacher}, extra, batch_of(), KEY, jnp.int32(0))
    )
    slope, aux = jax.grad(loss, has_aux=True)(teacher)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(slope))
    old, new = extra["batch_stats"]["large"], aux.extra["batch_stats"]["large"]
    jax.tree.map(np.testing.assert_array_equal, new, old)
    assert set(old) == {"encoder"}


def test_the_teacher_is_what_its_stage_left_with_its_statistics(tmp_path):
    config = experiments.small("kd", **{"train.steps": 3, "evals.knn": None})
    with config.unlocked():
        config.evals.linear = config.evals.fewshot = None
        config.report.samples = 0
    plan = stages.resolve(config, tmp_path)
    left = {}
    for stage in plan:
        program = stages.built(stage, left)
        if stage.name == "student":
            break
        left[stage.name] = stages.artifact(train.run_stage(stage, left, last=False).state)
    state = stages.started(program.init(), stage, left)
    same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
    trained = left["teacher"]
    same(state.teachers["large"], trained["params"])
    same(state.extra["batch_stats"]["large"], trained["extra"]["batch_stats"]["student"])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"teachers.large.rule": "ema"}, "teachers.large.rule: found 'ema' with source 'artifact'"),
        (
            {"teachers.large.source": "copy"},
            "teachers.large.rule: found 'frozen' with source 'copy'",
        ),
        ({"teachers.large.follows": ("encoder",)}, "teachers.large.follows: found ('encoder',)"),
        (
            {"teachers.large.networks.encoder": None},
            "teachers.large.networks.encoder: missing; known: classifier",
        ),
        (
            {"teachers.large.networks.encoder.widhts": (3,)},
            "teachers.large.networks.encoder.widhts: no such field",
        ),
        (
            {"teachers.large.networks.classifier.output": "scores"},
            "losses.kd.teacher: no output 'logits'",
        ),
        (
            {"teachers.large.networks.classifier.reads": "poled"},
            "no output 'poled'",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(changes, message):
    config = student(**changes)
    with pytest.raises(ConfigError) as error:
        method = wiring.build(config, INFO)
        jax.eval_shape(method.init, KEY, example_batch(INFO))
    assert message in str(error.value) and "\n" not in str(error.value)
