"""Sources of images, clips and volumes: decoded, cached and brought to one shape."""

import abc
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxssl.config.errors import ConfigError, near
from jaxssl.data.bad import POLICIES, BadRecords, Ledger, Unreadable
from jaxssl.data.formats.archive import class_numbers
from jaxssl.data.formats.decoding import decoded
from jaxssl.data.source import Array
from jaxssl.method import INDEX, LABEL, Field


class Options(NamedTuple):
    """How images are stored: `size` in pixels, `channels` and, of a clip or a volume, `frames`
    (0: as they are); the `cache`; and what happens at a record that cannot be decoded."""

    size: int = 0
    channels: int = 0
    cache: str = "memory"
    frames: int = 0
    on_bad_record: str = "error"


def options(config: Any) -> Options:
    """Reads and checks `data.size`, `.channels`, `.cache`, `.frames` and `.on_bad_record`."""
    found = Options(
        config.get("size", 0) or 0,
        config.get("channels", 0) or 0,
        config.get("cache", "memory") or "memory",
        config.get("frames", 0) or 0,
        config.get("on_bad_record", "error") or "error",
    )
    if not _is_count(found.size):
        raise ConfigError(f"data.size: {found.size!r} is not a number of pixels (0: as stored)")
    if not _is_count(found.frames):
        raise ConfigError(f"data.frames: {found.frames!r} is not a number of frames (0: as stored)")
    if not _is_count(found.channels) or found.channels not in (0, 1, 3):
        raise ConfigError(f"data.channels: {found.channels!r} is none of 1, 3, 0 (0: as stored)")
    if found.cache not in ("memory", "none"):
        near_name = near(str(found.cache), ("memory", "none"))
        raise ConfigError(f"data.cache: {found.cache!r} is neither 'memory' nor 'none'{near_name}")
    if found.on_bad_record not in POLICIES:
        near_name = near(str(found.on_bad_record), POLICIES)
        raise ConfigError(
            f"data.on_bad_record: {found.on_bad_record!r} is neither 'error' nor 'skip'{near_name}"
        )
    return found


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def image_fields(shape: Sequence[int], labelled: bool = True) -> dict[str, Field]:
    """The fields of a set of images: `index`, `image` and maybe `label`.

    Args:
      shape: of an image, [H, W, C], or of a clip or a volume, [T, H, W, C].
      labelled: whether each has the number of its class.

    >>> image_fields((8, 8, 1))["image"].dtype
    'uint8'
    """
    fields = {"index": INDEX, "image": Field("image", tuple(shape), "uint8")}
    return {**fields, "label": LABEL} if labelled else fields


