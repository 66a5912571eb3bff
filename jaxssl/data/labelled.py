"""Training with few or wrong labels: a stratified subset of a source, and corrupted labels.

Both are functions of the config alone, the same on every machine: a sample is drawn by a hash of
its stored position. The evaluated sets, `jaxssl.data.load`, never have either.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.data import tasks
from jaxssl.data.bad import BadRecords
from jaxssl.data.order import mix
from jaxssl.data.part import Part, Wrapper, stored_positions
from jaxssl.data.source import Array, Source
from jaxssl.modalities import parameters

READ = 4096  # samples at once, where labels are read


@dataclasses.dataclass(frozen=True)
class Labels:
    """`data.labels`: so many samples of every class, or that fraction of them; 0: all of them."""

    per_class: int = parameters.count(0, 0)
    fraction: float = parameters.number(0.0, 0.0, 1.0)
    seed: int = parameters.count(0, 0)


@dataclasses.dataclass(frozen=True)
class Noise:
    """`data.noise`: the probability that a label is wrong, and which other class it then is:
    any, alike ("symmetric"), or the next ("pairs")."""

    rate: float = parameters.number(0.0, 0.0, 1.0)
    kind: str = parameters.choice("symmetric", "symmetric", "pairs")
    seed: int = parameters.count(0, 0)


def training(config: Any, whole: Source) -> Source:
    """What is trained on: the source, or its labelled subset, with corrupted labels, in tasks.

    Args:
      config: the `data` fields, of which `labels`, `noise` and `tasks` are read.
      whole: the training split.

    Raises:
      ConfigError: a field that does not fit, no labels, or too few of a class.

    >>> from jaxssl.data.images import ArraySource
    >>> images, classes = np.zeros((9, 4, 4), np.uint8), np.array([0, 1, 2] * 3)
    >>> whole = ArraySource("set", images, classes)
    >>> few = training({"labels": {"per_class": 2}}, whole)
    >>> np.bincount(few.rows(range(6))["label"]).tolist()
    [2, 2, 2]
    """
    labels = parameters.parse(Labels, "data.labels", config.get("labels") or {})
    noise = parameters.parse(Noise, "data.noise", config.get("noise") or {})
    if labels.per_class and labels.fraction:
        raise ConfigError("data.labels: found per_class and fraction, expected one of them")
    order = tasks.parse(config.get("tasks") or {})
    fewer = labels.per_class or labels.fraction
    if hasattr(whole, "order") and (fewer or noise.rate or order.count):
        raise ConfigError(
            f"data: found labels, noise or tasks of a {whole.name}, whose order is its own"
        )
    if not hasattr(whole, "rows"):
        return whole  # stands for a set that is not here, whose labels nobody knows
    source: Source = Noisy(whole, noise) if noise.rate else whole
    if fewer:
        chosen = subset(whole, labels)
        source, whole = Part(source, chosen), Part(whole, chosen)
    if not order.count:
        return source
    return tasks.InTasks(source, order, labels_of(whole, "data.tasks"))


def subset(source: Source, labels: Labels) -> Array:
    """The positions [N] of the labelled samples, ascending.

    Of every class the samples whose stored positions have the least hashes: a larger subset of one
    seed holds the smaller, and a sample keeps its place whatever `data.ranges` leaves out.

    Raises:
      ConfigError: no labels, or fewer samples of a class than `per_class`.
    """
    classes = labels_of(source, "data.labels")
    ranks = _hash(f"labels {labels.seed}", stored_positions(source, np.arange(len(source))))
    chosen = []
    for number, name in enumerate(source.label_names):
        members = np.flatnonzero(classes == number)
        share = max(1, round(labels.fraction * len(members))) if len(members) else 0
        wanted = labels.per_class or share
        if wanted > len(members):
            raise ConfigError(
                f"data.labels: found {len(members)} samples of class {name!r} in {source.name}, "
                f"expected at least {wanted}"
            )
        chosen.append(members[np.argsort(ranks[members], kind="stable")[:wanted]])
    return np.sort(np.concatenate(chosen))


def labels_of(source: Source, field: str) -> Array:
    """The label of every sample, int32 [N]; -1 of one that cannot be read and may be skipped.

    Raises:
      ConfigError: the source has none; begins with `field`.
    """
    if "label" not in source.fields:
        raise ConfigError(f"{field}: found no labels in {source.name}, expected some")
    found = np.full(len(source), -1, np.int32)
    for first in range(0, len(source), READ):
        places = np.arange(first, min(first + READ, len(source)))
        while len(places):
            try:
                found[places] = source.rows(places)["label"]
                break
            except BadRecords as error:
                if not error.skip:
                    raise
                places = places[~error.bad]
    return found


class Noisy(Wrapper):
    """A source with wrong labels: which, and what they are, is a function of the stored position.

    With probability `rate` the label y of K classes is another, y + 1 + j mod K: j is 0 for
    "pairs" (Han et al., 2018, Co-teaching, arXiv 1804.06872), any of 0 ... K - 2 for "symmetric".

    Args:
      whole: the source.
      noise: rate, kind and seed.

    Raises:
      ConfigError: fewer than two classes.

    >>> from jaxssl.data.images import ArraySource
    >>> whole = ArraySource("set", np.zeros((4, 4, 4), np.uint8), np.array([0, 1, 2, 0]))
    >>> Noisy(whole, Noise(rate=1.0, kind="pairs")).rows(range(4))["label"].tolist()
    [1, 2, 0, 1]
    """

    def __init__(self, whole: Source, noise: Noise):
        if whole.num_classes < 2 or "label" not in whole.fields:
            raise ConfigError(f"data.noise: found no classes in {whole.name}, expected labels")
        self.noise = noise
        name = f"{whole.name}, {noise.rate:.0%} of the labels wrong"
        super().__init__(whole, name, f" {noise}".encode())

    def rows(self, indices: Sequence[int] | Array) -> dict[str, Array]:
        """The samples at `indices`, stacked, as of the whole but for `label`."""
        rows = self.whole.rows(indices)
        positions, name = stored_positions(self.whole, rows["index"]), f"noise {self.noise.seed}"
        uniform = (_hash(name, positions) >> np.uint64(11)) * 2.0**-53
        wrong = uniform < self.noise.rate
        others = np.uint64(self.num_classes - 1 if self.noise.kind == "symmetric" else 1)
        step = 1 + (_hash(f"{name} class", positions) % others).astype(np.int32)
        label = np.where(wrong, (rows["label"] + step) % self.num_classes, rows["label"])
        return {**rows, "label": label.astype(np.int32)}


def _hash(name: str, positions: Array) -> Array:
    """A number in 0 ... 2**64 - 1 for each position, uint64, of the stream `name`."""
    key = np.frombuffer(hashlib.blake2b(name.encode(), digest_size=8).digest(), "<u8")[0]
    return mix(mix(np.asarray(positions, np.uint64)) + key)
