"""Groups of views from a config: reproducible by sample and view, and strict about its fields."""

import math

import image_views
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from keyed_views import check_draws, check_eight_devices
from ml_collections import ConfigDict

from jaxssl import modalities
from jaxssl.config.errors import ConfigError
from jaxssl.modalities.image import pipeline
from jaxssl.modalities.image import plain as plain_view

EVERYTHING = {
    "global": {
        "count": 2,
        "size": 12,
        "crop": {"scale": (0.3, 1.0)},
        "flip": 0.5,
        "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1},
        "blur": {"probability": 0.5},
        "noise": {"sigma": 0.1},
    },
    "local": {
        "count": 1,
        "size": 6,
        "pad_crop": {"padding": 2},
        "affine": {"rotation": 10.0},
        "grayscale": 0.2,
        "solarize": {"probability": 0.2},
    },
}
DIGITS = {
    "glyph": {
        "count": 4,
        "size": 16,
        "affine": {
            "rotation": 12.0,
            "log_scale": (math.log(0.7), math.log(1.3)),
            "log_aspect": 0.15,
            "shear": 0.15,
            "shift": 0.08,
        },
        "elastic": {"grid": 4, "sigma": 0.04},
        "jitter": {"contrast": 0.3, "additive": 0.2},
        "blur": {"probability": 0.5, "sigma": (0.1, 1.0)},
        "noise": {"sigma": 0.1},
    }
}
CIFAR10 = {
    "global": {
        "count": 2,
        "size": 24,
        "crop": {"scale": (0.3, 1.0)},
        "flip": 0.5,
        "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "probability": 0.8},
        "grayscale": 0.1,
    }
}
_LEJEPA = {
    "flip": 0.5,
    "jitter": {
        "brightness": 0.4,
        "contrast": 0.4,
        "saturation": 0.2,
        "hue": 0.1,
        "probability": 0.8,
    },
    "grayscale": 0.2,
    "blur": {"probability": 0.5, "sigma": (0.1, 2.0)},
    "solarize": {"probability": 0.2, "threshold": 0.5},
}
LEJEPA = {
    "global": {"count": 2, "size": 224, "crop": {"scale": (0.3, 1.0)}, **_LEJEPA},
    "local": {"count": 6, "size": 98, "crop": {"scale": (0.05, 0.3)}, **_LEJEPA},
}
KEY = jax.random.key(3)


def batch_of(n: int, side: int = 16, channels: int = 3) -> dict[str, jax.Array]:
    pixels = np.random.default_rng(0).integers(0, 256, (n, side, side, channels))
    return {"image": jnp.asarray(pixels, jnp.uint8), "index": jnp.arange(n, dtype=jnp.int32) + 100}


def build(config: dict, mean=0.0, std=1.0, **options):
    return jax.jit(image_views.build(ConfigDict(config), mean=mean, std=std, **options))


def one(
    channels: int = 3, n: int = 3, side: int = 8, **transforms
) -> tuple[np.ndarray, np.ndarray]:
    """The view of one group with these transforms, and the evaluation view, both [B, h, w, c]."""
    batch = batch_of(n, side, channels)
    config = {"only": {"count": 1, "size": side, **transforms}}
    plain = plain_view(batch["image"], size=side, data={"mean": 0.0, "std": 1.0})
    return np.asarray(build(config)(KEY, batch)["only"][:, 0]), np.asarray(plain)


@pytest.fixture(scope="module")
def make_everything():
    return build(EVERYTHING)


