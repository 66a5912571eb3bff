"""Targets of masked prediction: pixels, gradients' directions, codes, colours; errors, devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxssl import targets
from jaxssl.config.errors import ConfigError
from jaxssl.targets import colour_bins, hog
from jaxssl.targets.pixels import patchify, unpatchify


def build(name, **fields):
    given = {k: fields.pop(k) for k in ("mean", "std") if k in fields}
    return targets.build({"name": name, **fields}, field="target", **given)


def images(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def test_patches_go_row_by_row_and_so_do_their_pixels():
    x = images(2, 6, 8, 3)
    found = np.asarray(build("pixels", patch=(3, 2)).fn(x))
    assert found.shape == (2, 8, 18)
    for row in range(2):
        for column in range(4):
            block = x[:, 3 * row : 3 * row + 3, 2 * column : 2 * column + 2]
            np.testing.assert_array_equal(found[:, 4 * row + column], block.reshape(2, -1))


def test_patches_of_volumes_go_by_depth_first():
    x = images(2, 4, 6, 8, 1)
    found = np.asarray(build("pixels", patch=(2, 3, 4)).fn(x))
    assert found.shape == (2, 8, 24)
    np.testing.assert_array_equal(found[:, 1], x[:, :2, :3, 4:].reshape(2, -1))
    np.testing.assert_array_equal(found[:, 2], x[:, :2, 3:, :4].reshape(2, -1))
    np.testing.assert_array_equal(found[:, 4], x[:, 2:, :3, :4].reshape(2, -1))


@pytest.mark.parametrize(
    ("shape", "patch"),
    [((4, 6, 3), 2), ((4, 6, 3), (4, 3)), ((4, 6, 8, 2), 2), ((4, 6, 8, 1), (4, 3, 2))],
)
def test_patches_put_together_are_the_image(shape, patch):
    x = images(2, *shape)
    np.testing.assert_array_equal(unpatchify(patchify(jnp.asarray(x), patch), patch, shape), x)


def test_hog_of_a_patch_has_108_numbers_and_a_flat_one_has_none():
    fn = jax.jit(build("hog").fn)
    flat = np.full((1, 32, 48, 3), 0.3, np.float32)
    assert fn(flat).shape == (1, 6, 108) and not np.any(fn(flat))
    noise = 1e-7 * images(1, 32, 48, 3)
    assert np.abs(fn(flat + noise)).max() < 0.1  # rounding errors are no directions
    found = np.asarray(fn(images(1, 32, 48, 3))).reshape(-1, 9)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, rtol=1e-5)


histograms = jax.jit(lambda x: hog.histograms(x, 8, 9))


def inner(degrees):
    """The histogram's bins of an image without borders: a cell amid 3 x 3 of a larger ramp."""
    y, x = np.mgrid[:24, :24].astype(np.float32)
    angle = np.deg2rad(degrees)
    ramp = (np.cos(angle) * x + np.sin(angle) * y)[None, ..., None]
    return np.asarray(histograms(ramp))[0, 1, 1, 0]


