"""OBoW: its loss from its parts, the order of a step, its vocabulary, what it refuses."""

import functools

import image_views
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from jaxssl import encoders, losses
from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import fold_name
from jaxssl.data.images import image_fields
from jaxssl.method import Context, Info
from jaxssl.methods import obow
from jaxssl.state import example_batch

INFO = Info(
    fields=image_fields((16, 16, 1)),
    num_samples=64,
    num_classes=10,
    steps=10,
    steps_per_epoch=8,
    global_batch=8,
)
KEY = jax.random.key(3)
NOISE = dict(size=16, noise=dict(sigma=0.2))
VIEWS = {
    "original": dict(count=1, size=16),
    "crop": dict(count=2, **NOISE),
    "patch": dict(count=1, size=8),
}


def config_of(**changes):
    """Two levels, 8 x 8 and 4 x 4, of a network without batch statistics."""
    small = {
        "train.global_batch": 8,
        "method_options.levels": (0, -1),
        "method_options.vocabulary_size": 24,
    }
    config = experiments.without_batch_norm(experiments.small("obow", **small | changes))
    with config.unlocked():
        config.views = VIEWS
    return config


def batch_of():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), np.uint8)
    return {"index": jnp.arange(8, dtype=jnp.int32), "image": jnp.asarray(pixels)}


def start(config):
    method = obow.build(config, INFO)
    params, extra = jax.jit(method.init)(KEY, example_batch(INFO))
    # A teacher of its own: at the start both are equal.
    moved = jax.tree.map(lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), params)
    return method, params, {"ema": {"encoder": moved["encoder"]}}, extra


def reference(config, params, seen, extra):
    """By group of views, the divergence; by level, mu; and the last classifier's weights."""
    options = config.method_options
    make = image_views.build(config.views, mean=config.data.mean, std=config.data.std)
    images = make(fold_name(KEY, "views"), batch_of())
    encoder = encoders.build(config.encoder.to_dict(), dtype=jnp.float32)
    teacher, original = {"params": seen["ema"]["encoder"]}, images["original"][:, 0]
    maps = encoder.apply(teacher, original, train=True, capture=("stages",))["stages"]
    generator = obow._generator(config, jnp.float32)
    each, distances = {"crop": [], "patch": []}, {}
    for level, stage in (("level0", maps[0]), ("level1", maps[-1])):
        rows = extra["vocabulary"][level]["rows"][0]
        d = losses.word_distances(stage.reshape(8, -1, stage.shape[-1]), rows)
        mu = distances[level] = 0.99 * 0.5 + 0.01 * d.min(-1).mean()
        bags = losses.bag_of_words(d, scale=mu, sharpness=options.sharpness)
        weights = generator.apply({"params": params[f"generator_{level}"]}, rows)
        for group in each:
            flat = images[group].reshape(-1, *images[group].shape[2:])
            y = encoder.apply({"params": params["encoder"]}, flat, train=True)["pooled"]
            y = y.reshape(8, -1, y.shape[-1])
            logits = options.kappa * jnp.einsum("bvd,kd->bvk", y, weights)
            each[group].append(losses.bag_divergence(logits, bags))
    return {group: sum(values) / 2 for group, values in each.items()}, distances, weights


def test_the_loss_uses_the_vocabulary_that_the_step_began_with():
    config = config_of()
    method, params, seen, extra = start(config)
    value, aux = jax.jit(method.losses["main"])(
        Context(params, seen, extra, batch_of(), KEY, jnp.int32(0))
    )

    expected, distances, weights = jax.jit(functools.partial(reference, config))(
        params, seen, extra
    )
    np.testing.assert_allclose(jnp.linalg.norm(weights, axis=-1), 1, rtol=1e-4)
    for level, mu in distances.items():
        np.testing.assert_allclose(aux.extra["distance"][level], mu, rtol=1e-4)
    for group, divergence in expected.items():
        np.testing.assert_allclose(aux.metrics[group], divergence, rtol=1e-4)
    np.testing.assert_allclose(value, sum(expected.values()), rtol=1e-4)  # groups are summed


