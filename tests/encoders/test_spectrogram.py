"""The spectrogram encoder: tones in their bands, loudness without effect, float32 front end."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxssl import encoders
from jaxssl.config.errors import ConfigError
from jaxssl.modalities import mel

RATE = 8000
SMALL = {
    "name": "spectrogram",
    "rate": RATE,
    "window": 256,
    "hop": 128,
    "mels": 16,
    "widths": (8, 16),
    "strides": (1, 2),
}
WAVES = np.random.default_rng(0).normal(size=(4, 4000)).astype(np.float32)


def make(dtype=jnp.float32, **fields):
    net = encoders.build(SMALL | fields, dtype=dtype)
    return net, net.init(jax.random.key(0), WAVES, train=False)


def test_outputs_and_bfloat16():
    net, variables = make()
    out = net.apply(variables, WAVES, train=False, capture=("stages",))
    # 30 frames of which 28 are kept: 4 x 7 places, then half of them.
    assert out["stages"][0].shape == (4, 4, 7, 8)
    assert out["pooled"].shape == (4, 16) and out["tokens"].shape == (4, 8, 16)
    np.testing.assert_allclose(out["pooled"], out["tokens"].mean(1), atol=1e-6)
    half, same = make(jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(same)} == {jnp.dtype("float32")}
    found = half.apply(variables, WAVES, train=False)
    assert found["pooled"].dtype == found["tokens"].dtype == jnp.bfloat16
    assert half.picture(jnp.asarray(WAVES)).dtype == jnp.float32
    np.testing.assert_allclose(np.float32(found["pooled"]), out["pooled"], atol=0.05)
    _, updates = net.apply(variables, WAVES, train=True, mutable=["batch_stats"])
    assert jax.tree.leaves(updates)


@pytest.mark.smoke
@pytest.mark.parametrize("band", [0, 5, 9, 15])
def test_a_tone_lands_in_its_band(band):
    net = encoders.build(SMALL, dtype=jnp.float32)
    centre = mel.mel_to_hz(np.linspace(0, mel.hz_to_mel(RATE / 2), 18))[1 + band]
    wave = np.sin(2 * np.pi * centre * np.arange(4000) / RATE).astype(np.float32)
    picture = np.asarray(net.picture(jnp.asarray(wave[None])))[0, ..., 0]
    assert picture.shape == (16, 28)
    assert (picture.argmax(0) == 15 - band).all(), "high bands come first"
    assert picture.max() == 1 and picture.min() >= -1e-6


def test_loudness_makes_no_difference():
    net, variables = make()
    quiet = net.apply(variables, 1e-3 * WAVES, train=False)["pooled"]
    np.testing.assert_allclose(net.apply(variables, WAVES, train=False)["pooled"], quiet, atol=1e-4)
    assert np.isfinite(net.apply(variables, 0 * WAVES, train=False)["pooled"]).all()


def test_a_sample_is_encoded_alike_in_any_company():
    net, variables = make()
    encode = lambda x: net.apply(variables, x, train=False)["pooled"]
    np.testing.assert_allclose(encode(WAVES)[1:2], encode(WAVES[1:2]), atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fft": 128}, "encoder.fft: found 128, expected >= 256"),
        ({"mels": 18}, "encoder.mels: found 18, expected a multiple of 4"),
        ({"mels": 256}, "encoder.mels: found 256, expected fewer"),
        ({"high": 5000.0}, "encoder.high: found 0.0 to 5000.0, expected a range in 0 to 4000"),
        ({"hop": 0}, "encoder.hop: .*positive integer"),
        ({"span": 0.0}, "encoder.span: found 0.0"),
        ({"strides": (1,)}, "encoder.strides: found 1 values, expected 2"),
        ({"norm": "layer"}, "encoder.norm: found 'layer'"),
    ],
)
def test_errors_name_the_field(fields, message):
    with pytest.raises(ConfigError, match=message) as raised:
        encoders.build(SMALL | fields, dtype=jnp.float32)
    assert "\n" not in str(raised.value)


def test_the_rate_is_needed_and_waves_are_flat():
    with pytest.raises(ConfigError, match=r"encoder\.rate: missing; 'spectrogram' needs it"):
        encoders.build({"name": "spectrogram"}, dtype=jnp.float32)
    net, variables = make()
    with pytest.raises(ConfigError, match="found waves of shape"):
        net.apply(variables, WAVES[..., None], train=False)


def test_eight_devices_make_the_pictures_of_one_without_communication():
    """XLA would gather the batch for an FFT."""
    net = encoders.build(SMALL, dtype=jnp.float32)
    waves = np.concatenate([WAVES, WAVES[::-1]])
    single = jax.jit(net.picture)(waves)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        split = jax.device_put(waves, NamedSharding(mesh, PartitionSpec("data")))
        compiled = jax.jit(net.picture).lower(split).compile()
    names = r"all-gather|all-to-all|all-reduce|reduce-scatter|collective-permute"
    assert re.findall(names, compiled.as_text()) == []
    np.testing.assert_allclose(compiled(split), single, atol=1e-4)
