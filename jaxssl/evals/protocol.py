"""An evaluator's settings, checked and named: two numbers compare only under one protocol id."""

import hashlib
import json
import numbers
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jaxssl.evals
from jaxssl.config import finder
from jaxssl.config.errors import ConfigError, near
from jaxssl.optim.param_groups import plain


def names() -> list[str]:
    """Every evaluator of this package; none is imported."""
    return finder.names(jaxssl.evals, "PROTOCOL")


def evaluator(name: str, fields: Mapping[str, Any] | None = None) -> ModuleType:
    """The module of an evaluator, which has `PROTOCOL`: that of its own name, or of `name`.

    Args:
      name: of the entry in `evals`.
      fields: of the entry; its `name` is that of another evaluator, or the dotted name of any
        module: `evals.mine = dict(name="my_package.my_evaluator")`.

    Raises:
      ConfigError: there is none of that name.

    >>> evaluator("knn") is evaluator("nearest", {"name": "knn"})
    True
    """
    module, field = name, f"evals.{name}"
    if fields is not None and "name" in fields:
        module, field = fields["name"], f"evals.{name}.name"
    return finder.find(jaxssl.evals, module, defines="PROTOCOL", field=field, what="an evaluator")


def arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What an evaluator's functions are given of its settings: all but `name`."""
    return {field: value for field, value in settings.items() if field != "name"}


def resolve(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of an evaluator: its PROTOCOL with the given fields put over it, and its `name`.

    Raises:
      ConfigError: unknown evaluator or field, or a value of the wrong type or not above zero
        (a seed: below zero).

    >>> resolve("knn", {"k": 5})
    {'k': 5, 'temperature': 0.07, 'chunk': 256}
    """
    if not hasattr(fields, "items"):
        raise ConfigError(f"evals.{name}: found {fields!r}, expected fields, or None")
    given = plain(fields)
    settings = dict(evaluator(name, given).PROTOCOL)
    named = {"name": given.pop("name")} if "name" in given else {}
    for field, value in given.items():
        if field not in settings:
            raise ConfigError(f"evals.{name}.{field}: unknown field{near(field, settings)}")
        settings[field] = _checked(f"evals.{name}.{field}", value, settings[field])
    return named | settings


def check_bank(name: str, fields: Mapping[str, Any], bank: int) -> None:
    """Refuses settings that ask for more samples than there are, before anything is computed.

    Args:
      name: of the evaluator, whose `OF_BANK` names the fields that count samples of the bank.
      fields: as `resolve` returns them, or those of `OF_BANK` alone.
      bank: samples that it will hold.

    Raises:
      ConfigError: a field is larger than the bank.

    >>> check_bank("knn", {"k": 20}, 20)
    """
    for field in getattr(evaluator(name, fields), "OF_BANK", ()):
        value = fields[field]
        largest = max(value) if isinstance(value, tuple) else value
        if largest > bank:
            raise ConfigError(
                f"evals.{name}.{field}: found {largest}, expected at most the bank's {bank}"
            )


def check_kind(name: str, module: ModuleType, kind: str) -> None:
    """Refuses data of another kind than an evaluator is for.

    Raises:
      ConfigError: its `OF_KIND` is another.
    """
    wanted = getattr(module, "OF_KIND", kind)
    if kind != wanted:
        raise ConfigError(f"evals.{name}: is for data of kind {wanted!r}, found {kind!r}")


def protocol_id(name: str, fields: Mapping[str, Any]) -> str:
    """The evaluator's name and a short hash of all its settings, defaults included.

    A `path` is left out: where data lies moves no number.

    >>> protocol_id("knn", {}) == protocol_id("knn", {"k": 20})
    True
    >>> protocol_id("knn", {}) == protocol_id("knn", {"k": 10})
    False
    """
    settings = {k: v for k, v in resolve(name, fields).items() if k != "path"}
    text = json.dumps(settings, sort_keys=True)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _checked(field: str, value: Any, default: Any) -> Any:
    """The value in the type of its default."""
    least = 0 if field.endswith(".seed") else 1
    if isinstance(default, bool | str):
        if type(value) is type(default):
            return value
        expected = "True or False" if isinstance(default, bool) else "text"
    elif default == ():
        if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
            return tuple(value)
        expected = "a tuple of names"
    elif isinstance(default, tuple) and isinstance(default[0], float):
        if isinstance(value, list | tuple) and value and all(_positive(v) for v in value):
            return tuple(float(v) for v in value)
        expected = "a tuple of numbers above zero"
    elif isinstance(default, tuple) and isinstance(default[0], str):
        if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
            return tuple(value)
        expected = f"a tuple of names, like {default!r}"
    elif isinstance(default, tuple):
        if isinstance(value, list | tuple) and value and all(_whole(v, 1) for v in value):
            return tuple(int(v) for v in value)
        expected = "a tuple of whole numbers above zero"
    elif isinstance(default, int):
        if _whole(value, least):
            return int(value)
        expected = f"a whole number of at least {least}"
    else:
        if _positive(value):
            return float(value)
        expected = "a number above zero"
    raise ConfigError(f"{field}: found {value!r}, expected {expected}")


def _positive(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and float(value) > 0


def _whole(value: Any, least: int) -> bool:
    return (
        isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least
    )
