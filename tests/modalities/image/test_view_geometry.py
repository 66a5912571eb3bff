"""Crops, resizing, flips and warps against PIL, SciPy and hand calculation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxssl.modalities.image import geometry

# One compilation a case, instead of one for each operation.
resized_crop = jax.jit(geometry.resized_crop, static_argnums=(2, 3))
shifted_crop = jax.jit(geometry.shifted_crop, static_argnums=(3, 4))
resize_weights = jax.jit(geometry.resize_weights, static_argnums=(2, 3, 4))
affine_inverse = jax.jit(geometry.affine_inverse)
elastic_displacement = jax.jit(geometry.elastic_displacement, static_argnums=1)
warp = jax.jit(geometry.warp, static_argnames="fill")


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((channels, height, width), np.float32)


def pil_resize(image: np.ndarray, box: tuple[int, ...], size: int, method: int) -> np.ndarray:
    top, left, height, width = box
    cut = image[:, top : top + height, left : left + width]
    planes = [np.asarray(Image.fromarray(plane).resize((size, size), method)) for plane in cut]
    return np.stack(planes)


@pytest.mark.parametrize(
    ("box", "size"), [((0, 0, 20, 30), 12), ((3, 7, 11, 5), 16), ((5, 0, 9, 30), 9)]
)
@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_resized_crop_equals_pil_on_the_cut_out_box(box, size, method):
    image = picture(20, 30)
    expected = pil_resize(image, box, size, getattr(Image.Resampling, method.upper()))
    got = resized_crop(jnp.asarray(image), box, size, method)
    np.testing.assert_allclose(got, np.clip(expected, 0, 1), atol=2e-6)


def test_resize_is_the_identity_at_the_same_size_and_equals_jax_otherwise():
    image = jnp.asarray(picture(12, 12))
    assert np.array_equal(geometry.resize(image, 12), image)
    assert np.array_equal(resized_crop(image, (0, 0, 12, 12), 12), image)
    expected = jax.image.resize(image, (3, 5, 5), "linear", antialias=True)
    np.testing.assert_allclose(geometry.resize(image, 5), expected, atol=1e-6)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_weights_sum_to_one_and_stay_inside_the_box(method):
    for start, extent, size in [(0, 17, 9), (3, 8, 24), (16, 1, 4)]:
        weights = np.asarray(resize_weights(start, extent, 17, size, method))
        np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)
        outside = np.ones(17, bool)
        outside[start : start + extent] = False
        assert not weights[:, outside].any()


def boxes(height: int, width: int, scale, ratio, n: int = 4000) -> np.ndarray:
    keys = jax.random.split(jax.random.key(1), n)
    sample = jax.jit(
        jax.vmap(lambda k: jnp.stack(geometry.sample_crop_box(k, height, width, scale, ratio)))
    )
    return np.asarray(sample(keys))


def reference_boxes(height: int, width: int, scale, ratio, n: int = 4000) -> np.ndarray:
    """The published algorithm, one box at a time with NumPy's generator."""
    rng, out = np.random.default_rng(2), []
    while len(out) < n:
        for _ in range(10):
            area = height * width * rng.uniform(*scale)
            aspect = np.exp(rng.uniform(*np.log(ratio)))
            w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                out.append((rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w))
                break
        else:
            raise AssertionError("these settings need no fallback")
    return np.array(out)


def test_crop_boxes_have_the_distribution_of_the_reference():
    scale, ratio = (0.2, 0.9), (0.6, 1.5)
    got, want = boxes(40, 50, scale, ratio), reference_boxes(40, 50, scale, ratio)
    top, left, h, w = got.T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + h <= 40).all() and (left + w <= 50).all()
    for feature in (
        lambda b: b[:, 2] * b[:, 3] / 2000,
        lambda b: np.log(b[:, 3] / b[:, 2]),
        lambda b: b[:, 0] / 40,
        lambda b: b[:, 1] / 50,
    ):
        a, b = feature(got), feature(want)
        # Means and spreads differ by less than 5 standard errors of 4000 draws.
        assert abs(a.mean() - b.mean()) < 5 * b.std() * np.sqrt(2 / 4000)
        assert abs(a.std() / b.std() - 1) < 0.08
    assert len(np.unique(top)) > 10 and len(np.unique(left)) > 10


def test_small_crops_reach_both_ends_of_the_image():
    top, left, h, w = boxes(8, 8, (0.2, 0.3), (0.9, 1.1)).T
    assert top.min() == 0 and (top + h).max() == 8 and left.min() == 0 and (left + w).max() == 8


@pytest.mark.parametrize(
    ("height", "width", "ratio", "expected"),
    [
        (10, 100, (3 / 4, 4 / 3), (0, 43, 10, 13)),
        (100, 10, (3 / 4, 4 / 3), (43, 0, 13, 10)),
        (10, 12, (1.2, 1.2), (0, 0, 10, 12)),
    ],
)
def test_the_fallback_is_the_largest_centred_box_within_the_ratio(height, width, ratio, expected):
    assert {tuple(b) for b in boxes(height, width, (1.0, 1.0), ratio, 8).tolist()} == {expected}


