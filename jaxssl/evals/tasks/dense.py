"""A linear classifier of patches, judged pixel by pixel: how well features say what is where."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jaxssl import modalities
from jaxssl.config.errors import ConfigError
from jaxssl.data import Source
from jaxssl.evals.features import Features, place, replicate, standardise, to_host
from jaxssl.evals.probes import logistic
from jaxssl.evals.subject import Subject, other_source
from jaxssl.modalities.image import geometry

NEEDS_LABELS = False  # of images; those of pixels come with the source
OF_KIND = "image"
PROTOCOL: dict[str, Any] = {
    "source": "",
    "path": "",
    "size": 96,
    "limit": 1000,
    "patches": 32,
    "c": 1.0,
    "max_iterations": 100,
    "seed": 0,
}
_PRECISE = jax.lax.Precision.HIGHEST


def examine(
    subject: Subject,
    *,
    source: str = "",
    path: str = "",
    size: int = 96,
    limit: int = 1000,
    patches: int = 32,
    c: float = 1.0,
    max_iterations: int = 100,
    seed: int = 0,
) -> dict[str, float]:
    """Segmentation by one multinomial logistic regression on the frozen features of patches.

    The classifier (`logistic.fit`, on features that went through `features.standardise`) learns
    the most frequent class of random patches of the training images, and gives logits for every
    patch of the held-out ones, which are interpolated bilinearly to their pixels. Pixels of no
    class are left out of both. Oquab et al. (2023), DINOv2: learning robust visual features without
    supervision, arXiv 2304.07193 (its linear segmentation; there trained through pixels).

      IoU_k = |predicted k and is k| / |predicted k or is k|

    Args:
      subject: its encoder's "tokens", one for each cell of a square grid; of raw input, all the
        pixels of a cell of the encoder's own grid.
      source: a data set with `pixel_label_names` and the field "labels", uint8 [H, W]; "": the
        run's own.
      path: as `data.path`, of that set.
      size: as `data.size`, of that set.
      limit: how many of its training and of its held-out images.
      patches: how many of each training image the classifier learns.
      c, max_iterations: of the classifier, as of `linear`.
      seed: of the choice of patches.

    Returns:
      {"mean_iou": mean of IoU_k over the classes that the held-out pixels have, "pixel_accuracy":
      share of the pixels that get their class}.

    Raises:
      ConfigError: the data set cannot be opened, has no labels of pixels or no square images; or
        the encoder gives no square grid.
      FloatingPointError: features are not finite.
    """
    train, test = _sources(subject, source, path, size)
    classes, grid = _classes(train), _grid(subject, train)
    rows: list[tuple[np.ndarray, ...]] = []
    for batch, valid in subject.batches(train, limit=limit):
        tokens = _tokens(subject, train, batch, grid)
        some = _patches(
            tokens, batch["labels"], batch["index"], classes=classes, count=patches, seed=seed
        )
        x, y, taken = (to_host(array) for array in some)
        keep = taken & to_host(valid)[:, None]
        rows.append((x[keep], y[keep]))
    x, y = (np.concatenate(parts) for parts in zip(*rows))
    bank = Features(x, y, np.arange(len(x)))
    if not np.isfinite(bank.x).all():
        raise FloatingPointError(
            f"the {subject.kind} features are not all finite: the encoder overflows"
        )
    bank, unit = standardise(bank, Features(np.stack([0 * x[0], 0 * x[0] + 1]), y[:2], y[:2]))
    model = _fit(place(bank), c, num_classes=classes, max_iterations=max_iterations)
    # Where 0 and 1 went says how: x (one - zero) + zero.
    shift, scale = replicate(unit.x[0]), replicate(unit.x[1] - unit.x[0])

    counts = np.zeros((3, classes), np.int64)
    for batch, valid in subject.batches(test, limit=limit):
        tokens = _tokens(subject, test, batch, grid) * scale + shift
        counts += to_host(_counts(model, tokens, batch["labels"], valid)).astype(np.int64)
    right, predicted, actual = counts
    iou = right / np.maximum(predicted + actual - right, 1)
    return {
        "mean_iou": float(iou[actual > 0].mean()),
        "pixel_accuracy": float(right.sum() / actual.sum()),
    }


def patch_labels(labels: jax.Array, grid: int, classes: int) -> jax.Array:
    """The most frequent class of the pixels of each cell of a grid, -1 where there is none.

    Args:
      labels: [B, H, W]; a label outside 0 ... classes - 1 is of no class.
      grid: cells along each axis; a pixel belongs to the cell that its centre is in.
      classes: K.

    Returns:
      int32 [B, grid, grid].

    >>> patch_labels(jnp.array([[[1, 1, 9, 9], [0, 0, 9, 1]]]), grid=2, classes=2).tolist()
    [[[1, -1], [0, 1]]]
    """
    cells = [
        (np.floor((np.arange(n) + 0.5) * grid / n) == np.arange(grid)[:, None]).astype(np.float32)
        for n in labels.shape[1:]
    ]

    def best(k: jax.Array, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        count = jnp.einsum("gh,bhw,fw->bgf", cells[0], (labels == k).astype(jnp.float32), cells[1])
        more = count > found[1]
        return jnp.where(more, k, found[0]), jnp.maximum(count, found[1])

    # Class by class: no array has both all pixels and all classes.
    none = jnp.full((len(labels), grid, grid), -1, jnp.int32)
    return jax.lax.fori_loop(0, classes, best, (none, jnp.zeros(none.shape)))[0]


@functools.partial(jax.jit, static_argnames=("classes", "count", "seed"))
def _patches(
    tokens: jax.Array,
    labels: jax.Array,
    index: jax.Array,
    *,
    classes: int,
    count: int,
    seed: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Random patches that have a class: x [B, count, D], y [B, count], whether it is one."""
    grid = math.isqrt(tokens.shape[1])
    y = patch_labels(labels, grid, classes).reshape(len(labels), -1)

    def some(
        x: jax.Array, y: jax.Array, index: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        draw = jax.random.uniform(jax.random.fold_in(jax.random.key(seed), index), y.shape)
        places = jax.lax.top_k(jnp.where(y >= 0, draw, -1.0), min(count, len(y)))[1]
        return x[places], y[places], y[places] >= 0

    found: tuple[jax.Array, jax.Array, jax.Array] = jax.vmap(some)(tokens, y, index)
    return found


@functools.partial(jax.jit, static_argnames=("num_classes", "max_iterations"))
def _fit(train: Any, c: jax.Array, *, num_classes: int, max_iterations: int) -> logistic.Linear:
    return logistic.fit(*train, num_classes=num_classes, c=c, max_iterations=max_iterations)


@jax.jit
def _counts(
    model: logistic.Linear, tokens: jax.Array, labels: jax.Array, valid: jax.Array
) -> jax.Array:
    """int32 [3, K]: pixels of each class that are predicted as such, are predicted, and are."""
    grid, classes = math.isqrt(tokens.shape[1]), len(model.bias)
    logits = rearrange(model.logits(tokens), "b (h w) k -> k b h w", h=grid)
    rows, columns = (geometry.resize_weights(0, grid, grid, n) for n in labels.shape[1:])

    def best(k: jax.Array, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        of_pixels = jnp.einsum("hp,bpq,wq->bhw", rows, logits[k], columns, precision=_PRECISE)
        more = of_pixels > found[1]
        return jnp.where(more, k, found[0]), jnp.maximum(of_pixels, found[1])

    start = jnp.zeros(labels.shape, jnp.int32), jnp.full(labels.shape, -jnp.inf)
    predicted = jax.lax.fori_loop(0, classes, best, start)[0]
    has_class = (labels < classes) & valid[:, None, None]

    def count(k: jax.Array) -> jax.Array:
        said, meant = (predicted == k) & has_class, (labels == k) & has_class
        return jnp.stack([(said & meant).sum(), said.sum(), meant.sum()])

    return jax.lax.map(count, jnp.arange(classes)).T


def _tokens(
    subject: Subject, source: Source, batch: Mapping[str, jax.Array], grid: int
) -> jax.Array:
    """[B, T, D], T cells of a square grid, row by row."""
    if subject.state is None:
        return _cells(batch[modalities.main_field(source.fields)], grid=grid)
    return subject.encode(batch, "tokens")


@functools.partial(jax.jit, static_argnames="grid")
def _cells(image: jax.Array, *, grid: int) -> jax.Array:
    """The pixels of each cell, in [0, 1]; an image that the grid does not divide is resized."""
    side = grid * -(-image.shape[1] // grid)
    planes = jnp.moveaxis(image, -1, 1).astype(jnp.float32) / 255
    planes = jax.vmap(lambda x: geometry.resize(x, side))(planes)
    return rearrange(planes, "b c (h p) (w q) -> b (h w) (p q c)", h=grid, w=grid)


def _grid(subject: Subject, source: Source) -> int:
    """Cells along each axis of the grid of the encoder's tokens, for images of the source."""
    shape = subject.shape_of(source, "tokens")
    grid = math.isqrt(shape[1]) if len(shape) == 3 else 0
    if not grid or grid**2 != shape[1]:
        raise ConfigError(
            f"evals.dense: found tokens of shape {shape}, expected [B, T, D] for a square grid"
        )
    return grid


def _classes(source: Source) -> int:
    """How many classes the pixels of a source have, 0 where they have no labels."""
    return len(getattr(source, "pixel_label_names", ())) if "labels" in source.fields else 0


def _sources(subject: Subject, source: str, path: str, size: int) -> tuple[Source, Source]:
    """The training images and the held-out ones."""
    found = subject.program.source, subject.test_source
    if source:
        train, test = (
            other_source(subject.program, "dense", split, source=source, path=path, size=size)
            for split in ("train", "test")
        )
        found = train, test
    for one in found:
        if not _classes(one):
            raise ConfigError(
                f"evals.dense.source: found {one.name}, which has no labels of pixels, expected a "
                f"data set that has, such as 'camvid'"
            )
        shape = one.fields[modalities.main_field(one.fields)].shape
        if len(shape) != 3 or shape[0] != shape[1]:
            raise ConfigError(
                f"evals.dense: found images of shape {shape} in {one.name}, expected squares "
                f"(data.size)"
            )
    return found
