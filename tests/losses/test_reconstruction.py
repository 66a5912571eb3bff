"""The error of masked patches: published values, what counts and what does not."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError


@pytest.mark.parametrize("case", golden.CASES)
def test_golden(shared, case):
    golden.check(shared, "mae", case, losses.mae)


def example():
    prediction, target = (jax.random.normal(jax.random.key(i), (8, 6, 4)) for i in (0, 1))
    # Samples have unlike numbers of masked patches: a mean of means is then another number.
    mask = jnp.arange(6) < (jnp.arange(8) % 5)[:, None]
    return prediction, target, mask


LOSSES = pytest.mark.parametrize(
    "loss", [losses.mae, losses.simmim, losses.masked_squared_error], ids=lambda f: f.__name__
)


@LOSSES
def test_eight_devices_give_the_numbers_of_one(loss):
    golden.check_devices(lambda x, y, m: loss(x, jax.lax.stop_gradient(y), m), example(), (0, 0, 0))


@LOSSES
def test_visible_patches_do_not_count(loss):
    prediction, target, mask = example()
    value = loss(prediction, target, mask)
    changed = jnp.where(mask[..., None], prediction, jnp.nan)
    assert float(loss(changed, target, mask)) == float(value)
    if loss is not losses.mae:  # which standardises a whole patch
        changed = jnp.where(mask[..., None], target, jnp.nan)
        assert float(loss(prediction, changed, mask)) == float(value)


@LOSSES
def test_targets_get_no_gradient(loss):
    grads = jax.grad(loss, argnums=(0, 1))(*example())
    assert np.any(grads[0]) and not np.any(grads[1])


def test_normalised_targets_know_neither_brightness_nor_contrast():
    prediction, target, mask = example()
    value = losses.mae(prediction, target, mask)
    other = losses.mae(prediction, 3 * target + 5, mask)
    np.testing.assert_allclose(other, value, rtol=1e-3)
    flat = losses.mae(prediction * 0, target * 0 + 5, mask)
    assert float(flat) == 0


@LOSSES
def test_nothing_masked_is_zero_with_a_zero_gradient(loss):
    prediction, target, mask = example()
    value, grad = jax.value_and_grad(loss)(prediction, target, mask & False)
    assert float(value) == 0 and not np.any(grad)


@LOSSES
def test_a_perfect_prediction_has_no_gradient(loss):
    _, target, mask = example()
    standard = (target - target.mean(-1, keepdims=True)) / target.std(-1, ddof=1, keepdims=True)
    prediction = standard if loss is losses.mae else target
    value, grad = jax.value_and_grad(loss)(prediction, target, mask)
    assert float(value) < 1e-9 and np.abs(grad).max() < 1e-5


def test_simmim_counts_pixels_or_patches_alike():
    prediction, target, mask = example()  # patches of 2 x 2 pixels and 1 channel
    by_patch = losses.simmim(prediction, target, mask)
    pixels = jnp.repeat(mask[..., None], 4, axis=-1)
    by_pixel = losses.simmim(prediction[..., None], target[..., None], pixels)
    np.testing.assert_allclose(by_patch, by_pixel, rtol=1e-5)
    published = (np.abs(prediction - target) * pixels).sum() / (pixels.sum() + 1e-5)
    np.testing.assert_allclose(by_patch, published, rtol=1e-5)


def test_simmim_takes_masks_that_cut_through_patches():
    image, target = (jax.random.normal(jax.random.key(i), (2, 4, 4, 3)) for i in (0, 1))
    mask = jax.random.bernoulli(jax.random.key(2), 0.4, (2, 4, 4))
    expected = np.abs(image - target)[np.asarray(mask)].mean()  # all channels of masked pixels
    np.testing.assert_allclose(losses.simmim(image, target, mask), expected, rtol=1e-5)


def test_squared_errors_are_summed_over_channels():
    prediction, target, mask = example()
    value = losses.masked_squared_error(prediction, target, mask)
    expected = np.square(prediction - target).sum(-1)[np.asarray(mask)].mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_voxels_give_the_same_as_places_and_as_tokens():
    prediction, target, mask = example()  # tokens of 4 voxels
    voxels = jnp.repeat(mask[..., None], 4, axis=-1)
    of_places = losses.masked_squared_error(prediction[..., None], target[..., None], voxels)
    of_tokens = losses.mae(prediction, target, mask, normalize_target=False)
    np.testing.assert_allclose(of_places, of_tokens, rtol=1e-5)


def test_patches_of_one_number_have_no_variance():
    ones = jnp.ones((2, 3, 1))
    with pytest.raises(ConfigError, match="target: found patches of 1 number"):
        losses.mae(ones, ones, jnp.ones((2, 3), bool))