def test_crops_of_a_constant_image_are_constant():
    image = jnp.full((3, 20, 14), 0.3)
    for box in boxes(20, 14, (0.05, 1.0), (0.5, 2.0), 5).tolist():
        np.testing.assert_allclose(resized_crop(image, box, 11), 0.3, atol=1e-6)


@pytest.mark.parametrize(
    ("fill", "mode"), [("zero", "constant"), ("edge", "edge"), ("reflect",) * 2]
)
def test_shifted_crop_equals_padding_then_slicing(fill, mode):
    image = picture(6, 7)
    padded = np.pad(image, ((0, 0), (3, 3), (3, 3)), mode)
    for top, left in [(-3, -3), (0, 2), (3, 4)]:
        got = shifted_crop(jnp.asarray(image), top, left, 6, fill)
        assert np.array_equal(got, padded[:, top + 3 : top + 9, left + 3 : left + 9])


def test_flips():
    image = picture(4, 5)
    assert np.array_equal(geometry.flip_horizontal(image), image[..., ::-1])
    assert np.array_equal(geometry.flip_vertical(image), image[:, ::-1])


@pytest.mark.parametrize("fill", ["zero", "edge"])
def test_warp_without_movement_is_the_identity(fill):
    image = jnp.asarray(picture(9, 9))
    still = jnp.zeros((2, 9, 9))
    got = warp(image, affine_inverse(), jnp.zeros(2), still, fill)
    assert np.array_equal(got, image)


def test_rotation_by_right_angles_is_counter_clockwise():
    image = jnp.asarray(picture(7, 7))
    for turns in (1, 2, 3):
        got = warp(image, affine_inverse(rotation=90.0 * turns))
        np.testing.assert_allclose(got, np.rot90(image, turns, (1, 2)), atol=1e-5)


def test_shift_moves_the_content_and_fills_the_rest():
    image = jnp.asarray(picture(10, 10))
    shift = jnp.array([0.2, -0.1])
    zero = np.asarray(warp(image, shift=shift))
    np.testing.assert_allclose(zero[:, :9, 2:], image[:, 1:, :8], atol=1e-5)
    np.testing.assert_allclose(zero[..., :2], 0, atol=1e-5)
    np.testing.assert_allclose(zero[:, 9:], 0, atol=1e-5)
    edge = np.asarray(warp(image, shift=shift, fill="edge"))
    np.testing.assert_allclose(edge[:, :9, 0], image[:, 1:, 0], atol=1e-5)


def test_affine_inverse_undoes_scale_then_shear_then_rotation():
    scale = np.diag(np.exp([0.3 + 0.1, 0.3 - 0.1]))
    shear = np.array([[1, 0.15], [0, 1]])
    angle = np.deg2rad(25)
    # y points down: a counter-clockwise turn on the screen.
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    inverse = affine_inverse(25.0, 0.3, 0.2, 0.15)
    np.testing.assert_allclose(inverse @ (turn @ shear @ scale), np.eye(2), atol=1e-6)


@pytest.mark.parametrize(("fill", "mode"), [("zero", "constant"), ("edge", "nearest")])
def test_warp_equals_scipy(fill, mode):
    image = picture(13, 13, 2)
    inverse = affine_inverse(33.0, -0.4, 0.2, 0.3)
    displacement = np.random.default_rng(1).normal(0, 1.5, (2, 13, 13)).astype(np.float32)
    got = warp(jnp.asarray(image), inverse, None, jnp.asarray(displacement), fill)
    grid = np.stack(np.meshgrid(*[np.arange(13) - 6.0] * 2, indexing="xy")).reshape(2, -1)
    x, y = (np.asarray(inverse, np.float64) @ grid).reshape(2, 13, 13) + displacement + 6.0
    if fill == "zero":  # SciPy's constant mode does not blend the border; a margin of zeros does
        image, x, y = np.pad(image, ((0, 0), (9, 9), (9, 9))), x + 9, y + 9
    for c in range(2):
        want = ndimage.map_coordinates(image[c], [y, x], order=1, mode=mode)
        np.testing.assert_allclose(got[c], want, atol=2e-5)


def test_elastic_displacement_is_smooth_and_keeps_constants():
    np.testing.assert_allclose(elastic_displacement(jnp.full((2, 4, 4), 0.7), 16), 0.7, atol=1e-6)
    nodes = jax.random.normal(jax.random.key(0), (2, 4, 4))
    field = np.asarray(elastic_displacement(nodes, 64))
    want = jax.image.resize(nodes, (2, 64, 64), "cubic")
    np.testing.assert_allclose(field, want, atol=1e-5)
    assert np.abs(np.diff(field, axis=2)).max() < 0.2 * np.abs(np.diff(nodes, axis=2)).max()


@pytest.mark.parametrize("scale", [(0.05, 0.3), (0.4, 0.5), (0.3, 1.0)])
@pytest.mark.parametrize("sides", [(50, 50), (31, 90)])
def test_no_crop_exceeds_the_largest(scale, sides):
    most = geometry.largest_crop(*sides, scale, (3 / 4, 4 / 3))
    draw = lambda key: geometry.sample_crop_box(key, *sides, scale, (3 / 4, 4 / 3))
    *_, height, width = jax.vmap(draw)(jax.random.split(jax.random.key(0), 2000))
    assert height.max() <= most[0] <= sides[0] and width.max() <= most[1] <= sides[1]
