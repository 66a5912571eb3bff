"""The low-frequency crop of a view, and the strength of transforms, as curricula."""

import image_views
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from keyed_views import check_eight_devices
from ml_collections import ConfigDict

from jaxssl.config.errors import ConfigError
from jaxssl.modalities.image import frequency
from jaxssl.modalities.image.frequency import low_frequency_crop

KEY = jax.random.key(0)


def noise(height=8, width=8, channels=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((channels, height, width)).astype(np.float32)


def crop(x, size):
    return np.asarray(low_frequency_crop(jnp.asarray(x), size))


def with_fourier(x, size):
    """The definition, with transforms in float64."""
    kept = np.r_[: size // 2, -(size // 2) : 0]
    block = np.fft.fft2(x.astype(np.float64))[:, kept][..., kept]
    scale = size * size / (x.shape[1] * x.shape[2])
    return np.fft.ifft2(scale * block).real


@pytest.mark.parametrize(("height", "width", "size"), [(8, 8, 4), (8, 8, 6), (9, 7, 6), (6, 8, 2)])
def test_it_is_the_crop_of_the_fourier_transform(height, width, size):
    x = noise(height, width)
    np.testing.assert_allclose(crop(x, size), with_fourier(x, size), atol=1e-6)
    stack = np.stack([x, x + 1])
    np.testing.assert_allclose(crop(stack, size), [crop(one, size) for one in stack], atol=1e-6)


@pytest.mark.parametrize("size", [2, 4, 6, 8])
def test_a_constant_and_the_mean_stay(size):
    np.testing.assert_allclose(crop(np.full((8, 8), 0.3), size), 0.3, atol=1e-6)
    x = noise()
    np.testing.assert_allclose(crop(x, size).mean((1, 2)), x.mean((1, 2)), atol=1e-6)


def test_the_whole_size_is_the_identity():
    x = noise()
    np.testing.assert_allclose(crop(x, 8), x, atol=1e-6)


@pytest.mark.parametrize(
    ("waves", "expected"),
    [(1, [1, 0, -1, 0]), (2, [0.5, -0.5, 0.5, -0.5]), (3, [0, 0, 0, 0])],
)
@pytest.mark.parametrize("axis", [0, 1])
def test_cosines_of_eight_pixels_in_four(waves, expected, axis):
    line = np.cos(2 * np.pi * waves * np.arange(8) / 8)
    image = np.broadcast_to(line[:, None] if axis == 0 else line, (8, 8))
    found = np.moveaxis(crop(image, 4), axis, 0)
    np.testing.assert_allclose(found, np.tile(np.array(expected)[:, None], 4), atol=1e-6)


def test_it_is_linear():
    x, y = noise(seed=1), noise(seed=2)
    np.testing.assert_allclose(crop(2 * x - 3 * y, 4), 2 * crop(x, 4) - 3 * crop(y, 4), atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_shift_of_two_pixels_becomes_one_of_one_pixel(axis):
    x = noise()
    np.testing.assert_allclose(
        crop(np.roll(x, 2, axis + 1), 4), np.roll(crop(x, 4), 1, axis + 1), atol=1e-6
    )


def test_the_published_stages_need_two_thirds_of_the_pixels():
    sizes = [160, 160, 160, 192, 224]
    sides = [frequency.side({"size": 224, "low_frequency": {"size": size}}) for size in sizes]
    assert sides == sizes and frequency.side({"size": 224, "low_frequency": None}) == 224
    assert np.mean([(s / 224) ** 2 for s in sides]) == pytest.approx(0.653061, abs=1e-6)


def batch_of(n):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3))
    return {"image": jnp.asarray(pixels, jnp.uint8), "index": jnp.arange(n, dtype=jnp.int32)}


def build(mean=0.4, std=0.2, **transforms):
    config = ConfigDict({"global": {"count": 2, "size": 8, **transforms}})
    return jax.jit(image_views.build(config, mean=mean, std=std))


def test_a_view_is_the_crop_of_the_normalised_one():
    batch = batch_of(3)
    others = {"flip": 0.5, "noise": {"sigma": 0.2}}
    whole = np.asarray(build(**others)(KEY, batch)["global"])
    small = build(**others, low_frequency={"size": 4})(KEY, batch)["global"]
    assert small.shape == (3, 2, 4, 4, 3)
    want = np.moveaxis(crop(np.moveaxis(whole, -1, -3), 4), -3, -1)
    np.testing.assert_allclose(small, want, atol=1e-5)


def test_a_clip_is_cropped_frame_by_frame():
    batch, make = batch_of(2), build(low_frequency={"size": 4})
    clip = {**batch, "image": jnp.stack([batch["image"], 255 - batch["image"]], axis=1)}
    found = make(KEY, clip)["global"]
    assert found.shape == (2, 2, 2, 4, 4, 3)
    np.testing.assert_allclose(found[:, :, 0], make(KEY, batch)["global"], atol=1e-6)


def test_eight_devices_crop_without_communication():
    check_eight_devices(build(low_frequency={"size": 4}), KEY, batch_of(8), atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"size": 5}, r"low_frequency\.size: found 5, expected an even number from 2 to 8"),
        ({"size": 10}, r"low_frequency\.size: found 10, expected an even number from 2 to 8"),
        ({}, r"low_frequency\.size: found 0, expected an even number"),
        ({"size": 4.5}, r"low_frequency\.size: found 4\.5, expected a whole number"),
        ({"sizes": 4}, r"low_frequency\.sizes: no such field; did you mean 'size'"),
        (4, r"low_frequency: found 4, expected a dict with fields size"),
    ],
)
def test_bad_sizes_are_refused_in_one_line(fields, line):
    with pytest.raises(ConfigError, match=rf"^views\.global\.{line}") as caught:
        jax.eval_shape(build(low_frequency=fields), KEY, batch_of(2))
    assert "\n" not in str(caught.value)
