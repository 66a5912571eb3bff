"""Evaluators: nearest neighbours beside scikit-learn, and many linear probes beside one by one."""

import functools
from typing import Any, NamedTuple

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from jaxssl.bench.measure import Measure, in_turn, ratios, relative_gap, seconds
from jaxssl.bench.workload import Workload
from jaxssl.evals.features import Features, place, replicate
from jaxssl.evals.probes import knn, linear_sweep
from jaxssl.report import human


class Sizes(NamedTuple):
    """What is timed, whatever the config."""

    bank: int = 50_000
    queries: int = 10_000
    width: int = 384
    classes: int = 10
    rates: tuple[float, ...] = linear_sweep.RATES
    epochs: int = 2  # of the probes: each epoch costs the same
    batch_size: int = 256


def run(workload: Workload, repeats: int, sizes: Sizes | None = None) -> list[Measure]:
    """Seconds of both sides and their ratio, and how far their answers are apart, on one device."""
    del workload
    sizes = sizes or Sizes()
    bank, queries = _banks(sizes)
    return _knn(bank, queries, sizes, repeats) + _sweep(bank, sizes, repeats)


def _knn(bank: Features, queries: Features, sizes: Sizes, repeats: int) -> list[Measure]:
    """The whole evaluation, with the transfer to the device."""
    k, temperature = knn.PROTOCOL["k"], knn.PROTOCOL["temperature"]
    unit_rows = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    # Of unit vectors, by the distance, |a - b|^2 = 2 - 2 cos: its fastest way to the same vote.
    peer = KNeighborsClassifier(
        k,
        algorithm="brute",
        weights=lambda distance: np.exp((1 - np.square(distance) / 2) / temperature),
    )
    score = {
        "jaxssl": lambda: knn.evaluate(bank, queries, num_classes=sizes.classes)["accuracy"],
        "scikit-learn": lambda: peer.fit(unit_rows(bank.x), bank.y).score(
            unit_rows(queries.x), queries.y
        ),
    }
    found = in_turn({n: functools.partial(seconds, fn) for n, fn in score.items()}, repeats)
    gap = abs(score["jaxssl"]() - score["scikit-learn"]())
    return [
        Measure("knn: scikit-learn over jaxssl", ratios(found["scikit-learn"], found["jaxssl"])),
        Measure("knn: jaxssl seconds", found["jaxssl"], human.duration),
        Measure("knn: scikit-learn seconds", found["scikit-learn"], human.duration),
        Measure("knn: difference of the accuracies", [gap]),
    ]


def _sweep(bank: Features, sizes: Sizes, repeats: int) -> list[Measure]:
    """Training alone, on placed features; a single probe's program is compiled once for all."""
    placed = place(bank)

    def train(rates: tuple[float, ...]) -> Any:
        return linear_sweep.probes(
            placed,
            replicate(np.asarray(rates, np.float32)),
            0,
            linear_sweep.PROTOCOL["weight_decay"],
            num_samples=len(bank.x),
            num_classes=sizes.classes,
            optimizer="sgd",
            epochs=sizes.epochs,
            batch_size=sizes.batch_size,
        )

    def one_by_one() -> list[Any]:
        return [train((rate,)) for rate in sizes.rates]

    found = in_turn(
        {
            "together": lambda: seconds(train, sizes.rates),
            "one by one": lambda: seconds(one_by_one),
        },
        repeats,
    )
    # Of the first rate: at the largest ones rounding grows from step to step.
    gap = relative_gap(train(sizes.rates).weight[:1], train(sizes.rates[:1]).weight)
    count = len(sizes.rates)
    return [
        Measure(
            f"sweep: {count} probes one by one over together",
            ratios(found["one by one"], found["together"]),
        ),
        Measure("sweep: seconds together", found["together"], human.duration),
        Measure("sweep: seconds one by one", found["one by one"], human.duration),
        Measure("sweep: relative gap of the weights", [gap]),
    ]


def _banks(sizes: Sizes) -> tuple[Features, Features]:
    """Overlapping clouds, one a class."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(sizes.classes, sizes.width)).astype(np.float32)

    def bank(count: int) -> Features:
        y = rng.integers(0, sizes.classes, count).astype(np.int32)
        noise = rng.standard_normal((count, sizes.width), np.float32)
        return Features(means[y] + 4 * noise, y, np.arange(count, dtype=np.int32))

    return bank(sizes.bank), bank(sizes.queries)
