"""Evaluations of frozen features, each beside its controls.

An evaluator is a module of this package with `PROTOCOL`, its default fields, and
`evaluate(train, test, *, num_classes, **fields)`, of features and labels, or
`measure(program, state, source, **fields)`, of the method's own task on held-out samples. It is
found by its name, so adding a file adds an evaluator.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxssl.errors import ConfigError
from jaxssl.evals import protocol
from jaxssl.evals.features import Features

__all__ = ["Features", "run", "settings", "validate"]


def settings(evals: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The evaluators that a config switches on, each with all its fields.

    A nested mapping under `evals` is an evaluator, None is one switched off, and anything else
    (`every_steps`, `bank`, ...) is for the loop.

    Raises:
      ConfigError: an unknown evaluator or field, or a value that the evaluator cannot take.

    >>> settings({"every_steps": 100, "knn": {"k": 10}, "linear": None})
    {'knn': {'k': 10, 'temperature': 0.07, 'chunk': 256}}
    """
    return {
        name: protocol.resolve(name, fields)
        for name, fields in evals.items()
        if hasattr(fields, "items")
    }


def validate(evals: Mapping[str, Any]) -> None:
    """Checks a config's evaluators before anything is compiled.

    Raises:
      ConfigError: as `settings`, or one of the loop's own fields is no whole number.
    """
    settings(evals)
    for field, least in (("every_steps", 0), ("bank", 0), ("test", 0), ("batch_size", 1)):
        value = evals.get(field, least)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(
                f"evals.{field}: found {value!r}, expected a whole number of at least {least}"
            )


def run(
    evals: Mapping[str, Any],
    features: Mapping[str, tuple[Features, Features]],
    num_classes: int,
) -> dict[str, dict[str, float]]:
    """Runs every evaluator of features on every feature set.

    Args:
      evals: the config's `evals`.
      features: name of the feature set ("trained", "random_init", "raw_input") -> (train, test).
      num_classes: labels lie in 0 ... num_classes - 1.

    Returns:
      "<evaluator>/<metric>" -> {feature set: value}, fractions 0 ... 1.

    Raises:
      ConfigError: as `settings`, or the labels do not fit `num_classes`.
      FloatingPointError: features are not finite.
    """
    for name, banks in features.items():
        for bank in banks:
            _check_bank(name, bank, num_classes)
    results: dict[str, dict[str, float]] = {}
    for name, fields in settings(evals).items():
        evaluate = getattr(protocol.evaluator(name), "evaluate", None)
        if evaluate is None:
            continue
        for kind, (train, test) in features.items():
            values = evaluate(train, test, num_classes=num_classes, **fields)
            for metric, value in values.items():
                results.setdefault(f"{name}/{metric}", {})[kind] = value
    return results


def _check_bank(name: str, bank: Features, num_classes: int) -> None:
    if num_classes < 2 or bank.y.min() < 0 or bank.y.max() >= num_classes:
        raise ConfigError(
            f"evals: found labels {bank.y.min()} ... {bank.y.max()} and {num_classes} classes in "
            f"the source, expected labels 0 ... classes - 1 of at least 2 classes"
        )
    if not np.isfinite(bank.x).all():
        raise FloatingPointError(f"the {name} features are not all finite: the encoder overflows")
