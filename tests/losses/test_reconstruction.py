"""The error of masked patches: published values, what counts and what does not."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.errors import ConfigError


@pytest.mark.parametrize("case", golden.CASES)
def test_golden(shared, case):
    golden.check(shared, "mae", case, losses.mae)


def example():
    prediction, target = (jax.random.normal(jax.random.key(i), (8, 6, 4)) for i in (0, 1))
    # Samples have unlike numbers of masked patches: a mean of means is then another number.
    mask = jnp.arange(6) < (jnp.arange(8) % 5)[:, None]
    return prediction, target, mask


def test_eight_devices_give_the_numbers_of_one():
    golden.check_devices(losses.mae, example(), (0, 0, 0))


def test_visible_patches_do_not_count():
    prediction, target, mask = example()
    value = losses.mae(prediction, target, mask)
    changed = jnp.where(mask[..., None], prediction, jnp.nan)
    assert float(losses.mae(changed, target, mask)) == float(value)


def test_normalised_targets_know_neither_brightness_nor_contrast():
    prediction, target, mask = example()
    value = losses.mae(prediction, target, mask)
    other = losses.mae(prediction, 3 * target + 5, mask)
    np.testing.assert_allclose(other, value, rtol=1e-3)
    flat = losses.mae(prediction * 0, target * 0 + 5, mask)
    assert float(flat) == 0


def test_nothing_masked_is_zero_with_a_zero_gradient():
    prediction, target, mask = example()
    value, grad = jax.value_and_grad(losses.mae)(prediction, target, mask & False)
    assert float(value) == 0 and not np.any(grad)


def test_patches_of_one_number_have_no_variance():
    ones = jnp.ones((2, 3, 1))
    with pytest.raises(ConfigError, match="target: found patches of 1 number"):
        losses.mae(ones, ones, jnp.ones((2, 3), bool))
