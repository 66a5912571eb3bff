"""A CPU's 3 x 3 convolutions are those of flax, in values, gradients and rounding."""

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import twins

from jaxssl.devices import sharding
from jaxssl.encoders import winograd
from jaxssl.encoders.convolution import Conv, Plain, convolution

PADS = ((1, 1), (1, 1))


@pytest.fixture
def always(monkeypatch):
    """Small ones are worth it too, two samples of 9 x 7 x 3 at a time."""
    monkeypatch.setattr(winograd, "WORTH", 0)
    monkeypatch.setattr(winograd, "CHANNELS", 1)
    monkeypatch.setattr(winograd, "IN_CACHE", 2 * 9 * 7 * 3)


def suits(x=(2, 16, 16, 64), w=(3, 3, 64, 64), strides=(1, 1), padding=PADS, dtype=jnp.float32):
    return winograd.suits(jnp.zeros(x, dtype), jnp.zeros(w, dtype), strides, padding)


@pytest.mark.parametrize("side", winograd.POINTS)
def test_a_tile_is_the_correlation_with_the_kernel(side):
    c, g, a = winograd.transforms(side)
    x, w = np.random.default_rng(0).normal(size=(2, side + 2))
    np.testing.assert_allclose(a @ ((g @ w[:3]) * (c @ x)), np.correlate(x, w[:3]), rtol=1e-12)


@pytest.mark.parametrize(
    "spatial, padding",
    [
        ((8, 8), "SAME"),
        ((9, 7), "SAME"),
        ((9, 7), "VALID"),
        ((9, 7), ((2, 0), (1, 2))),
        ((3, 5), "SAME"),
    ],
)
@pytest.mark.usefixtures("always")
def test_value_and_gradients_are_those_of_the_convolution(spatial, padding):
    x = jax.random.normal(jax.random.key(0), (6, *spatial, 3))
    own, plain = (kind(5, (3, 3), padding=padding, precision="highest") for kind in (Conv, nn.Conv))
    variables = plain.init(jax.random.key(1), x)
    lowered = jax.jit(own.apply).lower(variables, x).as_text()
    assert "convolution" not in lowered
    twins.check_value_and_gradients(own, plain, variables, x, atol=1e-4)


def test_rounding_is_near_that_of_a_sum_over_taps():
    """Against float64, over the deviation; the sum over taps rounds to 1e-7 and 2e-7."""
    rng = np.random.default_rng(0)
    x, w, g = (rng.normal(size=s) for s in ((8, 16, 16, 64), (3, 3, 64, 32), (8, 16, 16, 32)))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [(i, j) for i in range(3) for j in range(3)]
    met = {(i, j): padded[:, i : i + 16, j : j + 16] for i, j in taps}
    of_map = sum(met[t] @ w[t] for t in taps)
    of_kernel = np.reshape([np.einsum("bhwi,bhwo->io", met[t], g) for t in taps], w.shape)
    single = lambda *arrays: (jnp.asarray(a, jnp.float32) for a in arrays)
    error = lambda found, wanted: np.std(found - wanted) / np.std(wanted)
    assert error(winograd.convolution(*single(x, w), PADS), of_map) < 1e-6
    assert error(winograd.kernel_gradient(*single(x, g), PADS), of_kernel) < 3e-6


@pytest.mark.usefixtures("always")
def test_a_cpu_alone_takes_these_products():
    x, w = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))
    grad = jax.jit(jax.grad(lambda x, w: convolution(x, w, Plain((1, 1), PADS)).sum(), (0, 1)))
    counts = {
        platform: grad.trace(x, w).lower(lowering_platforms=(platform,)).as_text().count("convol")
        for platform in ("cpu", "tpu", "cuda")
    }
    assert counts["cpu"] == 0 and counts["tpu"] >= 2 and counts["cuda"] >= 2


def test_whether_they_suit_does_not_depend_on_the_batch():
    assert suits() and suits(x=(1, 16, 16, 64)) and suits(x=(256, 16, 16, 64))


def test_an_open_batch_size_is_left_to_xla():
    """As `jaxssl.commands.export` writes it."""
    (batch,) = jax.export.symbolic_shape("B")
    x = jax.ShapeDtypeStruct((batch, 16, 16, 64), jnp.float32)
    w = jnp.ones((3, 3, 64, 64))
    fn = jax.jit(lambda x: convolution(x, w, Plain((1, 1), PADS)))
    exported = jax.export.export(fn, platforms=("cpu", "cuda"))(x)
    assert exported.out_avals[0].shape == (batch, 16, 16, 64)
    ones = jnp.ones((2, 16, 16, 64))
    np.testing.assert_allclose(exported.call(ones), fn(ones), 1e-5)


@pytest.mark.parametrize(
    "other",
    [
        dict(strides=(2, 2)),
        dict(w=(5, 5, 64, 64)),
        dict(w=(3, 3, 64, 16)),
        dict(x=(2, 4, 4, 64)),
        dict(padding=((3, 3), (1, 1))),
        dict(dtype=jnp.bfloat16),
    ],
)
def test_they_do_not_suit(other):
    assert not suits(**other)


@pytest.mark.usefixtures("always")
def test_each_device_convolves_its_own_samples():
    """Nothing passes between devices but one sum of the kernel's gradient, after the loop."""
    x = jax.random.normal(jax.random.key(0), (16, 9, 7, 3))
    w = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))

    def run(x, w):
        y, back = jax.vjp(lambda x, w: convolution(x, w, Plain((1, 1), PADS, "highest")), x, w)
        return y, back(jnp.cos(y))

    fn = jax.jit(run)
    wanted = fn(x, w)
    mesh = sharding.make_mesh({"data": 4, "fsdp": 2, "model": 1}, 16)
    with jax.set_mesh(mesh):
        split = jax.device_put(x, sharding.batch_sharding(mesh))
        compiled = fn.lower(split, w).compile()
        found = compiled(split, w)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 5e-5), found, wanted)
    text = compiled.as_text()
    assert text.count(" all-reduce(") == 1
    assert not any(name in text for name in ("all-gather", "all-to-all", "collective-permute"))
