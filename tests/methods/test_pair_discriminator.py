"""Pair discriminator: its pairs, its landmarks, its features, and what it refuses."""

import functools

import image_views
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from jaxssl import heads, losses
from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import fold_name
from jaxssl.data.images import image_fields
from jaxssl.method import Context, Info
from jaxssl.methods import halves, pair_discriminator
from jaxssl.state import example_batch

B, M = 8, 12
INFO = Info(
    fields=image_fields((16, 16, 1)),
    num_samples=64,
    num_classes=10,
    steps=10,
    steps_per_epoch=8,
    global_batch=B,
)
KEY = jax.random.key(3)


def config_of(**changes):
    changes = {"train.global_batch": B, "method_options.landmarks": M} | changes
    config = experiments.small("landmark", **changes)
    with config.unlocked():
        config.views = {"global": dict(count=2, size=16, noise=dict(sigma=0.2))}
    return experiments.without_batch_norm(config)


def batch_of(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (B, 16, 16, 1), np.uint8)
    return {"index": jnp.arange(B, dtype=jnp.int32), "image": jnp.asarray(pixels)}


@functools.lru_cache(maxsize=1)
def started():
    config = config_of()
    method = pair_discriminator.build(config, INFO)
    params, extra = jax.jit(method.init)(KEY, example_batch(INFO))
    # Parts that would be a constant at first are moved, so that every pair has its own logit.
    moved = lambda x: x + 0.1 * np.random.default_rng(x.size).standard_normal(x.shape, np.float32)
    return config, method, jax.tree.map(moved, params), extra, jax.jit(method.losses["main"])


def logits_of(config, params, x, z):
    """Logits [N] of pairs of halves, each network applied by itself."""
    from jaxssl import encoders

    encoder = encoders.build(config.encoder.to_dict(), dtype=jnp.float32)
    pooled = [
        encoder.apply({"params": params[name]}, half, train=False)["pooled"]
        for name, half in (("encoder", x), ("partner", z))
    ]
    head = heads.build(config.student.discriminator.to_dict(), dtype=jnp.float32)
    both = jnp.concatenate(pooled, -1)
    return head.apply({"params": params["discriminator"]}, both, train=False)[..., 0]


def test_broken_pairs_are_of_the_next_sample_and_never_of_the_same():
    config, _, params, extra, loss = started()
    value, _ = loss(Context(params, {}, extra, batch_of(), KEY, jnp.int32(0)))
    make = image_views.build(config.views, mean=config.data.mean, std=config.data.std)
    images = make(fold_name(KEY, "views"), batch_of())["global"]
    logits = {"true": [], "broken": []}
    for v in range(2):
        x, z = images[:, v, :, :8], images[:, v, :, 8:]
        logits["true"].append(logits_of(config, params, x, z))
        other = z[(np.arange(B) - 1) % B]
        logits["broken"].append(logits_of(config, params, x, other))
    true, broken = (jnp.concatenate(logits[name]) for name in ("true", "broken"))
    expected = (jnp.log1p(jnp.exp(-true)).mean() + jnp.log1p(jnp.exp(broken)).mean()) / 2
    assert float(jnp.abs(true - broken).max()) > 1e-3
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def evaluated(config, images, half):
    return halves.evaluated(config, INFO, half)({"image": images})


def test_landmarks_are_the_first_samples_seen_and_stay():
    config, _, params, extra, loss = started()
    assert not extra["landmarks"].any()
    for step in range(4):
        _, aux = loss(Context(params, {}, extra, batch_of(step), KEY, jnp.int32(step)))
        extra = aux.extra
        if step == 1:
            filled = extra["landmarks"]
    first = jnp.concatenate([batch_of(0)["image"], batch_of(1)["image"]])[:M]
    np.testing.assert_array_equal(filled, evaluated(config, first, "right"))
    np.testing.assert_array_equal(extra["landmarks"], filled)


