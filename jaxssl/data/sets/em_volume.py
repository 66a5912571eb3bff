"""Cubes cut from a small volume of electron microscopy: slices of tissue with its membranes marked.

The file `em_membrane.npz` holds `images` uint8 [Z, H, W], `masks` [Z, H, W] (0 where a membrane is)
and `split` [Z], "train" or "test" for each slice. Cubes lie within slices of one split, so no voxel
is in both, and those of a split overlap by half along each axis. The slices of a split follow one
another in the file.
"""

import pathlib
from typing import Any

import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.data.formats.archive import opened
from jaxssl.data.images import ImageSource, Options, options
from jaxssl.data.source import Array, stored_at

FILE = "em_membrane.npz"
SLICES = 8
SIZE = 32
LABELS = ("few membranes", "some membranes", "many membranes")


def open(config: Any, split: str) -> "EmVolume":
    """Opens the cubes: `data.frames` (8) slices of `data.size` (32) pixels of the full resolution.

    The label is the third, by their share of membrane, that a cube would be in among the training
    cubes.
    """
    opts = options(config)
    opts = opts._replace(frames=opts.frames or SLICES, size=opts.size or SIZE)
    file = stored_at(config)
    file = file / FILE if file.is_dir() else file
    if not file.is_file():
        raise ConfigError(f"data.path: {file} is not there; expected {FILE} or its folder")
    with opened(file) as arrays:
        images, masks, named = arrays["images"], arrays["masks"], arrays["split"]
    _check_arrays(file, images, masks, named)
    splits = {name: named == name for name in ("train", "test")}
    membrane = masks == 0
    _check(images, splits, opts)
    shares = _shares(membrane[splits["train"]], opts)
    bounds = np.quantile(shares, (1 / 3, 2 / 3))
    own = _shares(membrane[splits[split]], opts)
    return EmVolume(split, images[splits[split]], np.searchsorted(bounds, own), opts)


class EmVolume(ImageSource):
    """Cubes uint8 [T, S, S, C], T slices deep, of one stack of slices [Z, H, W].

    Attributes:
      corners: of each cube, its first slice, row and column in the stack, [N, 3].
    """

    def __init__(self, split: str, stack: Array, labels: Array, opts: Options):
        self.corners = _corners(stack.shape, opts)
        self._stack, self._labels = stack, labels
        super().__init__(f"em_volume {split}", len(self.corners), LABELS, opts, None)

    def read(self, i: int) -> tuple[Array, int]:
        """Cube i as stored."""
        return self._stack[_box(self.corners[i], self._options)][..., None], int(self._labels[i])


def _check_arrays(file: pathlib.Path, images: Array, masks: Array, named: Array) -> None:
    if images.dtype != np.uint8 or images.ndim != 3:
        found = f"images is {images.dtype} {list(images.shape)}"
        raise ConfigError(f"data.path: {file}: {found}; expected uint8 [Z, H, W]")
    if masks.shape != images.shape or masks.dtype.kind not in "biu":
        found = f"masks is {masks.dtype} {list(masks.shape)}"
        raise ConfigError(f"data.path: {file}: {found}; expected whole numbers, as the images")
    if named.shape != images.shape[:1] or named.dtype.kind != "U":
        found = f"split is {named.dtype} {list(named.shape)}"
        raise ConfigError(f"data.path: {file}: {found}; expected a name for each of the slices")
    for name in ("train", "test"):
        if not (named == name).any():
            found = ", ".join(sorted(set(named.tolist()))[:5])
            raise ConfigError(f"data.path: {file} has no slice of {name}; found {found or 'none'}")


def _check(images: Array, splits: dict[str, Array], opts: Options) -> None:
    depth = min(int(mine.sum()) for mine in splits.values())
    if opts.frames > depth:
        found = f"data.frames: found {opts.frames}"
        raise ConfigError(f"{found}, expected at most {depth}, the slices of the smaller split")
    if opts.size > min(images.shape[1:]):
        found = f"data.size: found {opts.size}"
        raise ConfigError(f"{found}, expected at most {min(images.shape[1:])} pixels")


def _corners(shape: tuple[int, ...], opts: Options) -> Array:
    """Corners [N, 3] of cubes half a cube apart."""
    sides = (opts.frames, opts.size, opts.size)
    starts = [range(0, n - s + 1, max(1, s // 2)) for n, s in zip(shape, sides, strict=True)]
    return np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 3)


def _box(corner: Array, opts: Options) -> tuple[slice, ...]:
    sides = (opts.frames, opts.size, opts.size)
    return tuple(slice(first, first + side) for first, side in zip(corner, sides, strict=True))


def _shares(membrane: Array, opts: Options) -> Array:
    """The share of membrane in each cube, [N]."""
    return np.array([membrane[_box(c, opts)].mean() for c in _corners(membrane.shape, opts)])
