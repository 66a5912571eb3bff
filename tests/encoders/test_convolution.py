"""Maps smaller than the kernel are convolved as all others are."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twins

from jaxssl.encoders.convolution import Conv

# spatial sides, window, strides, padding
SMALL = [
    ((3, 2), (3, 3), (1, 1), "SAME"),
    ((2, 2), (3, 3), (2, 2), "SAME"),
    ((1, 1), (3, 3), (2, 2), "SAME"),
    ((2, 4), (3, 5), (2, 1), ((1, 2), (2, 2))),
    ((6, 6), (7, 7), (2, 2), ((3, 3), (3, 3))),
    ((2, 2, 3), (3, 3, 3), (1, 2, 1), "SAME"),
]


def conv(own, window, strides, padding):
    kind = Conv if own else nn.Conv
    return kind(5, window, strides=strides, padding=padding, precision="highest")


@pytest.mark.parametrize("spatial, window, strides, padding", SMALL)
def test_value_and_gradients_are_those_of_the_convolution(spatial, window, strides, padding):
    x = jax.random.normal(jax.random.key(0), (4, *spatial, 3))
    own, plain = (conv(own, window, strides, padding) for own in (True, False))
    variables = plain.init(jax.random.key(1), x)
    twins.check_value_and_gradients(own, plain, variables, x)


def test_half_precision_stays_half_precision():
    x = jax.random.normal(jax.random.key(0), (2, 2, 2, 3))
    own, plain = (kind(4, (3, 3), dtype=jnp.bfloat16) for kind in (Conv, nn.Conv))
    twins.check_half_precision(own, plain, x)


def test_no_convolution_is_left_where_the_map_is_smaller_than_the_kernel():
    module = conv(True, (3, 3), (1, 1), "SAME")
    kinds = {}
    for side in (2, 3):
        x = jnp.zeros((2, side, side, 3))
        variables = module.init(jax.random.key(0), x)
        kinds[side] = "conv_general_dilated[" in str(jax.make_jaxpr(module.apply)(variables, x))
    assert kinds == {2: False, 3: True}


@pytest.mark.parametrize(
    "fields",
    [dict(kernel_dilation=2), dict(feature_group_count=2), dict(input_dilation=2, padding=1)],
)
def test_dilated_and_grouped_ones_stay_convolutions(fields):
    x = jnp.ones((1, 2, 2, 4))
    own, plain = (kind(4, (3, 3), **fields) for kind in (Conv, nn.Conv))
    variables = plain.init(jax.random.key(0), x)
    np.testing.assert_array_equal(own.apply(variables, x), plain.apply(variables, x))
