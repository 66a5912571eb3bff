"""Random transforms of one series x [L, C], standardised; all randomness comes from the key.

The usual ones of Um et al. (2017), Data augmentation of wearable sensor data for Parkinson's
disease monitoring using convolutional neural networks, arXiv 1706.00527; jitter and scaling as weak
and permutation as strong views are those of TS-TCC (Eldele et al., 2021, arXiv 2106.14112).
`TRANSFORMS` lists all in the order of application.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxssl.modalities.parameters import count, interval, number, probability


def read(x: jax.Array, places: jax.Array) -> jax.Array:
    """x [T, C] at places [L] in 0 ... 1 of its length, linear between steps: [L, C].

    >>> read(jnp.array([[0.0], [2.0], [4.0]]), jnp.array([0.25, 1.0])).ravel().tolist()
    [1.0, 4.0]
    """
    at = jnp.clip(places, 0.0, 1.0) * (len(x) - 1)
    low = jnp.clip(jnp.floor(at).astype(jnp.int32), 0, max(len(x) - 2, 0))
    part = (at - low)[:, None]
    return x[low] * (1 - part) + x[jnp.minimum(low + 1, len(x) - 1)] * part


def smooth_curve(knots: jax.Array, length: int) -> jax.Array:
    """Values [K, ...] at even knots, by Catmull-Rom splines at `length` steps: [length, ...].

    >>> smooth_curve(jnp.array([1.0, 1.0, 1.0]), 5).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    at = jnp.linspace(0.0, len(knots) - 1.0, length)
    low = jnp.clip(jnp.floor(at).astype(jnp.int32), 0, len(knots) - 2)
    t = (at - low).reshape(-1, *[1] * (knots.ndim - 1))
    ends = jnp.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    a, b, c, d = (ends[low + i] for i in range(4))
    return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))


@dataclass(frozen=True)
class Crop:
    """A stretch of a random length at a random place.

    Attributes:
      scale: range of its length, as a fraction of the series.
    """

    scale: tuple[float, float] = interval((0.5, 1.0), 1e-3, 1.0)

    def places(self, key: jax.Array, places: jax.Array) -> jax.Array:
        """Places in the stretch [L] -> places in the series."""
        draws = jax.random.uniform(key, (2,))
        extent = self.scale[0] + (self.scale[1] - self.scale[0]) * draws[0]
        return draws[1] * (1 - extent) + extent * places


@dataclass(frozen=True)
class TimeWarp:
    """Time runs at smoothly changing speeds, exp(N(0, sigma)) at each knot, in order.

    Attributes:
      sigma: deviation of the log of the speed.
      knots: how many speeds are drawn.
    """

    sigma: float = number(0.2, 0.0, 4.0)
    knots: int = count(4, 2)

    def places(self, key: jax.Array, places: jax.Array) -> jax.Array:
        """Even places [L] -> warped ones, from 0 to 1."""
        speed = jnp.exp(
            smooth_curve(self.sigma * jax.random.normal(key, (self.knots,)), len(places))
        )
        between = (speed[1:] + speed[:-1]) / 2
        passed = jnp.concatenate([jnp.zeros(1), jnp.cumsum(between)])
        return passed / jnp.maximum(passed[-1], 1e-12)


@dataclass(frozen=True)
class Permutation:
    """The series cut into equal segments (the last may be longer), in a random order.

    Attributes:
      segments: the most; how many is drawn from 1 to it.
    """

    segments: int = count(5, 1)

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """[L, C] -> [L, C]."""
        how_many, order = jax.random.split(key)
        cuts = jax.random.randint(how_many, (), 1, self.segments + 1)
        segment = jnp.minimum(jnp.arange(len(x)) * cuts // len(x), cuts - 1)
        rank = jax.random.permutation(order, self.segments)
        return x[jnp.argsort(rank[segment], stable=True)]


@dataclass(frozen=True)
class Flip:
    """The sign of all values changes, with a probability."""

    probability: float = probability(0.5)

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """[L, C] -> [L, C]."""
        return jnp.where(jax.random.uniform(key) < self.probability, -x, x)


@dataclass(frozen=True)
class Scaling:
    """Each channel times a factor of N(1, sigma)."""

    sigma: float = number(0.1, 0.0, 10.0)

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """[L, C] -> [L, C]."""
        return x * (1 + self.sigma * jax.random.normal(key, (x.shape[1],)))


@dataclass(frozen=True)
class MagnitudeWarp:
    """Each channel times a smooth curve through factors of N(1, sigma).

    Attributes:
      sigma: deviation of the factors.
      knots: how many factors a channel has.
    """

    sigma: float = number(0.2, 0.0, 10.0)
    knots: int = count(4, 2)

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """[L, C] -> [L, C]."""
        factors = 1 + self.sigma * jax.random.normal(key, (self.knots, x.shape[1]))
        return x * smooth_curve(factors, len(x))


@dataclass(frozen=True)
class Jitter:
    """Gaussian noise of the deviation sigma, in deviations of the channel."""

    sigma: float = number(0.1, 0.0, 10.0)

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """[L, C] -> [L, C]."""
        return x + self.sigma * jax.random.normal(key, x.shape)


@dataclass(frozen=True)
class ChannelDropout:
    """Each channel becomes 0 with a probability; one is always kept."""

    probability: float = probability(0.1)

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """[L, C] -> [L, C]."""
        draws = jax.random.uniform(key, (x.shape[1],))
        return x * ((draws >= self.probability) | (draws == draws.max()))


@dataclass(frozen=True)
class TimeMask:
    """A stretch of a random length up to `width` of the series becomes 0 in all channels."""

    width: float = number(0.2, 0.0, 1.0)

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """[L, C] -> [L, C]."""
        draws = jax.random.uniform(key, (2,))
        length = draws[0] * self.width * len(x)
        start = draws[1] * (len(x) - length)
        at = jnp.arange(len(x))
        return jnp.where(((at >= start) & (at < start + length))[:, None], 0.0, x)


TRANSFORMS: dict[str, type] = {
    "crop": Crop,
    "time_warp": TimeWarp,
    "permutation": Permutation,
    "flip": Flip,
    "scaling": Scaling,
    "magnitude_warp": MagnitudeWarp,
    "jitter": Jitter,
    "channel_dropout": ChannelDropout,
    "time_mask": TimeMask,
}
"""Name in a config -> transform, in the order of application."""
