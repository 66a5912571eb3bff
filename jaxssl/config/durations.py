"""Durations: steps, epochs, examples and percent of a run, turned into steps in one place."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

from jaxssl.config.errors import ConfigError, near

UNITS = ("steps", "epochs", "examples", "percent")


def steps_per_epoch(num_samples: int, global_batch: int) -> int:
    """Whole batches in one pass over the data: max(1, N // B); the incomplete one is dropped."""
    return max(1, num_samples // global_batch)


def resolve(train: Any, num_samples: int, global_batch: int, field: str = "train") -> int:
    """The length of a run in steps, from exactly one of `steps`, `epochs` and `examples`.

    Args:
      train: mapping in which exactly one of the three is set, the others are None, 0 or absent.
      num_samples: N, samples in the training split.
      global_batch: B.
      field: the config field, for the error message.

    Raises:
      ConfigError: none or more than one is given, or the value is not a positive number.

    >>> resolve({"epochs": 3, "steps": None}, num_samples=1000, global_batch=256)
    9
    """
    given = {unit: train.get(unit) for unit in UNITS[:3] if train.get(unit)}
    if len(given) != 1:
        found = " and ".join(f"{field}.{unit}={value}" for unit, value in given.items()) or "none"
        names = ", ".join(f"{field}.{unit}" for unit in UNITS[:3])
        raise ConfigError(f"{found} given, expected exactly one of {names}")
    return to_steps(given, num_samples=num_samples, global_batch=global_batch, field=field)


def to_steps(
    every: Any, *, num_samples: int, global_batch: int, steps: int = 0, field: str = "every"
) -> int:
    """A duration as steps: an int, or {unit: amount} with a unit of `UNITS`.

    Epochs and percent may be fractions and are rounded to the nearest step; examples count whole
    batches. A given duration is at least one step; 0 stays 0 and means never.

    Args:
      every: what the config holds.
      num_samples: N.
      global_batch: B.
      steps: length of the run, needed by "percent" alone.
      field: the config field, for the error message.

    Raises:
      ConfigError: an unknown unit, more than one, or a value that is negative or not a number.

    >>> to_steps({"percent": 10}, num_samples=1000, global_batch=100, steps=500)
    50
    """
    named = every if isinstance(every, Mapping) else _as_mapping(every)
    if len(named) != 1:
        raise ConfigError(f"{field} is {every!r}, expected steps or one of {', '.join(UNITS)}")
    ((unit, amount),) = named.items()
    if unit not in UNITS:
        raise ConfigError(f"{field} has the unknown unit {unit!r}{near(str(unit), UNITS)}")
    whole = unit in ("steps", "examples")
    if not _is_amount(amount) or (whole and amount != int(amount)):
        kind = "whole number" if whole else "number"
        raise ConfigError(f"{field}: {unit} is {amount!r}, expected a {kind}, 0 or more")
    if unit == "percent" and steps <= 0:
        raise ConfigError(f"{field} is in percent, expected {', '.join(UNITS[:3])} for this field")
    if amount == 0:
        return 0
    counts = {
        "steps": lambda: int(amount),
        "epochs": lambda: round(amount * steps_per_epoch(num_samples, global_batch)),
        "examples": lambda: int(amount) // global_batch,
        "percent": lambda: round(amount * steps / 100),
    }
    return max(1, counts[unit]())


def _as_mapping(every: Any) -> Mapping[str, Any]:
    return every.to_dict() if hasattr(every, "to_dict") else {"steps": every}


def _is_amount(value: Any) -> bool:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0