def test_large_views_made_one_at_a_time_are_those_made_together(monkeypatch):
    """As a single CPU device makes them: with branches, and bands of weights for dense ones."""
    shared = _LEJEPA | {"vertical_flip": 0.5}
    config = {
        "cropped": {"count": 3, "size": 64, "crop": {"scale": (0.1, 0.4)}, **shared},
        "resized": {"count": 1, "size": 80, "crop": {"method": "bicubic"}, **shared},
        "whole": {"count": 1, "size": 64, "flip": 0.5, "grayscale": 0.2},
    }
    images = np.random.default_rng(0).integers(0, 256, (4, 90, 120, 3), np.uint8)
    batch = {"image": jnp.asarray(images), "index": jnp.arange(4)}

    def made():
        make = jax.jit(image_views.build(config, mean=0.5, std=0.25))
        return make(jax.random.key(0), batch), make.lower(jax.random.key(0), batch).as_text()

    alone, looped = made()
    monkeypatch.setattr(pipeline, "LARGE", 1000)
    together, plain = made()
    assert looped.count("stablehlo.case") > plain.count("stablehlo.case") == 0
    for name, found in alone.items():
        np.testing.assert_allclose(found, together[name], atol=2e-5)


def test_a_view_follows_its_sample_through_any_order_and_company(make_everything):
    batch = batch_of(8)
    first = make_everything(KEY, batch)
    order = np.array([5, 2, 7, 0, 1, 6, 4, 3])
    shuffled = make_everything(KEY, {n: v[order] for n, v in batch.items()})
    other = {n: v.at[4:].set(v[:4]) for n, v in batch.items()}
    mixed = make_everything(KEY, other)
    for group in EVERYTHING:
        assert np.array_equal(shuffled[group], first[group][order])
        assert np.array_equal(mixed[group][:4], first[group][:4])
        assert np.array_equal(mixed[group][4:], first[group][:4])


def test_views_differ_by_key_index_and_number(make_everything):
    check_draws(make_everything, KEY, batch_of(8), "image")


def test_eight_devices_make_the_views_of_one_without_communication(make_everything):
    check_eight_devices(make_everything, KEY, batch_of(8), atol=1e-6)


def test_adding_a_transform_leaves_the_draws_of_the_others():
    batch = batch_of(16)
    base = {"all": {"count": 2, "size": 12, "crop": {"scale": (0.3, 1.0)}, "flip": 0.5}}
    more = {"all": {**base["all"], "solarize": {"probability": 1.0, "threshold": 0.0}}}
    plain, inverted = (build(config)(KEY, batch)["all"] for config in (base, more))
    np.testing.assert_allclose(inverted, 1 - plain, atol=1e-6)


def test_numbers_run_over_the_groups_in_the_order_of_their_names():
    assert modalities.group_ids(ConfigDict(EVERYTHING)) == {"global": (0, 1), "local": (2,)}
    assert modalities.group_ids(LEJEPA) == {"global": (0, 1), "local": (2, 3, 4, 5, 6, 7)}
    reordered = dict(reversed(EVERYTHING.items()))
    assert modalities.group_ids(reordered) == modalities.group_ids(EVERYTHING)


@pytest.mark.parametrize(
    ("recipe", "shape", "group", "expected"),
    [
        (DIGITS, (8, 16, 1), "glyph", (8, 4, 16, 16, 1)),
        (CIFAR10, (8, 32, 3), "global", (8, 2, 24, 24, 3)),
    ],
)
def test_recipes_run_and_keep_the_content(recipe, shape, group, expected):
    # A smooth picture, so that a view resembles its own sample more than the others.
    n, side, channels = shape
    coarse = np.random.default_rng(1).random((n, 4, 4, channels), np.float32)
    smooth = jax.image.resize(coarse, (n, side, side, channels), "linear")
    batch = {"image": (255 * smooth).astype(jnp.uint8), "index": jnp.arange(n)}
    out = np.asarray(build(recipe)(KEY, batch)[group])
    assert out.shape == expected and out.min() >= 0 and out.max() <= 1
    size = expected[2]
    plain = plain_view(batch["image"], size=size, data={"mean": 0.0, "std": 1.0})

    def unit(x):
        flat = x.reshape(n, -1) - x.reshape(n, -1).mean(axis=1, keepdims=True)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    likeness = np.mean([unit(out[:, v]) @ unit(np.asarray(plain)).T for v in range(expected[1])], 0)
    assert np.diag(likeness).mean() > likeness[~np.eye(n, dtype=bool)].mean() + 0.2
    assert np.abs(out[:, 0] - out[:, 1]).mean() > 0.01


