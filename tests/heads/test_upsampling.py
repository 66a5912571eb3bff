"""Transposed convolutions are flax's own, in parameters, values and gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twins

from jaxssl.config.errors import ConfigError
from jaxssl.heads.upsampling import ConvTranspose

# spatial sides, window, strides
SHAPES = [
    ((3, 5), (4, 4), (2, 2)),
    ((1, 2), (4, 2), (2, 2)),
    ((2, 3), (3, 6), (3, 2)),
    ((4,), (3,), (1,)),
    ((2, 3, 2), (2, 2, 1), (2, 2, 1)),
]


@pytest.mark.parametrize("spatial, window, strides", SHAPES)
def test_parameters_value_and_gradients_are_those_of_flax(spatial, window, strides):
    x = jax.random.normal(jax.random.key(0), (4, *spatial, 3))
    own, plain = (kind(5, window, strides=strides) for kind in (ConvTranspose, nn.ConvTranspose))
    variables = plain.init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, own.init(jax.random.key(1), x), variables)
    variables["params"]["bias"] += jnp.arange(5.0)
    twins.check_value_and_gradients(own, plain, variables, x)


def test_half_precision_stays_half_precision():
    x = jax.random.normal(jax.random.key(0), (2, 2, 2, 3))
    own, plain = (
        kind(4, (4, 4), strides=(2, 2), dtype=jnp.bfloat16)
        for kind in (ConvTranspose, nn.ConvTranspose)
    )
    twins.check_half_precision(own, plain, x)


def test_no_place_is_spread_before_it_is_multiplied():
    x, module = jnp.zeros((2, 4, 4, 3)), ConvTranspose(4, (4, 4), strides=(2, 2))
    variables = module.init(jax.random.key(0), x)
    assert "lhs_dilation=(1, 1)" in str(jax.make_jaxpr(module.apply)(variables, x))


def test_a_kernel_that_is_no_multiple_of_the_stride_is_refused():
    with pytest.raises(ConfigError, match=r"found a kernel \(3, 3\) and strides \(2, 2\)"):
        ConvTranspose(4, (3, 3), strides=(2, 2)).init(jax.random.key(0), jnp.zeros((2, 4, 4, 3)))
