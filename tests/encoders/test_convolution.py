"""Values and gradients are those of flax's convolution, in whatever form they are computed."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twins

from jaxssl.devices import sharding
from jaxssl.encoders.convolution import Conv, Plain, convolution, kernel_gradient

# spatial sides, window, strides, padding
SMALL = [
    ((3, 2), (3, 3), (1, 1), "SAME"),
    ((2, 2), (3, 3), (2, 2), "SAME"),
    ((1, 1), (3, 3), (2, 2), "SAME"),
    ((2, 4), (3, 5), (2, 1), ((1, 2), (2, 2))),
    ((6, 6), (7, 7), (2, 2), ((3, 3), (3, 3))),
    ((2, 2, 3), (3, 3, 3), (1, 2, 1), "SAME"),
]
LARGE = [
    ((8, 8), (3, 3), (1, 1), "SAME"),
    ((9, 7), (3, 3), (2, 2), "SAME"),
    ((9, 7), (3, 2), (2, 1), ((1, 0), (2, 1))),
    ((16, 16), (7, 7), (2, 2), ((3, 3), (3, 3))),
    ((5, 6, 7), (3, 3, 3), (2, 1, 2), "SAME"),
    ((8,), (3,), (1,), "VALID"),
    ((5, 5), (1, 1), (2, 2), "SAME"),
    ((8, 8), (2, 2), (4, 4), "VALID"),
]


@pytest.fixture(autouse=True)
def _in_products(monkeypatch):
    """Every gradient is worth it, so that small ones show what large ones do."""
    monkeypatch.setattr("jaxssl.encoders.convolution.WORTH", 0)


def conv(own, window, strides, padding):
    kind = Conv if own else nn.Conv
    return kind(5, window, strides=strides, padding=padding, precision="highest")


@pytest.mark.parametrize("spatial, window, strides, padding", SMALL + LARGE)
def test_value_and_gradients_are_those_of_the_convolution(spatial, window, strides, padding):
    x = jax.random.normal(jax.random.key(0), (4, *spatial, 3))
    own, plain = (conv(own, window, strides, padding) for own in (True, False))
    variables = plain.init(jax.random.key(1), x)
    twins.check_value_and_gradients(own, plain, variables, x)


def test_half_precision_stays_half_precision():
    x = jax.random.normal(jax.random.key(0), (2, 2, 2, 3))
    own, plain = (kind(4, (3, 3), dtype=jnp.bfloat16) for kind in (Conv, nn.Conv))
    twins.check_half_precision(own, plain, x)


def test_a_gradient_of_many_places_adds_up_some_samples_a_time(monkeypatch):
    """Of 81 places a sample, 200 at a time: two of six samples."""
    monkeypatch.setattr("jaxssl.encoders.convolution.PLACES", 200)
    x = jax.random.normal(jax.random.key(0), (6, 9, 9, 4))
    own, plain = (conv(own, (3, 3), (1, 1), "SAME") for own in (True, False))
    variables = plain.init(jax.random.key(1), x)
    twins.check_value_and_gradients(own, plain, variables, x)


def test_a_cpu_takes_no_convolution_for_the_gradient_of_a_kernel():
    """The other platforms do: there it is the fast form."""
    x, w = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))
    grad = jax.jit(jax.grad(lambda w: convolution(x, w, Plain((1, 1), ((1, 1),) * 2)).sum()))
    counts = {
        platform: grad.trace(w).lower(lowering_platforms=(platform,)).as_text().count("convolution")
        for platform in ("cpu", "tpu", "cuda")
    }
    assert counts["cpu"] == 0 and counts["tpu"] > 0 and counts["cuda"] > 0


def test_a_small_gradient_is_left_to_xla(monkeypatch):
    monkeypatch.undo()
    x, w = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))
    fn = lambda w: convolution(x, w, Plain((1, 1), ((1, 1),) * 2)).sum()
    assert jax.jit(jax.grad(fn)).lower(w).as_text().count("convolution") == 1


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


def test_each_device_adds_up_its_own_samples():
    """One sum over the devices, after the loop over the samples and not within it."""
    x = jax.random.normal(jax.random.key(0), (16, 9, 9, 24))
    g = jax.random.normal(jax.random.key(1), (16, 9, 9, 5))
    plain = Plain((1, 1), ((1, 1),) * 2, "highest")
    fn = jax.jit(lambda x, g: kernel_gradient(x, g, (3, 3), plain))
    wanted = fn(x, g)
    mesh = sharding.make_mesh({"data": 4, "fsdp": 2, "model": 1}, 16)
    with jax.set_mesh(mesh):
        split = jax.device_put((x, g), sharding.batch_sharding(mesh))
        compiled = fn.lower(*split).compile()
        np.testing.assert_allclose(compiled(*split), wanted, 1e-5, 2e-5)
    text = compiled.as_text()
    assert text.count(" all-reduce(") == 1 and "all-gather" not in text
