"""Drop-path scales: their mean, their independence of the batch, their rates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl.config.errors import ConfigError
from jaxssl.encoders.stochastic_depth import keep_scales, linear_rates


def test_values_and_mean():
    rates = jnp.array([0.0, 0.25, 0.5])
    keep = np.asarray(keep_scales(jax.random.split(jax.random.key(0), 20_000), rates))
    assert [np.unique(column).tolist() for column in keep.T] == [
        [1.0],
        [0.0, pytest.approx(1 / 0.75)],
        [0.0, 2.0],
    ]
    np.testing.assert_allclose(keep.mean(0), 1, atol=0.02)
    dropped = keep == 0
    both = (dropped[:, 1] & dropped[:, 2]).mean()
    assert both == pytest.approx(0.125, abs=0.01)  # blocks are dropped independently


def test_a_sample_does_not_depend_on_its_batch():
    keys, rates = jax.random.split(jax.random.key(0), 8), linear_rates(0.5, 6)
    np.testing.assert_array_equal(keep_scales(keys, rates)[3:5], keep_scales(keys[3:5], rates))


def test_linear_rates():
    np.testing.assert_allclose(linear_rates(0.3, 4), [0, 0.1, 0.2, 0.3], atol=1e-7)
    assert linear_rates(0.3, 1).tolist() == [0.0]


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_impossible_rates(rate):
    with pytest.raises(ConfigError, match="0 <= rate < 1"):
        linear_rates(rate, 2)
