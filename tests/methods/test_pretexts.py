"""Rotation, jigsaw, relative location and colorization: what is told, and from what."""

import math

import image_views
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from jaxssl import encoders, heads, losses
from jaxssl.config.naming import fold_name
from jaxssl.data import load
from jaxssl.data.images import image_fields
from jaxssl.data.sets import coloured_digits, digits
from jaxssl.method import Context, Info
from jaxssl.program import find_family
from jaxssl.state import example_batch
from jaxssl.targets.colour_bins import gamut

B = 8
KEY = jax.random.key(3)
NAMES = ("rotation", "jigsaw", "relative_location", "colorization")
CHANCE = {"rotation": 4, "jigsaw": 24, "relative_location": 8}


def info_of(config):
    size = config.data.size
    return Info(
        fields=image_fields((size, size, len(config.data.mean))),
        num_samples=64,
        num_classes=10,
        steps=10,
        steps_per_epoch=8,
        global_batch=B,
    )


def batch_of(config):
    shape = (B, *info_of(config).fields["image"].shape)
    pixels = np.random.default_rng(0).integers(0, 196, shape).astype(np.uint8)
    return {"index": jnp.arange(B, dtype=jnp.int32), "image": jnp.asarray(pixels)}


def small(name):
    """The small config, with no transforms but those that make the task."""
    config = experiments.small(name, **{"train.global_batch": B})
    group = config.views["global"]
    kept = {k: group[k] for k in ("count", "size", "turns", "tiles") if k in group}
    with config.unlocked():
        config.views = {"global": kept}
    return config


def start(config):
    method = find_family(config.method).build(config, info_of(config))
    params, extra = jax.jit(method.init)(KEY, example_batch(info_of(config)))
    return method, params, extra


def encoded(config, params, extra):
    """The head, and what it reads: every view of every sample passes the encoder in one batch."""
    make = image_views.build(config.views, mean=config.data.mean, std=config.data.std)
    x = make(fold_name(KEY, "views"), batch_of(config))["global"]
    encoder = encoders.build(config.encoder.to_dict(), dtype=jnp.float32)
    stats = extra["batch_stats"]["student"]

    @jax.jit
    def apply(x):
        variables = {"params": params["encoder"], "batch_stats": stats["encoder"]}
        found, new = encoder.apply(
            variables, x.reshape(-1, *x.shape[2:]), train=True, mutable=["batch_stats"]
        )
        return found["pooled"].reshape(*x.shape[:2], -1), new["batch_stats"]

    (name,) = config.student
    fields = config.student[name].to_dict()
    fields = {k: v for k, v in fields.items() if k not in ("reads", "output")}
    head = heads.build(fields, dtype=jnp.float32, field="head")
    variables = {"params": params[name]}
    if name in stats:
        variables["batch_stats"] = stats[name]

    @jax.jit
    def read(x, **given):
        return head.apply(variables, x, train=True, mutable=["batch_stats"], **given)[0]

    return read, *apply(x)


def rotation(config, read, pooled):
    return losses.view_index(read(pooled).swapaxes(0, 1))


def jigsaw(config, read, pooled):
    # One permutation a sample: by the step, its index and its first view.
    own = fold_name(KEY, "masks/order")

    @jax.vmap
    def draw(index):
        key = fold_name(jax.random.fold_in(jax.random.fold_in(own, index), 0), "order")
        return jax.random.randint(key, (), 0, 24)

    order = jax.jit(draw)(jnp.arange(B))
    assert len(set(order.tolist())) > 3
    return losses.label_smoothing_cross_entropy(read(pooled, order=order), order)


def relative_location(config, read, pooled):
    return losses.relative_location(read(pooled))


EXPECTED = {"rotation": rotation, "jigsaw": jigsaw, "relative_location": relative_location}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_loss_is_that_of_all_views_in_one_batch(name):
    config = small(name)
    method, params, extra = start(config)
    loss = jax.jit(method.losses["main"])
    value, aux = loss(Context(params, {}, extra, batch_of(config), KEY, jnp.int32(0)))
    read, pooled, stats = encoded(config, params, extra)
    np.testing.assert_allclose(value, EXPECTED[name](config, read, pooled), rtol=1e-4)
    # Views by themselves would be told by their statistics.
    found = aux.extra["batch_stats"]["student"]["encoder"]["norm0"]["mean"]
    np.testing.assert_allclose(found, stats["norm0"]["mean"], rtol=1e-4, atol=1e-6)

    # A head that says the same of everything is right by chance.
    (head,) = config.student
    blind = {**params, head: jax.tree.map(jnp.zeros_like, params[head])}
    chance, _ = loss(Context(blind, {}, extra, batch_of(config), KEY, jnp.int32(0)))
    np.testing.assert_allclose(chance, math.log(CHANCE[name]), rtol=1e-6)


def test_colours_are_told_from_the_luminance_alone():
    config = small("colorization")
    with config.unlocked():
        # A term that depends on nothing but what the student sees.
        config.losses.seen = dict(fn="koleo", student="pooled", pairs="single")
    method, params, extra = start(config)
    loss = jax.jit(method.losses["main"])
    batch = batch_of(config)
    # One luminance, to a fortieth of a step of 8 bits: 0.587 30 = 0.2989 59.
    green, red = (
        {**batch, "image": batch["image"] + jnp.array(more, jnp.uint8)}
        for more in ((0, 30, 0), (59, 0, 0))
    )
    one, other = (
        loss(Context(params, {}, extra, b, KEY, jnp.int32(0)))[1].metrics for b in (green, red)
    )
    np.testing.assert_allclose(one["seen"], other["seen"], rtol=1e-3)
    assert abs(one["colours"] - other["colours"]) > 1e-3


def test_colorization_has_a_class_for_every_bin():
    for preset in experiments.presets("colorization"):
        config = experiments.load("colorization", preset)
        assert config.student.classifier.width == len(gamut(10.0))


def test_the_hue_of_a_digit_turns_with_its_strokes():
    source = load({"source": "coloured_digits", "size": 16}, "test")
    plain = digits.open({"size": 16}, "test")
    np.testing.assert_array_equal(source.labels, plain.labels)
    assert source[0]["image"].shape == (16, 16, 3)
    assert (source.images[plain.images[..., 0] == 0] == 0).all()  # paper has no ink
    # A quarter turn takes a hue to its opposite: each channel to what is left of the grey value.
    turned = coloured_digits.colour(np.rot90(plain.images, 1, (1, 2)))
    sums = turned.astype(int) + np.rot90(source.images, 1, (1, 2))
    grey = np.rot90(plain.images, 1, (1, 2)).astype(int)
    assert np.mean(np.abs(sums - grey) <= 1) > 0.99
    # No colour is everywhere: the bins that the ink falls into are many.
    ink = source.images[plain.images[..., 0] > 128] / 255
    assert (ink.std(0) > 0.1).all()
