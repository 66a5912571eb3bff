"""A linear probe fitted on clean images, judged on corrupted ones: noise, blur, weather, coding."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import fold_name
from jaxssl.evals.features import DeviceFeatures, Features, place, standardise
from jaxssl.evals.probes import logistic
from jaxssl.evals.subject import Change, Subject
from jaxssl.modalities.image import colour, geometry

# (key, planes [c, h, w] in [0, 1], strength [n], scale) -> planes, to be clipped. The scale is the
# image's side over that of the images that the strengths are published for.
Corrupt = Callable[[jax.Array, jax.Array, jax.Array, float], jax.Array]
_PRECISE = jax.lax.Precision.HIGHEST


def _gaussian_noise(key: jax.Array, x: jax.Array, c: jax.Array, scale: float) -> jax.Array:
    """x + c n, n ~ N(0, 1) at each value."""
    return colour.gaussian_noise(key, x, c[0])


def _shot_noise(key: jax.Array, x: jax.Array, c: jax.Array, scale: float) -> jax.Array:
    """n / c, n ~ Poisson(c x): c photons where it is brightest."""
    return jax.random.poisson(key, c[0] * x) / c[0]


def _impulse_noise(key: jax.Array, x: jax.Array, c: jax.Array, scale: float) -> jax.Array:
    """Each value is 0 or 1, as likely, with probability c."""
    draw = jax.random.uniform(key, x.shape)
    return jnp.where(draw < c[0] / 2, 0.0, jnp.where(draw < c[0], 1.0, x))


def _gaussian_blur(key: jax.Array, x: jax.Array, c: jax.Array, scale: float) -> jax.Array:
    """A Gaussian of c pixels."""
    half = math.ceil(3 * min(x.shape[1:]) / 32)  # three times the widest of either table
    return colour.gaussian_blur(x, c[0] * scale, 2 * half + 1)


def _motion_blur(key: jax.Array, x: jax.Array, c: jax.Array, scale: float) -> jax.Array:
    """A Gaussian of c[1] pixels, cut at c[0] pixels, along a line within 45 degrees of level."""
    angle = jax.random.uniform(key, minval=-jnp.pi / 4, maxval=jnp.pi / 4)
    radius, sigma = jnp.ceil(c[0] * scale).astype(jnp.int32), c[1] * scale
    y, x_ = jnp.meshgrid(*map(jnp.arange, x.shape[1:]), indexing="ij")

    def add(i: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        weight = jnp.exp(-0.5 * jnp.square(i / sigma))
        moved = geometry.bilinear_at(x, y + i * jnp.sin(angle), x_ + i * jnp.cos(angle), "edge")
        return sums[0] + weight * moved, sums[1] + weight

    total, weight = jax.lax.fori_loop(-radius, radius + 1, add, (jnp.zeros_like(x), jnp.zeros(())))
    return total / weight


def _fog(key: jax.Array, x: jax.Array, c: jax.Array, scale: float) -> jax.Array:
    """(x + c[0] f) m / (m + c[0]), m the largest value of x, f haze in [0, 1].

    f is a sum of noise on grids of 2, 4, 8, ... cells, bicubic between their nodes, each grid
    weaker than the one before by c[1].
    """
    _, height, width = x.shape
    haze = jnp.zeros((1, height, width))
    for octave in range(1, int(math.log2(min(height, width))) + 1):
        nodes = 2**octave + 1
        noise = jax.random.uniform(jax.random.fold_in(key, octave), (1, nodes, nodes), minval=-1)
        haze += _smooth(noise, height, width) / c[1] ** octave
    haze -= haze.min()
    most = x.max()
    return (x + c[0] * haze / haze.max()) * most / (most + c[0])


def _brightness(key: jax.Array, x: jax.Array, c: jax.Array, scale: float) -> jax.Array:
    """c is added to the value of HSV, the largest of the channels; hue and saturation stay."""
    value = x.max(0, keepdims=True)
    brighter = jnp.minimum(value + c[0], 1.0)
    return jnp.where(value > 0, x * brighter / jnp.maximum(value, 1e-6), brighter)


def _contrast(key: jax.Array, x: jax.Array, c: jax.Array, scale: float) -> jax.Array:
    """c x + (1 - c) m, m the mean of each channel."""
    mean = x.mean((1, 2), keepdims=True)
    return c[0] * (x - mean) + mean


def _elastic(key: jax.Array, x: jax.Array, c: jax.Array, scale: float) -> jax.Array:
    """A smooth displacement: Gaussian at 4 x 4 nodes, c of the side, bicubic between them."""
    _, height, width = x.shape
    nodes = c[0] * min(height, width) * jax.random.normal(key, (2, 4, 4))
    return geometry.warp(x, displacement=_smooth(nodes, height, width), fill="edge")


def _pixelate(key: jax.Array, x: jax.Array, c: jax.Array, scale: float) -> jax.Array:
    """floor(c n) cells in place of n pixels along an axis, each the mean of its area."""

    def weights(size: int) -> jax.Array:
        side = size / jnp.floor(c[0] * size)  # of a cell
        pixel = jnp.arange(size)
        start = jnp.floor((pixel[:, None] + 0.5) / side) * side
        covered = jnp.minimum(pixel + 1, start + side) - jnp.maximum(pixel, start)
        return jnp.maximum(covered, 0) / side

    return geometry.separable(x, *map(weights, x.shape[1:]))


def _jpeg(key: jax.Array, x: jax.Array, c: jax.Array, scale: float) -> jax.Array:
    """JPEG of the quality c, without its lossless coding and without subsampled chroma."""
    channels, height, width = x.shape
    grays = jnp.asarray([0.0, 128, 128])[:, None, None]
    x = 255 * x
    if channels == 3:
        x = jnp.einsum("dc,chw->dhw", jnp.asarray(_YCC), x, precision=_PRECISE) + grays
    x = jnp.pad(x, [(0, 0), (0, -height % 8), (0, -width % 8)], mode="edge") - 128
    blocks = rearrange(x, "c (h p) (w q) -> h w c p q", p=8, q=8)
    dct = jnp.asarray(_DCT)
    found = jnp.einsum("up,hwcpq,vq->hwcuv", dct, blocks, dct, precision=_PRECISE)
    percent = jnp.where(c[0] < 50, 5000 / c[0], 200 - 2 * c[0])
    tables = jnp.asarray(np.stack([_LUMA] + [_CHROMA] * (channels - 1)))
    steps = jnp.clip(jnp.floor((tables * percent + 50) / 100), 1, 255)
    found = jnp.round(found / steps) * steps
    blocks = jnp.einsum("up,hwcuv,vq->hwcpq", dct, found, dct, precision=_PRECISE)
    x = rearrange(blocks, "h w c p q -> c (h p) (w q)")[:, :height, :width] + 128
    if channels == 3:
        back = jnp.asarray(np.linalg.inv(_YCC), jnp.float32)
        x = jnp.einsum("dc,chw->dhw", back, x - grays, precision=_PRECISE)
    return x / 255


def _smooth(nodes: jax.Array, height: int, width: int) -> jax.Array:
    """[c, g, g] at nodes -> [c, height, width], bicubic between them."""
    count = nodes.shape[-1]
    along = lambda size: geometry.resize_weights(0, count, count, size, "bicubic")
    return geometry.separable(nodes, along(height), along(width))


# JPEG (ITU-T T.81): the tables of annex K.1 and, of JFIF, the matrix from RGB to luma and chroma.
_LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
_CHROMA = np.full((8, 8), 99, np.float32)
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)
_DCT = np.cos(np.pi / 8 * np.arange(8)[:, None] * (np.arange(8) + 0.5)).astype(np.float32) / 2
_DCT[0] /= np.sqrt(np.float32(2))


class Corruption(NamedTuple):
    """A corruption with its strengths at the severities 1 ... 5, as published for images of 32 and
    of 224 pixels."""

    apply: Corrupt
    at_32: tuple[tuple[float, ...], ...]
    at_224: tuple[tuple[float, ...], ...]


def _table(*strengths: float) -> tuple[tuple[float, ...], ...]:
    return tuple((strength,) for strength in strengths)


# Gaussian blur is an extra of the published set; the strengths of the elastic one are this file's.
CORRUPTIONS = {
    "gaussian_noise": Corruption(
        _gaussian_noise, _table(0.04, 0.06, 0.08, 0.09, 0.10), _table(0.08, 0.12, 0.18, 0.26, 0.38)
    ),
    "shot_noise": Corruption(_shot_noise, _table(500, 250, 100, 75, 50), _table(60, 25, 12, 5, 3)),
    "impulse_noise": Corruption(
        _impulse_noise, _table(0.01, 0.02, 0.03, 0.05, 0.07), _table(0.03, 0.06, 0.09, 0.17, 0.27)
    ),
    "gaussian_blur": Corruption(
        _gaussian_blur, _table(0.4, 0.6, 0.7, 0.8, 1.0), _table(1, 2, 3, 4, 6)
    ),
    "motion_blur": Corruption(
        _motion_blur,
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "fog": Corruption(
        _fog,
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "brightness": Corruption(
        _brightness, _table(0.05, 0.1, 0.15, 0.2, 0.3), _table(0.1, 0.2, 0.3, 0.4, 0.5)
    ),
    "contrast": Corruption(
        _contrast, _table(0.75, 0.5, 0.4, 0.3, 0.15), _table(0.4, 0.3, 0.2, 0.1, 0.05)
    ),
    "elastic": Corruption(_elastic, *[_table(0.01, 0.015, 0.02, 0.025, 0.03)] * 2),
    "pixelate": Corruption(
        _pixelate, _table(0.95, 0.9, 0.85, 0.75, 0.65), _table(0.6, 0.5, 0.4, 0.3, 0.25)
    ),
    "jpeg": Corruption(_jpeg, _table(80, 65, 58, 50, 40), _table(25, 18, 15, 10, 7)),
}
SEVERITIES = 5
LARGE = 96  # pixels of a side from which the strengths are those for 224

OF_KIND = "image"
PROTOCOL: dict[str, Any] = {
    "corruptions": tuple(CORRUPTIONS),
    "severities": (1, 3, 5),
    "limit": 2000,
    "c": 1.0,
    "max_iterations": 100,
    "seed": 0,
}
# A probe that is at chance on clean images loses nothing on others.
BETTER = {"relative": None}


def examine(
    subject: Subject,
    *,
    corruptions: tuple[str, ...] = tuple(CORRUPTIONS),
    severities: tuple[int, ...] = (1, 3, 5),
    limit: int = 2000,
    c: float = 1.0,
    max_iterations: int = 100,
    seed: int = 0,
) -> dict[str, float]:
    """Accuracy of the classifier of `linear`, fitted on clean features, on corrupted test images.

    Hendrycks, Dietterich (2019), Benchmarking neural network robustness to common corruptions and
    perturbations, arXiv 1903.12261; the corruptions that need no photographs, made on the device.

    Args:
      subject: its training images are clean, its test images are corrupted.
      corruptions: names of `CORRUPTIONS`.
      severities: each 1 ... 5.
      limit: how many of the test images.
      c, max_iterations: of the classifier, as of `linear`.
      seed: of the corruptions; each sample's depend on it, the sample's index and the name alone.

    Returns:
      {"clean": accuracy on the same images as they are, "<corruption>": mean over severities,
      "accuracy": mean over corruptions, "relative": accuracy / clean}, fractions.

    Raises:
      ConfigError: an unknown corruption or severity, or samples that are no images.
      FloatingPointError: features are not finite.
    """
    _check(subject, corruptions, severities)
    train = subject.train
    clean = subject.features(subject.test_source, limit=limit)
    fitted, scored = (place(bank) for bank in _standardised(subject, train, clean))
    with_classes = functools.partial(_fit, num_classes=subject.num_classes)
    model = with_classes(fitted, c, max_iterations=max_iterations)

    def accuracy(bank: DeviceFeatures) -> float:
        return float(_correct(model, bank)) / len(clean.x)

    found = {"clean": accuracy(scored)}
    for name in corruptions:
        of_name = []
        for severity in severities:
            change = corrupted(name, severity, seed, subject.field[0])
            bank = subject.features(subject.test_source, limit=limit, change=change)
            of_name.append(accuracy(place(_standardised(subject, train, bank)[1])))
        found[name] = float(np.mean(of_name))
    found["accuracy"] = float(np.mean([found[name] for name in corruptions]))
    found["relative"] = found["accuracy"] / max(found["clean"], 1 / len(clean.x))
    return found


def corrupted(name: str, severity: int, seed: int = 0, field: str = "image") -> Change:
    """The change of a batch (field uint8 [B, H, W, C], "index" [B]) that corrupts its images.

    Sides below LARGE have the strengths published for 32 pixels, others those for 224; lengths in
    pixels grow with the side.

    >>> change = corrupted("contrast", 5)
    >>> image = jnp.tile(jnp.array([0, 200], jnp.uint8), 8)[None, :, None, None]
    >>> change({"image": image, "index": jnp.array([0])})["image"][0, :2, 0, 0].tolist()
    [85, 115]
    """
    _, at_32, at_224 = CORRUPTIONS[name]

    def change(batch: Mapping[str, jax.Array]) -> Mapping[str, jax.Array]:
        small = min(batch[field].shape[1:3]) < LARGE
        strength = np.asarray((at_32 if small else at_224)[severity - 1], np.float32)
        image = _corrupted(
            batch[field], batch["index"], strength, name=name, published=32 if small else 224,
            seed=seed,
        )  # fmt: skip
        return {**batch, field: image}

    return change


@functools.partial(jax.jit, static_argnames=("name", "published", "seed"))
def _corrupted(
    image: jax.Array, index: jax.Array, strength: jax.Array, *, name: str, published: int, seed: int
) -> jax.Array:
    """uint8 [B, H, W, C]; one program serves all severities."""
    root = fold_name(jax.random.key(seed), name)
    scale = min(image.shape[1:3]) / published

    def one(image: jax.Array, index: jax.Array) -> jax.Array:
        key = jax.random.fold_in(root, index)
        planes = jnp.moveaxis(colour.to_float(image), -1, 0)
        found = jnp.moveaxis(CORRUPTIONS[name].apply(key, planes, strength, scale), 0, -1)
        # Counts of photons fall half-way between two levels: whichever way the compiler divides,
        # they go down.
        return jnp.round(255 * jnp.clip(found, 0, 1) - 1e-3).astype(jnp.uint8)

    return jax.vmap(one)(image, index)


@functools.partial(jax.jit, static_argnames=("num_classes", "max_iterations"))
def _fit(
    train: DeviceFeatures, c: jax.Array, *, num_classes: int, max_iterations: int
) -> logistic.Linear:
    return logistic.fit(*train, num_classes=num_classes, c=c, max_iterations=max_iterations)


@jax.jit
def _correct(model: logistic.Linear, test: DeviceFeatures) -> jax.Array:
    """How many test samples the classifier gets right."""
    return jnp.sum(test.weight * (jnp.argmax(model.logits(test.x), axis=-1) == test.y))


def _standardised(subject: Subject, train: Features, bank: Features) -> tuple[Features, Features]:
    if not (np.isfinite(train.x).all() and np.isfinite(bank.x).all()):
        raise FloatingPointError(
            f"the {subject.kind} features are not all finite: the encoder overflows"
        )
    return standardise(train, bank)


def _check(subject: Subject, corruptions: tuple[str, ...], severities: tuple[int, ...]) -> None:
    for name in corruptions:
        if name not in CORRUPTIONS:
            known = near(name, CORRUPTIONS)
            raise ConfigError(f"evals.corruptions.corruptions: no corruption {name!r}{known}")
    if max(severities) > SEVERITIES:
        raise ConfigError(
            f"evals.corruptions.severities: found {max(severities)}, expected 1 ... {SEVERITIES}"
        )
    shape = tuple(subject.field[1].shape)
    if len(shape) != 3:
        raise ConfigError(
            f"evals.corruptions: found samples of shape {shape}, expected images [H, W, C]"
        )
