"""Prediction without negatives, index labels, a frozen random teacher: what their configs do."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from jaxssl.config.errors import ConfigError
from jaxssl.config.load import merged
from jaxssl.config.naming import named_leaves
from jaxssl.data.images import image_fields
from jaxssl.method import Context, Info
from jaxssl.program import Program, find_family
from jaxssl.state import example_batch

INFO = Info(
    fields=image_fields((16, 16, 1)),
    num_samples=256,
    num_classes=10,
    steps=10,
    steps_per_epoch=16,
    global_batch=16,
)
KEY = jax.random.key(3)


def config_of(name, changes=(), **sections):
    """The small config, with views that compile fast."""
    config = experiments.small(name, **{"train.global_batch": 16} | dict(changes))
    with config.unlocked():
        for group in config.views:
            config.views[group] = dict(count=config.views[group].count, size=16, flip=0.5)
        for section, entries in sections.items():
            config[section].update(entries)
    return config


def batch():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 1), np.uint8)
    index = jnp.arange(16, dtype=jnp.int32)
    return {"index": 3 * index, "image": jnp.asarray(pixels), "label": index % 10}


def start(config):
    """(method, params, what losses see of the teachers, extra)."""
    method = find_family(config.method).build(config, INFO)

    def init(key):
        params, extra = method.init(key, example_batch(INFO))
        return (
            params,
            {n: t.init(KEY, params, extra, {}) for n, t in method.teachers.items()},
            extra,
        )

    return method, *jax.jit(init)(KEY)


def gradients(config, params=None):
    """(value, Aux, gradient by params, gradient by the teachers)."""
    method, first, seen, extra = start(config)
    params = first if params is None else params

    def loss(params, seen):
        return method.losses["main"](Context(params, seen, extra, batch(), KEY, jnp.int32(0)))

    both = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (value, aux), (by_params, by_seen) = both(params, seen)
    return value, aux, by_params, by_seen


def size(tree):
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def test_byol_with_sigreg_is_a_config_edit():
    sigreg = dict(fn="sigreg", student="projection", pairs="single", num_slices=16, weight=0.05)
    config = config_of("byol", losses={"sigreg": sigreg})
    program = Program(config, devices=jax.devices()[:1])
    state, batches, log = program.init(), program.batches(0), []
    before = jax.tree.map(np.array, state.teachers["ema"])
    for _ in range(12):
        state, metrics = program.step(state, next(batches))
        log.append({k: float(v) for k, v in metrics.items()})
    for m in log:
        assert m["loss"] == pytest.approx(2 * m["prediction"] + 0.05 * m["sigreg"], rel=1e-5)
    assert np.mean([m["loss"] for m in log[-4:]]) < np.mean([m["loss"] for m in log[:4]])
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before, state.teachers["ema"])
    assert size(moved["encoder"]) > 0 and size(moved["projector"]) > 0


def test_byols_teacher_gets_no_gradient_and_everything_else_does():
    _, _, by_params, by_seen = gradients(config_of("byol"))
    assert set(by_params) == {"encoder", "projector", "predictor"}
    assert all(size(by_params[network]) > 0 for network in by_params)
    assert set(by_seen["ema"]) == {"encoder", "projector"} and size(by_seen) == 0


def test_unisiam_without_uniformity_is_simsiam():
    heads = {"batch_statistics": "view"}
    simsiam = config_of("simsiam")
    without = config_of("unisiam", {"losses.uniformity": None}, method_options=heads)
    with without.unlocked():
        without.student = simsiam.student
    assert float(gradients(without)[0]) == float(gradients(simsiam)[0])


def test_diet_tells_every_sample_apart_by_its_index():
    config = config_of("diet")
    _, params, _, _ = start(config)
    ((name, weights),) = named_leaves(params["classifier"]).items()
    assert name.endswith("kernel") and weights.shape == (16, INFO.num_samples)
    flat = {**params, "classifier": jax.tree.map(jnp.zeros_like, params["classifier"])}
    value, _, by_params, _ = gradients(config, flat)
    assert float(value) == pytest.approx(np.log(INFO.num_samples), rel=1e-6)
    # Only the rows of the batch's own samples are pulled up; the batch holds every third index.
    pull = np.asarray(named_leaves(by_params["classifier"])[name]).sum(0)
    np.testing.assert_array_equal(np.flatnonzero(pull < 0), np.asarray(batch()["index"]))


def test_opera_hides_the_class_head_from_the_contrast():
    config = config_of("opera")
    contrast = merged(config, {"losses.classes.weight": 0.0})
    classes = merged(config, {"losses.contrast.weight": 0.0})
    _, _, by_params, by_seen = gradients(contrast)
    assert size(by_params["classifier"]) == 0 < size(by_params["predictor"])
    assert size(by_seen) == 0
    _, _, by_params, _ = gradients(classes)
    assert all(size(by_params[network]) > 0 for network in by_params)


@functools.cache
def random_teacher(alpha):
    return start(config_of("random_teacher", {"method_options.alpha": alpha}))


def test_student_starts_between_the_teacher_and_a_fresh_draw():
    _, at_teacher, seen, extra = random_teacher(0.0)
    _, fresh, same, _ = random_teacher(1.0)
    _, between, _, _ = random_teacher(0.25)
    compare = functools.partial(np.testing.assert_allclose, atol=1e-7)
    jax.tree.map(np.testing.assert_array_equal, seen["random"], same["random"])
    jax.tree.map(np.testing.assert_array_equal, seen["random"], at_teacher)
    expected = jax.tree.map(lambda t, f: (0.75 * t + 0.25 * f) / 0.625**0.5, at_teacher, fresh)
    jax.tree.map(compare, between, expected)
    assert extra["teacher_key"].dtype == jnp.uint32
    for name, weights in named_leaves(between).items():
        if weights.size > 4096:
            other = named_leaves(fresh)[name]
            correlation = np.corrcoef(np.ravel(other), np.ravel(named_leaves(at_teacher)[name]))
            assert abs(correlation[0, 1]) < 0.1
            assert float(weights.std() / other.std()) == pytest.approx(1, abs=0.05)


def test_at_the_teacher_nothing_is_learnt_and_near_it_something():
    value, _, by_params, _ = gradients(config_of("random_teacher", {"method_options.alpha": 0.0}))
    assert abs(float(value)) < 1e-7 and size(by_params) < 1e-6
    value, aux, by_params, by_seen = gradients(config_of("random_teacher"))
    assert float(value) > 1e-4 and size(by_params) > 1e-4 and size(by_seen) == 0
    np.testing.assert_array_equal(aux.extra["teacher_key"], random_teacher(0.0)[3]["teacher_key"])


def test_the_random_teacher_never_moves():
    method, params, seen, extra = random_teacher(0.25)
    after = method.teachers["random"].update(seen["random"], params, extra, 7)
    jax.tree.map(np.testing.assert_array_equal, after, seen["random"])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method_options.alpha": 1.5}, "method_options.alpha: found 1.5, expected a number from"),
        ({"method_options.alpha": ("linear", 0.0, 1.0)}, "alpha: found ('linear', 0.0, 1.0)"),
        ({"teachers.random.source": "copy"}, "teachers.random: expected rule 'frozen' with source"),
        ({"method_options.alhpa": 0.5}, "method_options.alhpa: unknown"),
    ],
)
def test_what_a_random_teacher_cannot_be_is_named(changes, message):
    config = config_of("random_teacher", changes)
    with pytest.raises(ConfigError, match=re.escape(message)):
        find_family(config.method).build(config, INFO)