def test_the_headline_recipe_traces_to_two_resolutions():
    shapes = jax.eval_shape(build(LEJEPA), KEY, batch_of(2, 256))
    assert shapes["global"].shape == (2, 2, 224, 224, 3)
    assert shapes["local"].shape == (2, 6, 98, 98, 3)
    assert shapes["local"].dtype == jnp.float32


@pytest.mark.smoke
def test_transforms_of_zero_strength_change_nothing():
    got, plain = one(
        pad_crop={"padding": 0},
        flip=0.0,
        affine={},
        elastic={"sigma": 0.0},
        jitter={},
        grayscale=0.0,
        blur=0.0,
        solarize=0.0,
        noise={"sigma": 0.0},
    )
    np.testing.assert_allclose(got, plain, atol=1e-6)


def test_certain_transforms_always_apply():
    gray = np.array([0.2989, 0.587, 0.114])
    got, plain = one(flip=1.0, vertical_flip={"probability": 1.0}, grayscale=1.0)
    want = np.repeat((plain[:, ::-1, ::-1] @ gray)[..., None], 3, axis=-1)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_probabilities_are_met_independently_by_sample():
    batch = batch_of(1)
    batch = {"image": jnp.repeat(batch["image"], 400, axis=0), "index": jnp.arange(400)}
    config = {"only": {"count": 1, "size": 16, "flip": 0.3, "solarize": 0.6}}
    got = np.asarray(build(config)(KEY, batch)["only"][:, 0])
    plain = np.asarray(plain_view(batch["image"], size=16, data={"mean": 0.0, "std": 1.0}))
    inverted = np.where(plain >= 0.5, 1 - plain, plain)

    def same(a, b):
        return np.abs(a - b).max(axis=(1, 2, 3)) < 1e-6

    solarized = same(got, inverted) | same(got, inverted[:, :, ::-1])
    flipped = same(got, plain[:, :, ::-1]) | same(got, inverted[:, :, ::-1])
    assert abs(flipped.mean() - 0.3) < 0.1 and abs(solarized.mean() - 0.6) < 0.1
    assert abs((flipped & solarized).mean() - 0.18) < 0.08


def test_pad_crop_reaches_every_offset():
    side = 4
    batch = {
        "image": jnp.full((300, side, side, 1), 255, jnp.uint8).at[:, 1, 1].set(128),
        "index": jnp.arange(300),
    }
    config = {"only": {"count": 1, "size": side, "pad_crop": {"padding": 1}}}
    got = np.asarray(build(config)(KEY, batch)["only"][:, 0, ..., 0])
    seen = {tuple(np.argwhere(np.abs(g - 128 / 255) < 1e-3)[0].tolist()) for g in got}
    assert seen == {(i, j) for i in (0, 1, 2) for j in (0, 1, 2)}


