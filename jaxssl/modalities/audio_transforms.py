"""The random transforms that a group of views of waveforms may name, in the order of application.

Each is a frozen dataclass of its fields; all its randomness comes from a key. `Crop`, `Shift` and
`Speed` say what is read of a recording, and `read` reads it once; filters give the response by
which a spectrum is multiplied; the rest are called as transform(key, x [T], rate) -> [T].
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxssl.config.errors import ConfigError
from jaxssl.modalities.mel import hz_to_mel
from jaxssl.modalities.parameters import around, count, interval, number, probability

HIGHEST = 1e6


def read(x: jax.Array, start: jax.Array, speed: jax.Array | float, samples: int) -> jax.Array:
    """Linear interpolation of x [T] at start + speed i, i < samples, and zeros outside of it.

    >>> read(jnp.array([1.0, 3.0, 5.0]), -1, 0.5, 6).tolist()
    [0.0, 0.5, 1.0, 2.0, 3.0, 4.0]
    """
    padded = jnp.pad(x, 1)
    at = lambda i: padded[jnp.clip(start + i + 1, 0, x.size + 1)]
    steps = np.arange(samples)
    if isinstance(speed, float) and speed == 1.0:
        return at(steps)
    places = speed * jnp.asarray(steps, jnp.float32)
    below = jnp.floor(places)
    first, part = below.astype(jnp.int32), places - below
    return (1 - part) * at(first) + part * at(first + 1)


def _between(key: jax.Array, ends: tuple[float, float], shape: tuple[int, ...] = ()) -> jax.Array:
    return jax.random.uniform(key, shape, minval=ends[0], maxval=ends[1])


@dataclass(frozen=True)
class Crop:
    """A window at a uniform place of the recording; one that is shorter lies in it at any place.

    Attributes:
      samples: of the window; or
      seconds: of it, one of the two.
    """

    samples: int = count(0, 0)
    seconds: float = number(0.0, 0.0, 1e5)

    def length(self, rate: float, where: str) -> int:
        """Samples of the window."""
        samples = self.samples or round(self.seconds * rate)
        if samples < 2 or (self.samples and self.seconds):
            found = f"samples {self.samples} and seconds {self.seconds}"
            raise ConfigError(f"{where}: found {found}, expected one of them, 2 samples or more")
        return samples

    def start(self, key: jax.Array, length: jax.Array, wanted: jax.Array | float) -> jax.Array:
        """Where the window of `wanted` samples begins in a recording of `length`."""
        room = length - jnp.ceil(wanted).astype(jnp.int32)
        places = jnp.floor(jax.random.uniform(key) * (jnp.abs(room) + 1)).astype(jnp.int32)
        return jnp.minimum(room, 0) + jnp.minimum(places, jnp.abs(room))


@dataclass(frozen=True)
class Shift:
    """The window moves by a uniform time. A number s means ±s seconds; later is positive."""

    seconds: tuple[float, float] = around(0.0, 0.0, -1e5, 1e5)

    def draw(self, key: jax.Array, rate: float) -> jax.Array:
        """Samples by which the window moves."""
        return jnp.round(rate * _between(key, self.seconds)).astype(jnp.int32)


@dataclass(frozen=True)
class Speed:
    """Tempo and pitch together, as a tape that runs faster: a number r is 1 - r to 1 + r."""

    factor: tuple[float, float] = around(1.0, 0.0, 0.05, 20.0)

    def draw(self, key: jax.Array, rate: float) -> jax.Array:
        """Samples of the recording for one of the view."""
        del rate
        return _between(key, self.factor)


@dataclass(frozen=True)
class Polarity:
    """-x, with a probability."""

    probability: float = probability(0.5)

    def __call__(self, key: jax.Array, x: jax.Array, rate: float) -> jax.Array:
        """[T] -> [T]."""
        del rate
        return jnp.where(jax.random.uniform(key) < self.probability, -x, x)


@dataclass(frozen=True)
class Gain:
    """Loudness in dB drawn at points of time, and linear between them. A number r means ±r.

    Attributes:
      db: range of each.
      points: equally spaced over the view; 1 is one gain for all of it, which the normalisation
        takes away again.
    """

    db: tuple[float, float] = around(0.0, 6.0, -120.0, 120.0)
    points: int = count(2, 1)

    def __call__(self, key: jax.Array, x: jax.Array, rate: float) -> jax.Array:
        """[T] -> [T]."""
        del rate
        drawn = _between(key, self.db, (self.points,))
        db = jnp.interp(jnp.linspace(0, 1, x.size), jnp.linspace(0, 1, self.points), drawn)
        return x * 10.0 ** (db / 20)


@dataclass(frozen=True)
class LowPass:
    """Butterworth's magnitude without its phase, 1 / sqrt(1 + (f / cutoff)^8), at times.

    Attributes:
      cutoff: range in Hz, of which the logarithm is uniform.
      probability: of filtering a view.
    """

    cutoff: tuple[float, float] = interval((1000.0, 4000.0), 1.0, HIGHEST)
    probability: float = probability(0.5)

    def response(self, key: jax.Array, hz: NDArray, rate: float) -> jax.Array:
        """The factor at each of the frequencies."""
        del rate
        chosen, place = jax.random.split(key)
        cutoff = jnp.exp(_between(place, tuple(np.log(self.cutoff))))
        factor = jax.lax.rsqrt(1 + self._ratio(hz, cutoff) ** 8)
        return jnp.where(jax.random.uniform(chosen) < self.probability, factor, 1.0)

    def _ratio(self, hz: NDArray, cutoff: jax.Array) -> jax.Array:
        return jnp.asarray(hz) / cutoff


@dataclass(frozen=True)
class HighPass(LowPass):
    """The same with cutoff / f for f / cutoff; together they pass a band."""

    cutoff: tuple[float, float] = interval((50.0, 500.0), 1.0, HIGHEST)

    def _ratio(self, hz: NDArray, cutoff: jax.Array) -> jax.Array:
        return cutoff / jnp.maximum(jnp.asarray(hz), 1e-3)


@dataclass(frozen=True)
class FrequencyMask:
    """SpecAugment's bands without sound, as a filter of the waveform.

    Park et al. (2019), SpecAugment: a simple data augmentation method for automatic speech
    recognition, arXiv 1904.08779.

    Attributes:
      bands: how many; they may overlap.
      width: the widest; widths are uniform from 0, as a part of all mels up to half the rate.
    """

    bands: int = count(1, 1)
    width: float = number(0.2, 0.0, 1.0)

    def response(self, key: jax.Array, hz: NDArray, rate: float) -> jax.Array:
        """1 where a frequency is kept, 0 where it is not."""
        places = hz_to_mel(hz) / hz_to_mel(rate / 2)
        return _kept(key, jnp.asarray(places, jnp.float32), self.bands, self.width)


@dataclass(frozen=True)
class Noise:
    """White Gaussian noise of the power that gives a uniform ratio to the signal's, at times.

    Attributes:
      snr: range in dB.
      probability: of adding any.
    """

    snr: tuple[float, float] = interval((5.0, 40.0), -60.0, 120.0)
    probability: float = probability(1.0)

    def __call__(self, key: jax.Array, x: jax.Array, rate: float) -> jax.Array:
        """[T] -> [T]."""
        del rate
        chosen, ratio, samples = jax.random.split(key, 3)
        rms = jnp.sqrt(jnp.mean(jnp.square(x)))
        scale = rms * 10.0 ** (-_between(ratio, self.snr) / 20)
        scale = jnp.where(jax.random.uniform(chosen) < self.probability, scale, 0.0)
        return x + scale * jax.random.normal(samples, x.shape)


@dataclass(frozen=True)
class TimeMask:
    """SpecAugment's stretches of silence, of a uniform length up to `width`, a part of the view."""

    stretches: int = count(1, 1)
    width: float = number(0.2, 0.0, 1.0)

    def __call__(self, key: jax.Array, x: jax.Array, rate: float) -> jax.Array:
        """[T] -> [T]."""
        del rate
        return x * _kept(key, jnp.linspace(0, 1, x.size), self.stretches, self.width)


def _kept(key: jax.Array, places: jax.Array, masks: int, width: float) -> jax.Array:
    """1 or 0 at each of the places in [0, 1]: 0 inside of random intervals."""
    draws = jax.random.uniform(key, (2, masks, 1))
    wide = width * draws[0]
    first = (1 - wide) * draws[1]
    return 1.0 - jnp.any((places >= first) & (places < first + wide), 0).astype(jnp.float32)


TRANSFORMS: dict[str, type] = {
    "crop": Crop,
    "shift": Shift,
    "speed": Speed,
    "polarity": Polarity,
    "gain": Gain,
    "low_pass": LowPass,
    "high_pass": HighPass,
    "frequency_mask": FrequencyMask,
    "noise": Noise,
    "time_mask": TimeMask,
}
"""Name in a config -> transform, in the order of application."""

FILTERS = ("low_pass", "high_pass", "frequency_mask")
WAVES = tuple(name for name in TRANSFORMS if name not in ("crop", "shift", "speed"))
