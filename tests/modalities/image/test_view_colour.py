"""Colour, blur, solarisation and noise against PIL, `colorsys`, SciPy and hand formulas."""

import colorsys
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage

from jaxssl.modalities.image import colour


def picture(side: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((channels, side, side), np.float32)


def to_pil(image: np.ndarray) -> Image.Image:
    return Image.fromarray((np.moveaxis(image, 0, -1) * 255).astype(np.uint8))


def from_pil(image: Image.Image) -> np.ndarray:
    return np.moveaxis(np.asarray(image, np.float32) / 255, -1, 0)


@pytest.mark.parametrize(
    ("adjust", "enhancer"),
    [
        (colour.adjust_brightness, ImageEnhance.Brightness),
        (colour.adjust_contrast, ImageEnhance.Contrast),
        (colour.adjust_saturation, ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.7])
def test_factors_equal_pil_up_to_its_rounding(adjust, enhancer, factor):
    pil = to_pil(picture())
    want = from_pil(enhancer(pil).enhance(factor))
    np.testing.assert_allclose(adjust(from_pil(pil), factor), want, atol=2.1 / 255)


def test_factors_by_hand():
    image = jnp.array([[[0.2, 1.0]], [[0.4, 0.0]], [[0.6, 0.5]]])
    gray = [0.2 * 0.2989 + 0.4 * 0.587 + 0.6 * 0.114, 0.2989 + 0.5 * 0.114]
    np.testing.assert_allclose(colour.luma(image)[0, 0], gray, atol=1e-6)
    np.testing.assert_allclose(
        colour.adjust_contrast(image, 0.5)[:, 0, 0],
        0.5 * image[:, 0, 0] + 0.25 * sum(gray),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        colour.adjust_saturation(image, 0.5)[:, 0, 1],
        0.5 * image[:, 0, 1] + 0.5 * gray[1],
        atol=1e-6,
    )
    np.testing.assert_allclose(colour.adjust_brightness(image, 2.0)[:, 0, 0], [0.4, 0.8, 1.0])
    added = colour.add_brightness(image, -0.3)
    np.testing.assert_allclose(added[:, 0, 0], [0.0, 0.1, 0.3], atol=1e-6)


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.25, 0.4])
def test_hue_equals_the_standard_library(turn):
    image = picture()
    image[:, 0] = 0.3  # gray has no hue to turn
    image[:, 1, 0], image[:, 1, 1] = [1, 0, 0], [0.5, 0.5, 0.1]  # ties between channels
    got = np.asarray(jax.jit(colour.adjust_hue)(image, turn))
    for place in np.ndindex(8, 8):
        at = (slice(None), *place)
        h, s, v = colorsys.rgb_to_hsv(*image[at].tolist())
        np.testing.assert_allclose(got[at], colorsys.hsv_to_rgb((h + turn) % 1, s, v), atol=1e-5)


def test_grayscale_repeats_the_gray_value():
    gray = np.asarray(colour.to_grayscale(jnp.asarray(picture())))
    assert (gray == gray[:1]).all()
    want = np.tensordot(np.array(colour.LUMA), picture(), 1)
    np.testing.assert_allclose(gray[0], want, atol=1e-6)


def test_jitter_runs_every_order_as_one_operation_after_the_other():
    image = jnp.asarray(picture())
    amounts = {"brightness": 1.6, "contrast": 0.5, "saturation": 1.8, "hue": 0.2}
    names = list(amounts)
    amounts = {n: jnp.float32(a) for n, a in amounts.items()}
    adjust = {
        "brightness": jax.jit(colour.adjust_brightness),
        "contrast": jax.jit(colour.adjust_contrast),
        "saturation": jax.jit(colour.adjust_saturation),
        "hue": jax.jit(colour.adjust_hue),
    }
    orders = list(itertools.permutations(range(4)))
    ranks = np.argsort(np.array(orders), axis=1).astype(np.float32)
    got = jax.jit(jax.vmap(lambda r: colour.jitter(image, amounts, r)))(ranks)
    results = []
    for order, result in zip(orders, got, strict=True):
        want = image
        for i in order:
            want = adjust[names[i]](want, amounts[names[i]])
        np.testing.assert_allclose(result, want, atol=2e-6)
        results.append(np.asarray(want))
    spread = np.ptp(np.stack(results), axis=0).max()
    assert spread > 0.05, "the orders must differ, or this test shows nothing"


def test_jitter_in_the_given_order():
    image = jnp.asarray(picture(8, 1))
    got = colour.jitter(image, {"contrast": jnp.float32(1.3), "additive": jnp.float32(0.1)})
    want = np.clip(1.3 * picture(8, 1) - 0.3 * picture(8, 1).mean(), 0, 1) + 0.1
    np.testing.assert_allclose(got, np.clip(want, 0, 1), atol=1e-6)


@pytest.mark.parametrize(("sigma", "taps"), [(0.1, 3), (1.0, 5), (2.0, 9)])
def test_blur_equals_a_mirrored_convolution(sigma, taps):
    image = picture(9, 3)
    half = taps // 2
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    want = image.astype(np.float64)
    for axis in (1, 2):
        want = ndimage.correlate1d(want, kernel, axis=axis, mode="mirror")
    np.testing.assert_allclose(
        jax.jit(colour.gaussian_blur, static_argnums=2)(image, sigma, taps), want, atol=1e-6
    )
    weights = colour.blur_weights(sigma, 9, taps)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)


def test_blur_of_one_tap_is_the_identity():
    assert np.array_equal(colour.gaussian_blur(jnp.asarray(picture()), 2.0, 1), picture())


def test_solarize_inverts_the_bright():
    image = jnp.array([[[0.2, 0.5, 0.9]]])
    np.testing.assert_allclose(colour.solarize(image, 0.5)[0, 0], [0.2, 0.5, 0.1], atol=1e-6)


def test_noise_has_the_given_deviation_and_stays_in_range():
    gray = jnp.full((1, 64, 64), 0.5)
    noisy = np.asarray(colour.gaussian_noise(jax.random.key(0), gray, 0.1))
    assert abs(noisy.mean() - 0.5) < 0.01 and abs(noisy.std() - 0.1) < 0.01
    loud = np.asarray(colour.gaussian_noise(jax.random.key(0), gray, 5.0))
    assert loud.min() == 0.0 and loud.max() == 1.0


def test_normalize_per_channel():
    got = colour.normalize(jnp.full((3, 2, 2), 0.5), (0.5, 0.25, 0.0), (1.0, 0.5, 0.25))
    np.testing.assert_allclose(got[:, 0, 0], [0.0, 0.5, 2.0])
