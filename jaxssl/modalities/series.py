"""Time series of one or more channels, float [T, C].

A view is a stretch of a series, read at as many steps as wanted, normalised as (x - mean) / std
with the config's `data.mean` and `data.std`, of each channel or of all, and changed. Series of
unequal length are stored read at one length.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jaxssl.config.errors import ConfigError
from jaxssl.method import Field
from jaxssl.modalities.parameters import parse_group, whole
from jaxssl.modalities.series_transforms import TRANSFORMS, read

MakeGroup = Callable[[jax.Array, jax.Array], jax.Array]
STEPS = 128  # the most that the raw control sees
PICTURE = (48, 128)  # height and width of a picture of few channels
LANE = 16  # the least height of a channel


def views(group: Mapping[str, Any], *, field: Field, data: Any, where: str) -> MakeGroup:
    """A function (keys [B, V], x [B, T, C]) -> views float32 [B, V, L, C], one for each key.

    A group has `count` (its number of views V), `length` (L, their steps; 0 is T) and transforms,
    each a dict of the fields of its class in `series_transforms`; for `flip` and `channel_dropout`
    a number alone is the probability. A transform that is absent, or None, is off. The order is
    fixed: crop and time_warp (one reading of the series), permutation, flip, scaling,
    magnitude_warp, jitter, channel_dropout, time_mask; normalisation comes before the changes of
    values, so that their strengths are in deviations. Each transform draws from a key folded with
    its own name.

    Args:
      group: {"count", "length", transform: fields, ...}.
      field: of the series.
      data: with `mean` and `std`.
      where: messages begin with it.

    Raises:
      ConfigError: for an unknown transform or field, or a value out of range.

    >>> series = Field("series", (8, 2), "float32")
    >>> group, data = {"count": 2, "jitter": {"sigma": 0.1}}, {"mean": 0.0, "std": 1.0}
    >>> make = views(group, field=series, data=data, where="views.a")
    >>> make(jax.random.split(jax.random.key(0), (3, 2)), jnp.ones((3, 8, 2))).shape
    (3, 2, 8, 2)
    """
    transforms = parse_group(where, group, TRANSFORMS, "length")
    length = whole(f"{where}.length", group.get("length", 0), 0) or field.shape[0]
    salts = {name: zlib.crc32(name.encode()) for name in transforms}

    def view(key: jax.Array, x: jax.Array) -> jax.Array:
        keys = {name: jax.random.fold_in(key, np.uint32(salt)) for name, salt in salts.items()}
        rest = dict(transforms)
        places = jnp.linspace(0.0, 1.0, length)
        if "time_warp" in rest:
            places = rest.pop("time_warp").places(keys["time_warp"], places)
        if "crop" in rest:
            places = rest.pop("crop").places(keys["crop"], places)
        x = normalize(read(x, places), data)
        for name, transform in rest.items():
            x = transform(keys[name], x)
        return x

    of_sample = jax.vmap(view, (0, None))
    return lambda keys, x: jax.vmap(of_sample)(keys, to_float(x))


def plain(x: jax.Array, *, data: Any, size: int = 0) -> jax.Array:
    """The one view without randomness: [B, T, C] -> float32 [B, size, C], normalised.

    Size 0 is all T steps as they are stored; another is read off the whole series.

    >>> plain(jnp.array([[[1.0], [3.0]]]), data={"mean": 2.0, "std": 0.5}).ravel().tolist()
    [-2.0, 2.0]
    """
    x = to_float(x)
    if size:
        x = jax.vmap(lambda one: read(one, jnp.linspace(0.0, 1.0, size)))(x)
    return normalize(x, data)


@jax.jit
def raw(x: jax.Array) -> jax.Array:
    """The values of a series at no more than 128 steps, flattened, float32 [B, D].

    >>> raw(jnp.ones((2, 200, 3))).shape
    (2, 384)
    """
    x = to_float(x)
    if x.shape[1] > STEPS:
        x = jax.vmap(lambda one: read(one, jnp.linspace(0.0, 1.0, STEPS)))(x)
    return x.reshape(len(x), -1)


def show(x: np.ndarray) -> np.ndarray:
    """Line plots uint8 [N, H, 128, 1], a lane of 16 pixels or more a channel: dark on white.

    A channel has one scale in all pictures, its own: channels may be in units of their own.

    >>> show(np.zeros((2, 8, 1), np.float32)).shape, show(np.zeros((2, 8, 9), np.float32)).shape
    ((2, 48, 128, 1), (2, 144, 128, 1))
    """
    height, width = PICTURE
    x = np.asarray(x, np.float32)
    lane = max(LANE, height // x.shape[2])
    at = np.linspace(0, x.shape[1] - 1, width)
    low, part = np.floor(at).astype(int), (at % 1)[:, None]
    values = x[:, low] * (1 - part) + x[:, np.minimum(low + 1, x.shape[1] - 1)] * part
    least, most = values.min((0, 1)), values.max((0, 1))
    rows = (most - values) / np.where(most > least, most - least, 1) * (lane - 1)
    # A line covers all rows between its value and the next one.
    after = np.concatenate([rows[:, 1:], rows[:, -1:]], 1)
    top, bottom = np.minimum(rows, after)[..., None], np.maximum(rows, after)[..., None]
    drawn = (np.arange(lane) > top - 0.75) & (np.arange(lane) < bottom + 0.75)  # [N, 128, C, lane]
    images = np.where(drawn, 0, 255).astype(np.uint8)
    return rearrange(images, "n w c h -> n (c h) w 1")


def to_float(x: jax.Array) -> jax.Array:
    """float32 [B, T, C] of floating numbers.

    Raises:
      ConfigError: whole numbers, or another shape.
    """
    if x.ndim != 3 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ConfigError(f"series: found {x.dtype} {tuple(x.shape)}, expected float [B, T, C]")
    return x.astype(jnp.float32)


def normalize(x: jax.Array, data: Any) -> jax.Array:
    """(x - mean) / std of x [..., C].

    Raises:
      ConfigError: neither one number nor one for each channel.

    >>> normalize(jnp.array([[1.0, 5.0]]), {"mean": (1.0, 4.0), "std": 0.5}).tolist()
    [[0.0, 2.0]]
    """
    for name in ("mean", "std"):
        if np.size(data[name]) not in (1, x.shape[-1]):
            found, channels = np.size(data[name]), x.shape[-1]
            raise ConfigError(
                f"data.{name}: found {found} values, expected 1 or {channels}, one for each channel"
            )
    mean, std = (jnp.asarray(data[name], jnp.float32) for name in ("mean", "std"))
    return (x - mean) / std