def test_evaluation_view_normalises_and_resizes():
    image = batch_of(2, 8)["image"]
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
    same = plain_view(image, size=8, data={"mean": mean, "std": std})
    want = (np.asarray(image, np.float32) / 255 - mean) / std
    np.testing.assert_allclose(same, want, atol=1e-5)
    small = plain_view(image, size=4, data={"mean": mean, "std": std})
    want = jax.image.resize(jnp.asarray(want, jnp.float32), (2, 4, 4, 3), "linear", antialias=True)
    np.testing.assert_allclose(small, want, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xyz": {}}, "views.all.xyz: no such transform; known: affine, blur"),
        ({"jiter": {}}, "views.all.jiter: no such transform; did you mean 'jitter'?"),
        ({"jitter": {"contrst": 0.1}}, "views.all.jitter.contrst: .*did you mean 'contrast'?"),
        ({"jitter": 0.8}, "views.all.jitter: found 0.8, expected a dict"),
        ({"count": 0}, "views.all.count: found 0, expected a whole number >= 1"),
        ({"size": 0}, "views.all.size: found 0, expected a whole number >= 1"),
        ({"size": 8.0}, "views.all.size: found 8.0"),
        (
            {"flip": 1.5},
            r"views.all.flip.probability: found 1.5, expected a number in \[0.0, 1.0\]",
        ),
        ({"flip": True}, "views.all.flip: found True"),
        ({"crop": {"scale": (0.5, 0.2)}}, "views.all.crop.scale: found .*the lower end first"),
        ({"crop": {"scale": 0.5}}, "views.all.crop.scale: found 0.5, expected a pair"),
        ({"crop": {"method": "bicubik"}}, "views.all.crop.method: .*did you mean 'bicubic'?"),
        ({"jitter": {"hue": 0.7}}, "views.all.jitter.hue: found 0.7"),
        ({"blur": {"taps": 4}}, "views.all.blur.taps: found 4, expected an odd"),
        ({"elastic": {}}, "views.all.elastic.sigma: missing"),
        ({"crop": {}, "pad_crop": {}}, "views.all.pad_crop: found beside crop"),
        ({"affine": {"fill": "edge"}, "elastic": {"sigma": 0.1}}, "views.all.elastic.fill: found"),
    ],
)
def test_a_bad_config_is_refused_by_name(change, message):
    config = ConfigDict({"all": {"count": 2, "size": 8, **change}})
    with pytest.raises(ConfigError, match=message) as raised:
        image_views.build(config, mean=0.5, std=0.5)
    assert "\n" not in str(raised.value)


def test_missing_groups_and_sizes_are_refused():
    with pytest.raises(ConfigError, match="views: found no group"):
        image_views.build(ConfigDict(), mean=0.5, std=0.5)
    with pytest.raises(ConfigError, match=r"views\.a\.size: missing"):
        image_views.build({"a": {"count": 1}}, mean=0.5, std=0.5)
    with pytest.raises(ConfigError, match=r"views\.count: found 2, expected a dict"):
        image_views.build({"count": 2, "size": 8}, mean=0.5, std=0.5)


def test_a_transform_set_to_none_is_off():
    got, plain = one(grayscale=None, channels=1)
    assert np.array_equal(got, plain)


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ({"grayscale": 0.5}, "grayscale: found images of 1 channel"),
        ({"jitter": {"hue": 0.1}}, r"jitter\.hue: found images of 1 channel"),
        ({"jitter": {"saturation": 0.1}}, r"jitter\.saturation: found images of 1 channel"),
        ({"size": 32, "pad_crop": {"padding": 2}}, r"pad_crop\.padding: found 2, expected >= 12"),
        (
            {"pad_crop": {"padding": 9, "fill": "reflect"}},
            r"pad_crop\.padding: found 9, expected <",
        ),
        ({"blur": {"taps": 17}}, r"blur\.taps: found 17, expected < 16"),
    ],
)
def test_images_that_a_transform_cannot_take_are_refused(transforms, message):
    make = image_views.build({"a": {"count": 1, "size": 8, **transforms}}, mean=0.5, std=0.5)
    with pytest.raises(ConfigError, match=r"views\.a\." + message):
        make(KEY, batch_of(2, 8, 1))


def test_images_and_statistics_of_another_form_are_refused():
    batch = batch_of(2, 8)
    with pytest.raises(ConfigError, match="mean: found 2 values, expected 1 or 3"):
        plain_view(batch["image"], size=8, data={"mean": (0.5, 0.5), "std": 1.0})
    make = image_views.build({"a": {"count": 1, "size": 8}}, mean=0.5, std=0.5)
    with pytest.raises(ConfigError, match="image: found float32"):
        make(KEY, {**batch, "image": jnp.zeros((2, 8, 8, 3))})
