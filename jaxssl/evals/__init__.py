"""Evaluations of frozen features, each beside its controls.

An evaluator is a module of a room of this package, found by its name, or any module, by the dotted
name that the entry has (`evals.mine = dict(name="my_package.my_evaluator")`), with `PROTOCOL`, its
default fields, and one of

    evaluate(train, test, *, num_classes, **fields)  of features and labels, usable alone;
    examine(subject, **fields)                       of an encoder and the run's data (`Subject`);
    measure(program, state, source, **fields)        of the method's own task on held-out samples.

The first two return {metric: value} for each of the trained encoder, random init and raw input
(`examine` may return {} for one that it makes no sense of). Of outputs of the encoder that its
fields name, `check_outputs(shapes, info, **fields)` says before anything is compiled whether they
fit: `shapes` has every output, `info` is the run's `Info`; `check_config(config)` may refuse a run.
More is better, unless the module's `BETTER`, from patterns of metric names, says "lower" or None:
shown, but no success. One that does without labels of the run's samples says
`NEEDS_LABELS = False`; `OF_BANK` names the fields that count samples of the bank, and `OF_KIND`
the only kind of data that it is for.
"""

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from jaxssl.config.errors import ConfigError, near
from jaxssl.evals import protocol
from jaxssl.evals.features import Features

__all__ = ["Features", "run", "settings", "validate"]

# What the loop itself reads of `evals`, with the least value of whole numbers.
LEAST = {"every_steps": 0, "bank": 0, "test": 0, "batch_size": 1, "size": 0}
LOOP = (*LEAST, "encoder", "output", "calibration_batches")


class EncoderUnderTest(Protocol):
    """What `evaluate` needs of a `Subject`."""

    num_classes: int

    @property
    def train(self) -> Features: ...

    @property
    def test(self) -> Features: ...


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
    for field, value in evals.items():
        if field not in LOOP and value is not None and not hasattr(value, "items"):
            raise ConfigError(f"evals.{field}: unknown field{near(field, LOOP)}")
    for field, least in LEAST.items():
        value = evals.get(field, least)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(
                f"evals.{field}: found {value!r}, expected a whole number of at least {least}"
            )


def run(
    evals: Mapping[str, Any],
    subjects: Mapping[str, EncoderUnderTest],
    begins: Callable[[str], None] = lambda piece: None,
) -> dict[str, dict[str, Any]]:
    """Runs every evaluator of features, or of an encoder, on every subject.

    Args:
      evals: the config's `evals`.
      subjects: "trained", "random_init", "raw_input" -> `Subject`.
      begins: is told of every piece of the work, e.g. "random init: knn", before it.

    Returns:
      "<evaluator>/<metric>" -> {subject: value}, fractions 0 ... 1 where it is an accuracy, with
      "better" where more is not better.

    Raises:
      ConfigError: as `settings`, or the labels do not fit the number of classes.
      FloatingPointError: features are not finite.
    """
    results: dict[str, dict[str, Any]] = {}
    for name, fields in settings(evals).items():
        module, given = protocol.evaluator(name, fields), protocol.arguments(fields)
        for kind, subject in subjects.items():
            begins(f"{kind.replace('_', ' ')}: {name}")
            if hasattr(module, "evaluate"):
                for bank in (subject.train, subject.test):
                    _check_bank(kind, bank, subject.num_classes)
                values = module.evaluate(
                    subject.train, subject.test, num_classes=subject.num_classes, **given
                )
            elif hasattr(module, "examine"):
                values = module.examine(subject, **given)
            else:
                continue
            for metric, value in values.items():
                results.setdefault(f"{name}/{metric}", {})[kind] = value
                for pattern, better in getattr(module, "BETTER", {}).items():
                    if fnmatch.fnmatch(metric, pattern):
                        results[f"{name}/{metric}"]["better"] = better
    return results


def _check_bank(name: str, bank: Features, num_classes: int) -> None:
    if num_classes < 2 or bank.y.min() < 0 or bank.y.max() >= num_classes:
        raise ConfigError(
            f"evals: found labels {bank.y.min()} ... {bank.y.max()} and {num_classes} classes in "
            f"the source, expected labels 0 ... classes - 1 of at least 2 classes"
        )
    if not np.isfinite(bank.x).all():
        raise FloatingPointError(f"the {name} features are not all finite: the encoder overflows")