@pytest.mark.parametrize("degrees", [10, 30, 90, 170])
def test_a_direction_falls_into_its_bin_and_so_does_its_opposite(degrees):
    expected = np.eye(9)[(degrees - 10) // 20]
    np.testing.assert_allclose(inner(degrees), expected, atol=1e-3)
    np.testing.assert_allclose(inner(degrees + 180), expected, atol=1e-3)


def test_a_direction_between_two_bins_is_split_around_the_circle():
    a, b = inner(35), inner(0)
    np.testing.assert_allclose(a[1] / a[2], 3, rtol=1e-2)
    np.testing.assert_allclose([b[0], b[8]], np.sqrt(0.5), rtol=1e-3)
    assert np.count_nonzero(a > 1e-3) == np.count_nonzero(b > 1e-3) == 2


def test_hog_knows_each_patch_and_neither_brightness_nor_contrast():
    fn = jax.jit(build("hog", patch=8, cell=4).fn)
    x = images(1, 24, 24, 3)
    found = fn(x)
    assert found.shape == (1, 9, 2 * 2 * 3 * 9)
    np.testing.assert_allclose(fn(3 * x + 2), found, atol=1e-3)
    x[:, 18:22, 18:22] = 0  # within the last patch
    changed = np.abs(fn(x) - found).max(-1)[0] > 1e-3
    np.testing.assert_array_equal(changed, np.arange(9) == 8)


def test_codes_are_the_nearest_vectors():
    x = images(2, 4, 6, 3)
    vectors = images(7, 12, seed=1)
    target = build("codes", patch=2)
    found = target.fn(x, {"codebook": {"vectors": vectors}})
    patches = np.asarray(patchify(jnp.asarray(x), 2))
    distances = np.square(patches[:, :, None] - vectors).sum(-1)
    np.testing.assert_array_equal(found, distances.argmin(-1))
    assert found.dtype == jnp.int32 and target.teacher == "tokenizer"
    assert len(np.unique(found)) > 1


def test_lab_of_known_colours():
    rgb = jnp.array([[1, 0, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0], [0.5, 0.5, 0.5]], jnp.float32)
    expected = [[53.24, 80.09, 67.20], [32.30, 79.19, -107.86], [100, 0, 0], [0] * 3, [53.39, 0, 0]]
    np.testing.assert_allclose(colour_bins.lab(rgb), expected, atol=0.02)


def test_rgb_is_the_inverse_of_lab():
    rgb = jnp.asarray(images(500, 3))
    np.testing.assert_allclose(colour_bins.rgb(colour_bins.lab(rgb)), rgb, atol=1e-4)
    clipped = colour_bins.rgb(jnp.array([50.0, 200.0, 0.0]))
    np.testing.assert_allclose(clipped[:2], [1, 0], atol=1e-6)


def test_bins_are_those_that_colours_fall_into():
    bins = colour_bins.gamut(10.0)
    assert len(bins) == len(np.unique(bins, axis=0)) == 260 == build("colour_bins", patch=1).width
    ab = np.asarray(colour_bins.lab(jnp.asarray(images(500, 3))))[:, 1:]
    nearest = np.abs(ab[:, None] - bins).max(-1).min(-1)
    assert nearest.max() <= 5 + 1e-3
    assert (bins == 0).all(1).any() and not (np.abs(bins) > 115).any()


def test_colours_share_their_nearest_bins():
    x = images(2, 8, 12, 3)
    soft = build("colour_bins", patch=4)
    found = np.asarray(jax.jit(soft.fn)(x))
    assert found.shape == (2, 6, soft.width)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    assert ((found > 0).sum(-1) == 5).all()
    ab = np.asarray(colour_bins.lab(jnp.asarray(x)))[..., 1:]
    ab = ab.reshape(2, 2, 4, 3, 4, 2).mean((2, 4)).reshape(2, 6, 2)
    squared = np.square(ab[:, :, None] - colour_bins.gamut(10.0)).sum(-1)
    np.testing.assert_array_equal(found.argmax(-1), squared.argmin(-1))
    chosen = np.where(found > 0, np.exp(-squared / 50), 0)
    np.testing.assert_allclose(found, chosen / chosen.sum(-1, keepdims=True), atol=1e-4)
    hard = np.asarray(jax.jit(build("colour_bins", patch=4, neighbors=1).fn)(x))
    np.testing.assert_array_equal(hard, np.eye(soft.width)[squared.argmin(-1)])


def test_colours_are_those_before_normalising():
    x, mean, std = images(2, 4, 4, 3), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    plain = build("colour_bins", patch=2, spacing=20.0)
    other = build("colour_bins", patch=2, spacing=20.0, mean=mean, std=std)
    normalised = (x - np.float32(mean)) / np.float32(std)
    np.testing.assert_allclose(jax.jit(other.fn)(normalised), jax.jit(plain.fn)(x), atol=1e-4)


@pytest.mark.parametrize("name", ["pixels", "hog", "colour_bins"])
def test_eight_devices_give_what_one_does_and_no_gradient_flows(name):
    x = images(8, 16, 16, 3)
    fn = jax.jit(build(name, patch=8).fn)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        split = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
        np.testing.assert_allclose(fn(split), fn(x), atol=1e-6)
    assert not np.any(jax.grad(lambda x: (fn(x) ** 2).sum())(x))


X = np.zeros((1, 4, 4, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: build("pixel", patch=2), "target.name: found 'pixel'.*mean 'pixels'"),
        (lambda: build("pixels", size=2), "target.size: no such field"),
        (lambda: build("pixels"), "target.patch: missing"),
        (lambda: build("pixels", patch=0), "target.patch: found .*expected"),
        (lambda: build("pixels", patch=(1, 2, 3, 4)), "target.patch: found 4 sides, expected"),
        (lambda: build("pixels", patch=3).fn(X), "patch: found .*expected divisors"),
        (lambda: build("pixels", patch=(1, 2, 2)).fn(X), "patch: found 3 sides, expected 2"),
        (lambda: unpatchify(jnp.zeros((1, 4, 3)), 2, (4, 4, 3)), r"tokens: found .*\(1, 4, 12\)"),
        (lambda: build("hog", patch=12), "target.cell: found 8, expected a divisor"),
        (lambda: build("hog").fn(X), "patch: found images .*expected"),
        (lambda: build("codes", patch=2).fn(X, {"codebok": 1}), "param: found no 'codebook'.*mean"),
        (
            lambda: build("codes", patch=2, param="c").fn(X, {"c": jnp.ones((5, 7))}),
            r"param: found 'c' of shape \(5, 7\), expected \[K, 12\]",
        ),
        (lambda: build("colour_bins", patch=2, sigma=0), "target.sigma: found 0, expected"),
        (lambda: build("colour_bins", patch=2, neighbors=261), "neighbors: found 261, expected"),
        (lambda: build("colour_bins", patch=2).fn(X[..., :1]), "target: found images .*expected"),
        (lambda: build("colour_bins", patch=3).fn(X), "patch: found 3, expected a divisor"),
    ],
)
def test_errors_name_the_field(call, text):
    with pytest.raises(ConfigError, match=text) as error:
        call()
    assert "\n" not in str(error.value)
