"""From a group of views in a config to the pure function that makes them."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.devices.sharding import on_one_device
from jaxssl.method import Field
from jaxssl.modalities.image import colour, geometry
from jaxssl.modalities.image.shared import TURNS, Tiles, turned
from jaxssl.modalities.image.transforms import TRANSFORMS, Affine, Elastic
from jaxssl.modalities.parameters import parse, parse_group, whole

MakeGroup = Callable[[jax.Array, jax.Array], jax.Array]
# Side of a view in pixels from which on a single CPU device makes one at a time: it stays in the
# cache from one transform to the next, and what a draw leaves out is not computed.
LARGE = 64


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


def views(group: Mapping[str, Any], *, field: Field, data: Any, where: str) -> MakeGroup:
    """A function (keys [B, V], images [B, H, W, C]) -> views [B, V, h, w, c], one for each key.

    Of clips or volumes [B, T, H, W, C] it makes [B, V, T, h, w, c]: every transform is drawn once
    for a view and applied alike to all its frames or slices, but the pixels of noise to each anew.

    A group has `count` (its number of views V), `size` (their side in pixels) and transforms, each
    a dict of the fields of its class in `transforms`; for flip, vertical_flip, grayscale, blur and
    solarize a number alone is the probability. A transform that is absent, or None, is off. The
    order is fixed: crop or pad_crop (without them the whole image is resized), flip, vertical_flip,
    affine and elastic (one warp), jitter, grayscale, blur, solarize, noise, low_frequency, and last
    (x - mean) / std.

    Two fields make all views of a group from one random view, drawn as the first of them would be:
    `turns=True` turns it by 0, 90, 180 and 270 degrees (`count` 4), and `tiles=dict(side=3, ...)`
    cuts it into `count` = side² squares of `size` pixels (`shared.Tiles`).

    Each transform draws from a key folded with its own name, so adding one leaves the others'
    draws. The work is in float32.

    Args:
      group: {"count", "size", transform: fields, ...}.
      field: of the images.
      data: with `mean` and `std`, per channel, in units of [0, 1], or one number for all.
      where: messages begin with it.

    Raises:
      ConfigError: for an unknown transform or field, or a value out of range; when the function is
        traced, for images that a transform cannot take.
    """
    del field  # images of any size are taken
    checked, mean, std = _parse_group(where, group), data["mean"], data["std"]

    def view(key: jax.Array, image: jax.Array) -> jax.Array:
        return colour.normalize(_make_view(checked, key, colour.to_float(image)), mean, std)

    def last(planes: jax.Array) -> jax.Array:
        return jnp.moveaxis(planes, -3, -1)

    def of_sample(own: jax.Array, image: jax.Array) -> jax.Array:
        if checked.turns:
            return last(turned(view(own[0], image)))
        if checked.tiles:
            return last(checked.tiles(own, view(own[0], image), checked.size))
        return last(jax.vmap(lambda key: view(key, image))(own))

    def one_by_one(own: jax.Array, planes: jax.Array) -> jax.Array:
        if checked.turns or checked.tiles:
            return jax.lax.map(lambda sample: of_sample(*sample), (own, planes))
        # Channels last while a view is in the cache.
        of_place = lambda key, place: last(view(key, planes[place // checked.number]))
        places = own.reshape(-1), jnp.arange(own.size)
        found = jax.lax.map(lambda one: of_place(*one), places)
        return found.reshape(*own.shape, *found.shape[1:])

    # Samples outside, views inside: merging them as (b v) then keeps a sharded batch in place.
    together = jax.vmap(of_sample)

    def make(keys: jax.Array, images: jax.Array) -> jax.Array:
        _check_images(images, mean, std)
        planes = jnp.moveaxis(images, -1, -3)
        try:
            if checked.drawn >= LARGE and on_one_device():
                return jax.lax.platform_dependent(keys, planes, cpu=one_by_one, default=together)
            return together(keys, planes)
        except ConfigError as error:
            raise ConfigError(f"{where}.{error}") from None

    return make


def plain(x: jax.Array, *, data: Any, size: int = 0) -> jax.Array:
    """The one view without randomness: uint8 [B, H, W, C] -> float32 [B, size, size, C].

    And of clips or volumes [B, T, H, W, C] -> [B, T, size, size, C]. Bilinear, antialiased resize
    of the whole image, exact where the size already fits; then (x - mean) / std, both in units of
    [0, 1]. Size 0 is the width that is stored.
    """
    size, mean, std = size or x.shape[-2], data["mean"], data["std"]
    _check_images(x, mean, std)

    def view(one: jax.Array) -> jax.Array:
        planes = jnp.moveaxis(colour.to_float(one), -1, 0)
        return jnp.moveaxis(colour.normalize(geometry.resize(planes, size), mean, std), 0, -1)

    frames = x.reshape(-1, *x.shape[-3:])
    return jax.vmap(view)(frames).reshape(*x.shape[:-3], size, size, x.shape[-1])


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


def _parse_group(where: str, config: Mapping[str, Any]) -> Group:
    given = dict(config)
    transforms = parse_group(where, given, TRANSFORMS, "size", "turns", "tiles")
    if "size" not in given:
        raise ConfigError(f"{where}.size: missing, expected a whole number >= 1")
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