class ImageSource(abc.ABC):
    """Samples by position, for one split: `source[i]` is a dict of numpy values.

    Every sample has `index` (int32; its position, the same in every run), `image` (uint8
    [H, W, C], of a clip or a volume [T, H, W, C]; one shape for all) and, where the set has
    labels, `label` (int32). A source is picklable, may be read from several threads, and its
    cache (filled as samples are first read) stays behind when it is pickled.

    A record that cannot be decoded is an error that names it, `BadRecords`. With
    `data.on_bad_record` "skip" whoever asked is to do without it, as the batches of
    `jaxssl.data.pipeline` do, and the other samples remain.

    A subclass implements `read`, and calls `__init__` when `read` works. Where it can, it says in
    `where` in which file a sample lies.

    Attributes:
      name: for people, e.g. "packed_jpeg cifar10 train".
      label_names: one name per class, () without labels.
      fingerprint: a short hash of what identifies the samples; equal in every process.
      fields: name in a batch -> its kind, shape and dtype.
    """

    def __init__(
        self,
        name: str,
        num_samples: int,
        label_names: Sequence[str],
        opts: Options,
        identity: object,
    ):
        if num_samples == 0:
            raise ConfigError(f"data.path: {name} has no samples")
        self.name = name
        self.label_names = tuple(str(label) for label in label_names)
        self._num_samples = num_samples
        self._options = opts
        self._shape: tuple[int, ...] | None = None
        self._labelled = False
        self._ledger = Ledger()
        first, label = self._first_sample()
        self._labelled = label is not None
        self._shape = first.shape
        if opts.frames and first.shape[:-3] != (opts.frames,):
            stored = f"clips of {first.shape[0]}" if first.ndim == 4 else "images"
            raise ConfigError(f"data.frames: found {opts.frames}, but {name} holds {stored}")
        self.fields: Mapping[str, Field] = image_fields(first.shape, labelled=label is not None)
        facts = (name, num_samples, self.label_names, opts.size, opts.channels, first.shape)
        digest = hashlib.blake2b(repr((facts, identity)).encode(), digest_size=8)
        digest.update(first.tobytes())
        self.fingerprint = digest.hexdigest()
        self._cache: _Cache | None = self._new_cache()

    @abc.abstractmethod
    def read(self, i: int) -> tuple[Image.Image | Array, int | None]:
        """Sample i as stored, and its label: an image (PIL, or uint8 [H, W] or [H, W, C]), or the
        frames of a clip, uint8 [T, H, W, C]. Raises `Unreadable` where its bytes hold none."""

    def where(self, i: int) -> str:
        """Sample i for people: its file, and its place there."""
        return f"sample {i} of {self.name}"

    @property
    def bad_records(self) -> list[str]:
        """A line on each record met so far that could not be decoded, in the order of the samples.

        Processes and threads meet what they read: each process has its own list.
        """
        return self._ledger.lines()

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 without labels."""
        return len(self.label_names)

    def __len__(self) -> int:
        return self._num_samples

    def __getitem__(self, i: int) -> dict[str, Any]:
        if not -len(self) <= i < len(self):
            raise IndexError(f"{self.name} has {len(self)} samples, not one at {i}")
        return {key: value[0] for key, value in self.rows([i % len(self)]).items()}

    def rows(self, indices: Sequence[int] | Array) -> dict[str, Array]:
        """The samples at `indices`, stacked: index [B], image [B, ...] and maybe label [B]."""
        index = np.asarray(indices, np.int32)
        images, labels = self.gather(index)
        batch = {"index": index, "image": images}
        return {**batch, "label": labels} if "label" in self.fields else batch

    def gather(self, index: Array) -> tuple[Array, Array]:
        """Images [B, ...] and labels [B] (-1: none) at `index`, decoded or from the cache.

        Raises:
          BadRecords: some cannot be decoded; of those known to be bad nothing is read again.
        """
        self._refuse_known(index)
        cache = self._cache
        if cache is None:
            target, wanted, places = self._arrays(len(index)), index, range(len(index))
        else:
            wanted = index[~cache.filled[index]]
            target, places = cache, wanted.tolist()
        for place, i in zip(places, wanted.tolist()):
            try:
                image, label = self._sample(i)
            except Unreadable as error:
                self._note(i, error)
                if self._options.on_bad_record == "error":
                    break
                continue  # to know all the bad ones at once
            target.images[place] = image
            target.labels[place] = -1 if label is None else label
            target.filled[place] = True  # last: another thread must not see it half written
        self._refuse_known(index)
        if cache is None:
            return target.images, target.labels
        return target.images[index], target.labels[index]

    def _first_sample(self) -> tuple[Array, int | None]:
        """The first sample that can be decoded: the shape of all is its shape."""
        for i in range(self._num_samples):
            try:
                return self._sample(i)
            except Unreadable as error:
                self._note(i, error)
                if self._options.on_bad_record == "error":
                    self._refuse_known(np.array([i]))
        first = self.bad_records[0].removeprefix("data.path: ")
        raise ConfigError(
            f"data.path: {self.name} has no sample that can be decoded, of {self._num_samples}; "
            f"{first}"
        )

    def _note(self, i: int, error: Unreadable) -> None:
        self._ledger.add(i, f"data.path: {self.where(i)}: {error}")

    def _refuse_known(self, index: Array) -> None:
        bad = self._ledger.among(index)
        if bad.any():
            line = self._ledger.line(int(index[np.argmax(bad)]))
            raise BadRecords(line, bad, skip=self._options.on_bad_record == "skip")

    def _sample(self, i: int) -> tuple[Array, int | None]:
        stored, label = self.read(i)
        if label is None and self._labelled:
            raise Unreadable("it has no label, as others have")
        if label is not None and not 0 <= label < self.num_classes:
            raise Unreadable(f"its label is {label}, and there are {self.num_classes} classes")
        if isinstance(stored, np.ndarray) and stored.dtype != np.uint8:
            raise ConfigError(
                f"data.source: {self.where(i)} is {stored.dtype} {list(stored.shape)}, expected "
                "uint8 pixels; another type is never cast in silence"
            )
        image = fit(stored, self._options)
        if self._shape not in (None, image.shape):
            raise ConfigError(
                f"data.size: 0 keeps images as stored, but in {self.name} sample {i} has the shape "
                f"{image.shape} and the first {self._shape}: {self.where(i)}; set data.size and "
                "data.channels"
            )
        return image, label

    def _arrays(self, n: int) -> "_Cache":
        images = np.empty((n, *self.fields["image"].shape), np.uint8)
        return _Cache(images, np.empty(n, np.int32), np.zeros(n, bool))

    def _new_cache(self) -> "_Cache | None":
        if self._options.cache == "none":
            return None
        needed = len(self) * int(np.prod(self.fields["image"].shape)) / 2**30
        present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        if needed > present / 2:
            raise ConfigError(
                f"data.cache: 'memory' would take {needed:.0f} GiB for {self.name}, and this "
                f"machine has {present:.0f}; set data.cache=none or a smaller data.size"
            )
        return self._arrays(len(self))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cache = self._new_cache()


class _Cache(NamedTuple):
    images: Array
    labels: Array
    filled: Array


class ArraySource(ImageSource):
    """Arrays in memory as a source: images uint8 [N, H, W] or [N, H, W, C], or clips
    [N, T, H, W, C]; labels [N] or None. `place` is how messages call what they lie in."""

    def __init__(
        self,
        name: str,
        images: Array,
        labels: Array | None,
        label_names: Sequence[str] = (),
        opts: Options | None = None,
        place: str = "",
    ):
        self._place = place or name
        if images.dtype != np.uint8 or images.ndim not in (3, 4, 5) or 0 in images.shape[1:]:
            raise ConfigError(
                f"data.path: images of {self._place} are {images.dtype} {list(images.shape)}, "
                "expected uint8 [N, H, W], [N, H, W, C] or [N, T, H, W, C]"
            )
        if not len(images):
            raise ConfigError(f"data.path: {self._place} has no samples")
        if labels is not None:
            known = len(label_names) or None
            labels = class_numbers(labels, f"labels of {self._place}", len(images), known)
            label_names = label_names or tuple(str(c) for c in range(int(labels.max()) + 1))
        self.images = images[..., None] if images.ndim == 3 else images
        self.labels = labels
        identity = None if labels is None else hashlib.blake2b(labels.tobytes()).hexdigest()
        super().__init__(name, len(images), label_names, opts or Options(), identity)

    def read(self, i: int) -> tuple[Array, int | None]:
        """Sample i as stored."""
        return self.images[i], None if self.labels is None else int(self.labels[i])

    def where(self, i: int) -> str:
        """Sample i for people: its place in the arrays."""
        return f"sample {i} of {self._place}"

    def gather(self, index: Array) -> tuple[Array, Array]:
        """Images and labels at `index`, straight from the arrays where no resizing is wanted."""
        if not self._as_stored():
            return super().gather(index)
        labels = np.full(len(index), -1, np.int32) if self.labels is None else self.labels[index]
        return self.images[index], labels

    def _as_stored(self) -> bool:
        return self.fields["image"].shape == self.images.shape[1:]

    def _new_cache(self) -> "_Cache | None":
        # The arrays themselves are what a cache would hold, unless images are resized.
        return None if self._as_stored() else super()._new_cache()


class EncodedSource(ImageSource):
    """A source of image files (JPEG, PNG, ...), wherever their bytes come from."""

    @property
    def stored(self) -> bool:
        """Whether samples are the image files as they are, neither resized nor converted."""
        return self._options.size == 0 and self._options.channels == 0

    @abc.abstractmethod
    def encoded(self, i: int) -> tuple[bytes, int | None]:
        """The bytes of the image file of sample i, and its label. Raises as `read`."""

    def read(self, i: int) -> tuple[Image.Image, int | None]:
        """Sample i, decoded."""
        try:
            content, label = self.encoded(i)
        except OSError as error:
            raise ConfigError(f"data.path: {self.where(i)}: {error.strerror or error}") from error
        return decoded(content), label


def fit(image: Image.Image | Array, opts: Options) -> Array:
    """The image as uint8 [H, W, C]: its centre square at `size` pixels, in 1 or 3 `channels`.

    Resizing is bicubic and antialiased. Size 0 and channels 0 keep what is stored, but images that
    are neither grey nor RGB become RGB. Of a clip [T, H, W, C], each frame is fitted alike.
    """
    if isinstance(image, np.ndarray) and image.ndim == 4:
        return np.stack([fit(frame, opts) for frame in image])
    if isinstance(image, np.ndarray):
        channels = image.shape[2] if image.ndim == 3 else 1
        done = opts.size in (0, image.shape[0]) and opts.channels in (0, channels)
        if done and (opts.size == 0 or image.shape[0] == image.shape[1]):
            return image.reshape(*image.shape[:2], channels)
        try:
            image = Image.fromarray(image[..., 0] if image.ndim == 3 and channels == 1 else image)
        except TypeError as error:
            found = f"it has {channels} channels"
            raise Unreadable(f"{found}, expected 1, 3 or 4 to be resized or converted") from error
    if image.mode.startswith(("I", "F")):
        raise Unreadable(f"its pixels have the mode {image.mode!r}, expected 8-bit pixels")
    grey = image.mode in ("1", "L")
    mode = {0: "L" if grey else "RGB", 1: "L", 3: "RGB"}[opts.channels]
    image = image if image.mode == mode else image.convert(mode)
    if opts.size and image.size != (opts.size, opts.size):
        short = min(image.size)
        left, top = ((side - short) // 2 for side in image.size)
        box = (left, top, left + short, top + short)
        image = image.resize((opts.size, opts.size), Image.Resampling.BICUBIC, box=box)
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)