def test_features_are_the_ratios_of_the_half_to_the_landmarks():
    config, method, params, extra, _ = started()
    marks = evaluated(config, jnp.concatenate([batch_of(1)["image"]] * 2)[:M], "right")
    extra = {**extra, "landmarks": marks}
    encode = jax.jit(method.encoders["student"])
    out = encode(Context(params, {}, extra, batch_of(), KEY, 0))
    assert out["pooled"].shape == (B, M)
    x = evaluated(config, batch_of()["image"], "left")
    for place in (0, 5):
        one = jnp.broadcast_to(marks[place], x.shape)
        logits = logits_of(config, params, x, one)
        np.testing.assert_allclose(out["logits"][:, place], logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out["pooled"][:, place], jnp.exp(logits), rtol=1e-4)
    # Nothing of the other half is seen.
    image = batch_of()["image"]
    blank = encode(Context(params, {}, extra, {"image": image.at[:, :, 8:].set(0)}, KEY, 0))
    np.testing.assert_array_equal(out["pooled"], blank["pooled"])
    assert (
        np.abs(
            out["pooled"] - encode(Context(params, {}, extra, batch_of(9), KEY, 0))["pooled"]
        ).max()
        > 1e-3
    )


def test_the_ratio_of_a_certain_pair_is_bounded():
    found = losses.density_ratio(jnp.array([-900.0, 0.0, 900.0]), limit=4.0)
    np.testing.assert_allclose(found, [np.exp(-4), 1, np.exp(4)], rtol=1e-6)
    slope = jax.grad(losses.pair_error)(jnp.array([-900.0]), jnp.array([900.0]))
    assert float(slope[0]) == -0.5  # half of the pairs, and no overflow


def test_the_held_out_error_is_beside_that_of_chance():
    _, method, params, extra, _ = started()
    found = jax.jit(method.readouts["pretext"])(
        Context(params, {}, extra, batch_of(), KEY, jnp.int32(0))
    )["pairs"]
    assert float(found[1]) == pytest.approx(np.log(2)) and 0 < float(found[0]) < 5
    blind = {**params, "discriminator": jax.tree.map(jnp.zeros_like, params["discriminator"])}
    found = jax.jit(method.readouts["pretext"])(
        Context(blind, {}, extra, batch_of(), KEY, jnp.int32(0))
    )["pairs"]
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_halves_make_the_whole_and_share_no_pixel():
    x = jnp.arange(24).reshape(1, 4, 6, 1)
    for half, axis in (("left", 2), ("top", 1)):
        parts = [halves.cut(x, half), halves.cut(x, halves.opposite(half))]
        np.testing.assert_array_equal(jnp.concatenate(parts, axis), x)
        assert halves.opposite(halves.opposite(half)) == half
    with pytest.raises(ConfigError, match="side of 3 pixels"):
        halves.cut(jnp.zeros((1, 3, 4, 1)), "top")


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"method_options.half": "lef"}, r"method_options\.half: found 'lef'.*mean 'left'"),
        ({"method_options.landmark": 4}, "did you mean 'landmarks'"),
        ({"method_options.landmarks": 65}, "found 65, expected at most the 64 samples"),
        ({"method_options.landmarks": 0}, r"method_options\.landmarks: found \(0,\)"),
        ({"method_options.limit": 0.0}, r"method_options\.limit: found 0\.0"),
        ({"student.discriminator": None}, r"student\.discriminator: missing"),
        ({"student.discriminator.widths": (16, 2)}, "found 2 outputs, expected 1"),
        ({"student.projector": dict(name="linear", width=1)}, r"student\.projector: no such head"),
        ({"losses.a": dict(fn="byol")}, r"losses\.a: 'pair_discriminator' reads no losses"),
        ({"views.local": dict(count=1, size=8)}, r"views: found the groups"),
    ],
)
def test_bad_parts_are_refused_in_one_line(changes, text):
    config = experiments.with_changes(config_of(), changes)
    with pytest.raises(ConfigError, match=text) as error:
        pair_discriminator.build(config, INFO)
    assert "\n" not in str(error.value)
