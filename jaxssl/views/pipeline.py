"""From a config of view groups to one pure function that makes all views of a batch."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.errors import ConfigError, near
from jaxssl.param_groups import plain
from jaxssl.sharding import on_one_device
from jaxssl.views import colour, geometry
from jaxssl.views.fields import parse, whole
from jaxssl.views.shared import TURNS, Tiles, turned
from jaxssl.views.transforms import TRANSFORMS, Affine, Elastic

MakeViews = Callable[[jax.Array, Mapping[str, jax.Array]], dict[str, jax.Array]]
# Side of a view in pixels from which on a single CPU device makes one at a time: it stays in the
# cache from one transform to the next, and what a draw leaves out is not computed.
LARGE = 64
FIELDS = ("count", "size", "turns", "tiles", *TRANSFORMS)


class Group(NamedTuple):
    """One checked group: `number` views of `size` pixels, and its transforms by name.

    With `turns` or `tiles` all its views are made of one random view, of `drawn` pixels.
    """

    number: int
    size: int
    transforms: dict[str, Any]
    turns: bool = False
    tiles: Tiles | None = None

    @property
    def drawn(self) -> int:
        """Side of the random view."""
        return self.tiles.whole(self.size) if self.tiles else self.size


def build(
    views: Any,
    *,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    dtype: Any = jnp.float32,
) -> MakeViews:
    """A function (key, batch) -> {group: [B, V, h, w, c]} that makes the random views of a batch.

    Of clips or volumes [B, T, H, W, C] it makes [B, V, T, h, w, c]: every transform is drawn once
    for a view and applied alike to all its frames or slices, but the pixels of noise to each anew.

    `views` maps the name of a group to `count` (its number of views V), `size` (their side in
    pixels) and its transforms, each a dict of the fields of its class in `transforms`; for flip,
    vertical_flip, grayscale, blur and solarize a number alone is the probability. A transform that
    is absent, or None, is off. The order is fixed: crop or pad_crop (without them the whole image
    is resized), flip, vertical_flip, affine and elastic (one warp), jitter, grayscale, blur,
    solarize, noise, low_frequency, and last (x - mean) / std.

    Two fields make all views of a group from one random view, drawn as the first of them would be:
    `turns=True` turns it by 0, 90, 180 and 270 degrees (`count` 4), and `tiles=dict(side=3, ...)`
    cuts it into `count` = side² squares of `size` pixels (`shared.Tiles`).

    A view depends on nothing but the key, the sample's `index` and the view's number (`group_ids`),
    so neither its place in the batch, nor the device, nor the rest of the batch changes it. Each
    transform draws from a key folded with its own name, so adding one leaves the others' draws.

    Args:
      views: {group: {"count", "size", transform: fields, ...}}, a `ConfigDict` or a dict.
      mean: per channel, in units of [0, 1], or one number for all.
      std: as `mean`.
      dtype: of the result; the work itself is in float32.

    Returns:
      A function of the step's key and a batch with "image" uint8 [B, H, W, C] or [B, T, H, W, C],
      and "index" [B].

    Raises:
      ConfigError: for an unknown transform or field, or a value out of range; when the function is
        traced, for images that a transform cannot take.

    >>> make = build({"all": {"count": 2, "size": 4, "flip": 0.5}}, mean=0.5, std=0.25)
    >>> batch = {"image": jnp.zeros((3, 8, 8, 1), jnp.uint8), "index": jnp.arange(3)}
    >>> {name: v.shape for name, v in make(jax.random.key(0), batch).items()}
    {'all': (3, 2, 4, 4, 1)}
    """
    groups = _parse_groups(views)
    ids = _number_views(groups)

    def make(key: jax.Array, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        images, index = batch["image"], batch["index"]
        _check_images(images, mean, std)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
        planes = jnp.moveaxis(images, -1, -3)
        return {name: make_group(name, keys, planes) for name in groups}

    def make_group(name: str, keys: jax.Array, planes: jax.Array) -> jax.Array:
        group, numbers = groups[name], jnp.asarray(ids[name], jnp.uint32)

        def view(key: jax.Array, image: jax.Array) -> jax.Array:
            return colour.normalize(_make_view(group, key, colour.to_float(image)), mean, std)

        def last(planes: jax.Array) -> jax.Array:
            return jnp.moveaxis(planes, -3, -1).astype(dtype)

        def of_sample(own: jax.Array, image: jax.Array) -> jax.Array:
            if group.turns:
                return last(turned(view(own[0], image)))
            if group.tiles:
                return last(group.tiles(own, view(own[0], image), group.size))
            return last(jax.vmap(lambda key: view(key, image))(own))

        def one_by_one(own: jax.Array, planes: jax.Array) -> jax.Array:
            if group.turns or group.tiles:
                return jax.lax.map(lambda sample: of_sample(*sample), (own, planes))
            # Channels last while a view is in the cache.
            of_place = lambda key, place: last(view(key, planes[place // group.number]))
            places = own.reshape(-1), jnp.arange(own.size)
            found = jax.lax.map(lambda one: of_place(*one), places)
            return found.reshape(*own.shape, *found.shape[1:])

        # Samples outside, views inside: merging them as (b v) then keeps a sharded batch in place.
        together = jax.vmap(of_sample)
        own = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(keys, numbers)
        try:
            if group.drawn >= LARGE and on_one_device():
                return jax.lax.platform_dependent(own, planes, cpu=one_by_one, default=together)
            return together(own, planes)
        except ConfigError as error:
            raise ConfigError(f"views.{name}.{error}") from None

    return make


def group_ids(views: Any) -> dict[str, tuple[int, ...]]:
    """Group name -> the numbers of its views, counted over all groups in the order of their names.

    >>> group_ids({"local": {"count": 3, "size": 98}, "global": {"count": 2, "size": 224}})
    {'global': (0, 1), 'local': (2, 3, 4)}
    """
    return _number_views(_parse_groups(views))


def evaluation_view(
    image: jax.Array,
    *,
    size: int,
    mean: float | Sequence[float],
    std: float | Sequence[float],
) -> jax.Array:
    """The one view without randomness: uint8 [B, H, W, C] -> float32 [B, size, size, C].

    And of clips or volumes [B, T, H, W, C] -> [B, T, size, size, C]. Bilinear, antialiased resize
    of the whole image, exact where the size already fits; then (x - mean) / std, both in units of
    [0, 1].
    """
    _check_images(image, mean, std)

    def view(one: jax.Array) -> jax.Array:
        planes = jnp.moveaxis(colour.to_float(one), -1, 0)
        return jnp.moveaxis(colour.normalize(geometry.resize(planes, size), mean, std), 0, -1)

    frames = image.reshape(-1, *image.shape[-3:])
    return jax.vmap(view)(frames).reshape(*image.shape[:-3], size, size, image.shape[-1])


def _make_view(group: Group, key: jax.Array, image: jax.Array) -> jax.Array:
    """One view [c, size, size] of one float image, not yet normalised; or one of all frames."""
    transforms = dict(group.transforms)
    # A key depends on the name alone; folding all names at once compiles one hash, not one each.
    salts = np.array([zlib.crc32(name.encode()) for name in transforms], np.uint32)
    keys = dict(zip(transforms, jax.vmap(jax.random.fold_in, (None, 0))(key, salts)))
    noise, low = (transforms.pop(name, None) for name in ("noise", "low_frequency"))

    def of_frame(frame: jax.Array) -> jax.Array:
        return _transform(transforms, keys, frame, group.drawn)

    # The keys are the same for all frames, so are the draws; noise alone sees the whole clip.
    image = of_frame(image) if image.ndim == 3 else jax.vmap(of_frame)(image)
    image = noise(keys["noise"], image) if noise else image
    return low(keys["low_frequency"], image) if low else image


def _transform(
    transforms: Mapping[str, Any], keys: Mapping[str, jax.Array], image: jax.Array, size: int
) -> jax.Array:
    """All transforms of one float image, in their order."""
    rest = dict(transforms)
    if "crop" in rest:  # which flips at no cost
        flips = ("vertical_flip", "flip")
        mirrored = [rest.pop(n).draw(keys[n]) if n in rest else False for n in flips]
        image = rest.pop("crop")(keys["crop"], image, size, tuple(mirrored))
    elif "pad_crop" in rest:
        image = rest.pop("pad_crop")(keys["pad_crop"], image, size)
    else:
        image = geometry.resize(image, size)
    affine, elastic = rest.pop("affine", None), rest.pop("elastic", None)
    for name in ("flip", "vertical_flip"):
        if name in rest:
            image = rest.pop(name)(keys[name], image)
    if affine or elastic:
        image = _warp(affine, elastic, keys, image)
    for name, transform in rest.items():
        image = transform(keys[name], image)
    return image


def _warp(
    affine: Affine | None,
    elastic: Elastic | None,
    keys: Mapping[str, jax.Array],
    image: jax.Array,
) -> jax.Array:
    inverse = shift = displacement = None
    if affine:
        inverse, shift = affine.sample(keys["affine"])
    if elastic:
        displacement = elastic.sample(keys["elastic"], image.shape[-1])
    fill = (affine or elastic).fill  # type: ignore[union-attr]
    return geometry.warp(image, inverse, shift, displacement, fill)


def _parse_groups(views: Any) -> dict[str, Group]:
    """Check everything that a config says; groups by name, transforms in order of application."""
    names = sorted(views.keys()) if views else ()
    if not names:
        raise ConfigError("views: found no group, expected at least one, with count and size")
    return {name: _parse_group(f"views.{name}", views[name]) for name in names}


def _parse_group(where: str, config: Any) -> Group:
    if not hasattr(config, "items"):
        raise ConfigError(f"{where}: found {config!r}, expected a dict with count and size")
    given = plain(config)
    for name in given:
        if name not in FIELDS:
            raise ConfigError(f"{where}.{name}: no such transform{near(name, FIELDS)}")
    for name in ("count", "size"):
        if name not in given:
            raise ConfigError(f"{where}.{name}: missing, expected a whole number >= 1")
    transforms: dict[str, Any] = {
        name: parse(kind, f"{where}.{name}", given[name])
        for name, kind in TRANSFORMS.items()
        if given.get(name) is not None
    }
    transforms = {n: t for n, t in transforms.items() if getattr(t, "probability", 1.0) > 0.0}
    if "crop" in transforms and "pad_crop" in transforms:
        raise ConfigError(f"{where}.pad_crop: found beside crop, expected one of the two")
    fills = {transforms[n].fill for n in ("affine", "elastic") if n in transforms}
    if len(fills) > 1:
        raise ConfigError(
            f"{where}.elastic.fill: found {transforms['elastic'].fill!r}, expected"
            f" {transforms['affine'].fill!r} as in affine, with which it shares one warp"
        )
    count = whole(f"{where}.count", given["count"], 1)
    size = whole(f"{where}.size", given["size"], 1)
    return _check_shared(where, Group(count, size, transforms, *_shared(where, given)))


def _shared(where: str, given: Mapping[str, Any]) -> tuple[bool, Tiles | None]:
    """The fields that make all views of a group from one."""
    turns, tiles = given.get("turns") or False, given.get("tiles")
    if not isinstance(turns, bool):
        raise ConfigError(f"{where}.turns: found {turns!r}, expected True or False")
    return turns, None if tiles is None else parse(Tiles, f"{where}.tiles", tiles)


def _check_shared(where: str, group: Group) -> Group:
    """The group itself, once its views are as many as the turns or the tiles of one view."""
    if group.turns and group.tiles:
        raise ConfigError(f"{where}.tiles: found beside turns, expected one of the two")
    if group.turns and group.number != TURNS:
        raise ConfigError(f"{where}.count: found {group.number}, expected {TURNS} with turns")
    if group.tiles and group.number != group.tiles.side**2:
        raise ConfigError(
            f"{where}.count: found {group.number}, expected {group.tiles.side**2}, the tiles of"
            f" tiles.side = {group.tiles.side}"
        )
    if group.tiles and "low_frequency" in group.transforms:
        raise ConfigError(f"{where}.low_frequency: found beside tiles, expected one of the two")
    return group


def _number_views(groups: Mapping[str, Group]) -> dict[str, tuple[int, ...]]:
    ids, first = {}, 0
    for name, group in groups.items():
        ids[name] = tuple(range(first, first + group.number))
        first += group.number
    return ids


def _check_images(
    images: jax.Array, mean: float | Sequence[float], std: float | Sequence[float]
) -> None:
    if images.ndim not in (4, 5) or images.dtype != jnp.uint8:
        raise ConfigError(
            f"image: found {images.dtype} {tuple(images.shape)}, expected uint8 [B, H, W, C] "
            "or [B, T, H, W, C]"
        )
    for name, value in (("mean", mean), ("std", std)):
        if np.size(value) not in (1, images.shape[-1]):
            raise ConfigError(
                f"{name}: found {np.size(value)} values, expected 1 or {images.shape[-1]},"
                " the channels of the images"
            )
