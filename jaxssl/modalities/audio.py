"""Mono waveforms: int16, or float32 in [-1, 1], [T], with the fact `rate` in samples a second.

Recordings of unequal length end in zeros: the length of one is where its last sample that is not
zero lies. A view is a window read from it, changed, and divided by its root mean square.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.method import Field
from jaxssl.modalities import mel
from jaxssl.modalities.audio_transforms import FILTERS, TRANSFORMS, WAVES, read
from jaxssl.modalities.fourier import filtered
from jaxssl.modalities.parameters import parse_group

MakeGroup = Callable[[jax.Array, jax.Array], jax.Array]
QUIET = 1e-5  # a root mean square under it is silence, and stays it
# Of the raw control and of pictures: samples, and a rate where the data's own is not known.
WINDOW, HOP, FFT, BANDS, RATE = 256, 128, 512, 40, 16_000
PICTURE = 96  # frames of a picture, about


def views(group: Mapping[str, Any], *, field: Field, data: Any, where: str) -> MakeGroup:
    """A function (keys [B, V], x [B, T]) -> views float32 [B, V, samples], one for each key.

    A group has `count` (its number of views V) and transforms, each a dict of the fields of its
    class in `audio_transforms`; for `polarity` a number alone is the probability. A transform that
    is absent, or None, is off. The order is fixed: crop, shift and speed (one reading of the
    recording; without a crop all T samples), polarity, gain, low_pass, high_pass and frequency_mask
    (one filter), noise, time_mask, and last x / max(rms(x), 1e-5). Both masks are SpecAugment's,
    made on the waveform. Each transform draws from a key folded with its own name.

    Args:
      group: {"count", transform: fields, ...}.
      field: of the waves, with the fact `rate`.
      data: not read.
      where: messages begin with it.

    Raises:
      ConfigError: for an unknown transform or field, a value out of range, or no rate.

    >>> wave = Field("audio", (800,), "int16", {"rate": 8000})
    >>> make = views({"count": 2, "crop": {"seconds": 0.05}}, field=wave, data={}, where="views.a")
    >>> make(jax.random.split(jax.random.key(0), (3, 2)), jnp.ones((3, 800), jnp.int16)).shape
    (3, 2, 400)
    """
    del data
    rate, transforms = _rate(field, where), parse_group(where, group, TRANSFORMS)
    salts = {name: zlib.crc32(name.encode()) for name in transforms}
    crop = transforms.get("crop")
    samples = crop.length(rate, f"{where}.crop") if crop else 0

    def view(key: jax.Array, x: jax.Array) -> jax.Array:
        keys = {name: jax.random.fold_in(key, np.uint32(salt)) for name, salt in salts.items()}
        x = _window(transforms, keys, x, samples, rate)
        for name in WAVES:
            if name == FILTERS[0]:
                x = _filtered(transforms, keys, x, rate)
            elif name in transforms and name not in FILTERS:
                x = transforms[name](keys[name], x, rate)
        return normalize(x)

    of_sample = jax.vmap(view, (0, None))
    return lambda keys, x: jax.vmap(of_sample)(keys, to_float(x))


def plain(x: jax.Array, *, data: Any, size: int = 0) -> jax.Array:
    """The one view without randomness: [B, T] -> float32 [B, size], divided by its rms.

    The middle `size` samples of the recording, with zeros around one that is shorter; size 0 is
    all T samples as they are stored.

    >>> plain(jnp.array([[0.1, 0.3, -0.3, 0.1, 0.0]]), data={}, size=2).round(3).tolist()
    [[1.0, -1.0]]
    """
    del data
    x = to_float(x)
    middle = lambda wave: read(wave, (length(wave) - size) // 2, 1.0, size)
    return jax.vmap(normalize)(jax.vmap(middle)(x) if size else x)


@jax.jit
def raw(x: jax.Array) -> jax.Array:
    """Mean and standard deviation over time of 40 log-mel bands, float32 [B, 80].

    Bands are those of HTK at 16 kHz, stretched to whatever rate the data has, as fractions of half
    of it. Frames more than 60 dB under the loudest of a recording, such as its padding, are left
    out. Loudness is kept.

    >>> raw(jnp.ones((2, 4000), jnp.int16)).shape
    (2, 80)
    """
    powers = mel.power(to_float(x), WINDOW, HOP, FFT)
    bank = mel.filterbank(RATE, FFT, BANDS)
    bands = mel.decibels(jnp.dot(powers, bank, precision="highest"))
    loudness = powers.sum(-1, keepdims=True)
    heard = (loudness >= 1e-6 * loudness.max(1, keepdims=True)).astype(jnp.float32)
    count = heard.sum(1, keepdims=True)
    mean = (heard * bands).sum(1, keepdims=True) / count
    variance = (heard * jnp.square(bands - mean)).sum(1, keepdims=True) / count
    return jnp.concatenate([mean, jnp.sqrt(variance)], 1).reshape(len(x), -1)


def show(x: np.ndarray) -> np.ndarray:
    """Log-mel spectrograms uint8 [N, 40, F, 1]: time to the right, low tones below, 80 dB deep.

    >>> show(np.ones((2, 8000), np.int16)).shape
    (2, 40, 61, 1)
    """
    hop = max(HOP, -(-x.shape[1] // PICTURE))
    powers = np.asarray(mel.power(to_float(jnp.asarray(x)), max(WINDOW, hop), hop, 4 * FFT))
    decibels = np.asarray(mel.decibels(jnp.asarray(powers @ mel.filterbank(RATE, 4 * FFT, BANDS))))
    shade = 1 + (decibels - decibels.max((1, 2), keepdims=True)) / 80
    return np.rint(255 * shade).astype(np.uint8).transpose(0, 2, 1)[:, ::-1, :, None]


def to_float(x: jax.Array) -> jax.Array:
    """float32 [B, T] in [-1, 1] of int16, or of float32 as it is.

    Raises:
      ConfigError: it is neither, or of another shape.
    """
    if x.ndim != 2 or x.dtype not in (jnp.int16, jnp.float32):
        found = f"{x.dtype} {tuple(x.shape)}"
        raise ConfigError(f"audio: found {found}, expected int16 or float32 [B, T]")
    return x.astype(jnp.float32) / (32768.0 if x.dtype == jnp.int16 else 1.0)


def length(x: jax.Array) -> jax.Array:
    """Samples of x [T] up to its last that is not zero.

    >>> int(length(jnp.array([0.0, 1.0, 0.0, 2.0, 0.0])))
    4
    """
    return jnp.max(jnp.where(x != 0, jnp.arange(1, x.size + 1), 0))


def normalize(x: jax.Array) -> jax.Array:
    """x / max(sqrt(mean x^2), 1e-5), of x [T].

    >>> normalize(jnp.array([3.0, -3.0])).tolist()
    [1.0, -1.0]
    """
    return x / jnp.maximum(jnp.sqrt(jnp.mean(jnp.square(x))), QUIET)


def _rate(field: Field, where: str) -> float:
    rate = field.facts.get("rate", 0)
    if not rate > 0:
        raise ConfigError(f"{where}.of: found a field without `rate`, expected samples a second")
    return float(rate)


def _window(
    transforms: Mapping[str, Any],
    keys: Mapping[str, jax.Array],
    x: jax.Array,
    samples: int,
    rate: float,
) -> jax.Array:
    """Crop, shift and speed: one reading of x [T]."""
    drawn = {n: transforms[n].draw(keys[n], rate) for n in ("speed", "shift") if n in transforms}
    speed = drawn.get("speed", 1.0)
    start = jnp.int32(0)
    if samples:
        start = transforms["crop"].start(keys["crop"], length(x), speed * (samples - 1) + 1)
    elif not drawn:
        return x
    return read(x, start + drawn.get("shift", 0), speed, samples or x.size)


def _filtered(
    transforms: Mapping[str, Any], keys: Mapping[str, jax.Array], x: jax.Array, rate: float
) -> jax.Array:
    """All filters at once, of x [T] with zeros after it up to a power of two."""
    active = [name for name in FILTERS if name in transforms]
    if not active:
        return x
    size = 1 << (x.size - 1).bit_length()
    hz = np.fft.rfftfreq(size, 1 / rate).astype(np.float32)
    response = jnp.ones(hz.shape)
    for name in active:
        response = response * transforms[name].response(keys[name], hz, rate)
    return filtered(jnp.pad(x, (0, size - x.size)), response)[: x.size]
