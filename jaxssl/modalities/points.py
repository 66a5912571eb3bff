"""Point clouds, float [P, 3]: x and y lie on the ground, z is up.

A view is a part of the points, moved, centred on its mean and scaled into the unit ball.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.method import Field
from jaxssl.modalities.parameters import parse_group
from jaxssl.modalities.points_transforms import TRANSFORMS, Crop

MakeGroup = Callable[[jax.Array, jax.Array], jax.Array]
CELLS = 6  # a side of the grid that the raw control sees
PICTURE = 48  # pixels of a side


def views(group: Mapping[str, Any], *, field: Field, data: Any, where: str) -> MakeGroup:
    """A function (keys [B, V], x [B, P, 3]) -> views float32 [B, V, L, 3], one for each key.

    A group has `count` (its number of views V) and transforms, each a dict of the fields of its
    class in `points_transforms`; for `mirror` a number alone is the probability. A transform that
    is absent, or None, is off. The order is fixed: crop and points (one choice of points; where a
    crop keeps fewer than are asked for, some come twice), rotation, scale, mirror; centred and
    scaled into the unit ball; jitter. Each transform draws from a key folded with its own name.

    Args:
      group: {"count", transform: fields, ...}.
      field: of the clouds.
      data: not read.
      where: messages begin with it.

    Raises:
      ConfigError: for an unknown transform or field, a value out of range, or more points than
        there are.

    >>> group, cloud = {"count": 2, "points": {"number": 4}}, Field("points", (8, 3), "float16")
    >>> make = views(group, field=cloud, data={}, where="views.a")
    >>> make(jax.random.split(jax.random.key(0), (5, 2)), jnp.ones((5, 8, 3), jnp.float16)).shape
    (5, 2, 4, 3)
    """
    del data
    transforms = parse_group(where, group, TRANSFORMS)
    size = transforms["points"].number if "points" in transforms else field.shape[0]
    if size > field.shape[0]:
        most = field.shape[0]
        raise ConfigError(
            f"{where}.points.number: found {size}, expected at most the {most} stored"
        )
    salts = {name: zlib.crc32(name.encode()) for name in (*TRANSFORMS, "choice")}

    def view(key: jax.Array, x: jax.Array) -> jax.Array:
        keys = {name: jax.random.fold_in(key, np.uint32(salt)) for name, salt in salts.items()}
        rest = {name: t for name, t in transforms.items() if name != "points"}
        if size < len(x) or "crop" in rest:
            x = _chosen(keys, rest.pop("crop", None), x, size)
        jitter = rest.pop("jitter", None)
        for name, transform in rest.items():
            x = transform(keys[name], x)
        x = normalize(x)
        return jitter(keys["jitter"], x) if jitter else x

    of_sample = jax.vmap(view, (0, None))
    return lambda keys, x: jax.vmap(of_sample)(keys, to_float(x))


def plain(x: jax.Array, *, data: Any, size: int = 0) -> jax.Array:
    """The one view without randomness: [B, P, 3] -> float32 [B, size, 3], normalised.

    The points at `size` even places of their order; size 0 is all.

    >>> plain(jnp.array([[[0.0, 0, 0], [2.0, 0, 0]]]), data={})[0, :, 0].tolist()
    [-1.0, 1.0]
    """
    del data
    x = to_float(x)
    if size:
        x = x[:, jnp.arange(size) * x.shape[1] // size]
    return jax.vmap(normalize)(x)


@jax.jit
def raw(x: jax.Array) -> jax.Array:
    """The part of the points in each cell of a grid of 6 x 6 x 6 over [-1, 1]^3, float32 [B, 216].

    >>> raw(jnp.zeros((2, 8, 3))).sum(-1).tolist()
    [1.0, 1.0]
    """
    cell = jnp.clip(jnp.floor((to_float(x) + 1) / 2 * CELLS), 0, CELLS - 1).astype(jnp.int32)
    place = cell @ jnp.array([CELLS**2, CELLS, 1])
    return jax.vmap(lambda p: jnp.bincount(p, length=CELLS**3))(place) / jnp.float32(x.shape[1])


def show(x: np.ndarray) -> np.ndarray:
    """Seen from the front and from above, side by side, uint8 [N, 48, 96, 1], dark on white.

    >>> show(np.zeros((2, 8, 3), np.float32)).shape
    (2, 48, 96, 1)
    """
    x = np.asarray(x, np.float32)
    x = x - x.mean(1, keepdims=True)
    x = x / np.maximum(np.linalg.norm(x, axis=-1).max(1), 1e-6)[:, None, None]
    place = np.clip(((x + 1) / 2 * (PICTURE - 1)).round().astype(int), 0, PICTURE - 1)
    images = np.full((len(x), PICTURE, 2 * PICTURE, 1), 255, np.uint8)
    sample = np.arange(len(x))[:, None]
    images[sample, PICTURE - 1 - place[..., 2], place[..., 0], 0] = 0
    images[sample, PICTURE - 1 - place[..., 1], PICTURE + place[..., 0], 0] = 0
    return images


def to_float(x: jax.Array) -> jax.Array:
    """float32 [B, P, 3] of floating numbers.

    Raises:
      ConfigError: whole numbers, or another shape.
    """
    if x.ndim != 3 or x.shape[-1] != 3 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ConfigError(f"points: found {x.dtype} {tuple(x.shape)}, expected float [B, P, 3]")
    return x.astype(jnp.float32)


def normalize(x: jax.Array) -> jax.Array:
    """(x - mean) / max |x - mean| of x [L, 3]; a single place becomes 0.

    >>> normalize(jnp.array([[1.0, 0, 0], [3.0, 0, 0]]))[:, 0].tolist()
    [-1.0, 1.0]
    """
    x = x - x.mean(0)
    return x / jnp.maximum(jnp.sqrt(jnp.square(x).sum(-1).max()), 1e-6)


def _chosen(keys: Mapping[str, jax.Array], crop: Crop | None, x: jax.Array, size: int) -> jax.Array:
    """`size` of the points x [P, 3], of those that a crop keeps."""
    shuffled = jax.random.permutation(keys["choice"], len(x))
    if crop is None:
        return x[shuffled[:size]]
    rank, kept = crop.order(keys["crop"], x)
    # Those that are kept come first, in a random order, then again.
    order = shuffled[jnp.argsort(rank[shuffled] >= kept, stable=True)]
    return x[order[jnp.arange(size) % kept]]
