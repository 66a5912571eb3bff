"""Random transforms of one cloud of points [L, 3]; all randomness comes from the key.

`TRANSFORMS` lists all in the order of application. `Crop` and `Points` choose which points a view
has; the others move them.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxssl.modalities.parameters import count, interval, number, probability


@dataclass(frozen=True)
class Crop:
    """The points nearest to a random one of them; how many is what is kept of the cloud.

    Attributes:
      scale: range of the part that is kept, of all points.
    """

    scale: tuple[float, float] = interval((0.5, 1.0), 1e-3, 1.0)

    def order(self, key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(ranks by the distance to the anchor [P], how many are kept)."""
        anchor, part = jax.random.split(key)
        centre = x[jax.random.randint(anchor, (), 0, len(x))]
        rank = jnp.argsort(jnp.argsort(jnp.square(x - centre).sum(-1)))
        low, high = self.scale
        kept = jnp.ceil(jax.random.uniform(part, (), minval=low, maxval=high) * len(x))
        return rank, kept.astype(jnp.int32)


@dataclass(frozen=True)
class Rotation:
    """A turn about the vertical axis by an angle of U(-up, up), then a small one of all axes.

    Attributes:
      up: degrees.
      tilt: deviation in degrees about each axis.
    """

    up: float = number(180.0, 0.0, 180.0)
    tilt: float = number(0.0, 0.0, 90.0)

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """[L, 3] -> [L, 3]."""
        turn, lean = jax.random.split(key)
        angle = jnp.deg2rad(self.up) * jax.random.uniform(turn, (), minval=-1.0, maxval=1.0)
        angles = jnp.deg2rad(self.tilt) * jax.random.normal(lean, (3,))
        return x @ (
            _turn(2, angle) @ _turn(0, angles[0]) @ _turn(1, angles[1]) @ _turn(2, angles[2])
        )


@dataclass(frozen=True)
class Scale:
    """Each axis times a factor of U(range)."""

    range: tuple[float, float] = interval((0.8, 1.25), 1e-3, 1e3)

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """[L, 3] -> [L, 3]."""
        low, high = self.range
        return x * jax.random.uniform(key, (3,), minval=low, maxval=high)


@dataclass(frozen=True)
class Mirror:
    """The sign of x changes, and that of y, each with a probability."""

    probability: float = probability(0.5)

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """[L, 3] -> [L, 3]."""
        turned = jax.random.uniform(key, (2,)) < self.probability
        return x * jnp.concatenate([jnp.where(turned, -1.0, 1.0), jnp.ones(1)])


@dataclass(frozen=True)
class Jitter:
    """Gaussian noise of the deviation sigma, cut at `clip`, in units of the normalised cloud."""

    sigma: float = number(0.01, 0.0, 1.0)
    clip: float = number(0.05, 0.0, 10.0)

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """[L, 3] -> [L, 3]."""
        return x + jnp.clip(self.sigma * jax.random.normal(key, x.shape), -self.clip, self.clip)


@dataclass(frozen=True)
class Points:
    """How many points a view has, drawn without replacement from those that are kept."""

    number: int = count(256, 1)


TRANSFORMS: dict[str, type] = {
    "crop": Crop,
    "points": Points,
    "rotation": Rotation,
    "scale": Scale,
    "mirror": Mirror,
    "jitter": Jitter,
}
"""Name in a config -> transform, in the order of application."""


def _turn(axis: int, angle: jax.Array) -> jax.Array:
    """The matrix of a turn about an axis."""
    c, s = jnp.cos(angle), jnp.sin(angle)
    first, second = (i for i in range(3) if i != axis)
    return (
        jnp.eye(3)
        .at[first, first]
        .set(c)
        .at[second, second]
        .set(c)
        .at[first, second]
        .set(s)
        .at[second, first]
        .set(-s)
    )