def test_the_gradient_reaches_student_and_generators_but_no_word():
    method, params, seen, extra = start(config_of())

    words = {level: state["rows"] for level, state in extra["vocabulary"].items()}

    @jax.jit
    def grads(params, seen, words):
        def loss(params, seen, words):
            states = {n: {**extra["vocabulary"][n], "rows": rows} for n, rows in words.items()}
            given = {**extra, "vocabulary": states}
            return method.losses["main"](
                Context(params, seen, given, batch_of(), KEY, jnp.int32(0))
            )[0]

        return jax.grad(loss, (0, 1, 2))(params, seen, words)

    to_params, to_teacher, to_words = grads(params, seen, words)
    for network in ("encoder", "generator_level0", "generator_level1"):
        assert any(np.any(leaf) for leaf in jax.tree.leaves(to_params[network])), network
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((to_teacher, to_words)))


@pytest.mark.parametrize("vocabulary", ["queue", "frozen"])
def test_the_vocabulary_holds_the_last_words(vocabulary):
    method, params, seen, extra = start(config_of(**{"method_options.vocabulary": vocabulary}))
    loss = jax.jit(method.losses["main"])
    first, states = extra["vocabulary"], []
    for step in range(4):
        key = jax.random.fold_in(KEY, step)
        _, aux = loss(Context(params, seen, extra, batch_of(), key, jnp.int32(step)))
        extra = aux.extra
        states.append(extra["vocabulary"])
    for level in first:
        rows = [np.asarray(state[level]["rows"][0]) for state in (first, *states)]
        assert rows[0].min() == 0 and (rows[0] == 0).mean() == pytest.approx(0.5, abs=0.2)
        if vocabulary == "frozen":
            np.testing.assert_array_equal(rows[4], rows[0])
            continue
        # 24 words, 8 a step: the fourth step is where the first was.
        assert int(states[3][level]["at"]) == 8
        np.testing.assert_array_equal(rows[1][8:], rows[0][8:])
        np.testing.assert_array_equal(rows[3][:8], rows[1][:8])
        np.testing.assert_array_equal(rows[4][8:], rows[3][8:])
        assert not np.array_equal(rows[4][:8], rows[1][:8])


def test_the_teacher_keeps_statistics_of_its_own():
    config = experiments.small("obow", **{"train.global_batch": 8})
    method = obow.build(config, INFO._replace(global_batch=8))
    _, extra = jax.eval_shape(method.init, KEY, example_batch(INFO))
    assert set(extra["batch_stats"]) == {"student", "ema"}
    assert set(extra["batch_stats"]["ema"]) == {"encoder"}
    assert set(extra["batch_stats"]["student"]) == {"encoder", "generator_level0"}
    assert set(method.encoders) == {"student", "ema"}
    decay = experiments.load("obow").teachers.ema.decay
    assert tuple(decay) == ("cosine", 0.99, 1.0)


@pytest.mark.parametrize(
    "changes, text",
    [
        (
            {"method_options.vocabulary_size": 20},
            r"method_options\.vocabulary_size: found 20, expected a multiple of the 8",
        ),
        ({"method_options.vocabulary": "queu"}, "did you mean 'queue'"),
        ({"method_options.kapa": 1.0}, "did you mean 'kappa'"),
        ({"method_options.momentum": 2.0}, r"method_options\.momentum: found 2\.0"),
        ({"method_options.sharpness": -1.0}, r"method_options\.sharpness: found -1"),
        ({"method_options.levels": (2,)}, r"method_options\.levels: found 2, but .* 2 stages"),
        ({"method_options.border": 1}, r"method_options\.window: found 3, .* leaves 2 places"),
        ({"student.generator": None}, r"student\.generator: missing"),
        ({"student.generator.widths": (16, 8)}, r"student\.generator: found 8 outputs, .* 16"),
        ({"student.generater": dict(name="linear", width=1)}, "did you mean 'generator'"),
        ({"teachers.ema": None}, "teachers: found 0, expected one"),
        ({"teachers.ema.views": ("orignal",)}, "did you mean 'original'"),
        ({"teachers.ema.follows": ("generator",)}, r"teachers\.ema\.follows"),
        ({"losses.a": dict(fn="byol")}, r"losses\.a: 'obow' reads no losses"),
        ({"views.original.count": 2}, r"views\.original\.count: found 2, expected 1"),
    ],
)
def test_bad_parts_are_refused_in_one_line(changes, text):
    with pytest.raises(ConfigError, match=text) as error:
        obow.build(experiments.with_changes(config_of(), changes), INFO)
    assert "\n" not in str(error.value)
