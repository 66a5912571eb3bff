"""An evaluator's settings, checked and named: two numbers compare only under one protocol id."""

import hashlib
import importlib
import json
import numbers
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jaxssl.evals
from jaxssl.errors import ConfigError, near


def evaluator(name: str) -> ModuleType:
    """The module `jaxssl.evals.<name>`, which has `evaluate` and `PROTOCOL`.

    Raises:
      ConfigError: there is none of that name.
    """
    names = [info.name for info in pkgutil.iter_modules(jaxssl.evals.__path__)]
    if name in names:
        module = importlib.import_module(f"jaxssl.evals.{name}")
        if hasattr(module, "PROTOCOL"):
            return module
    # Only now is every module imported, to tell the evaluators from the parts they share.
    modules = {found: importlib.import_module(f"jaxssl.evals.{found}") for found in names}
    known = [found for found, module in modules.items() if hasattr(module, "PROTOCOL")]
    raise ConfigError(f"evals.{name}: no such evaluator{near(name, known)}")


def resolve(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of an evaluator: its PROTOCOL with the given fields put over it.

    Raises:
      ConfigError: unknown evaluator or field, or a value of the wrong type or not above zero
        (a seed: below zero).

    >>> resolve("knn", {"k": 5})
    {'k': 5, 'temperature': 0.07, 'chunk': 256}
    """
    settings = dict(evaluator(name).PROTOCOL)
    for field, value in fields.items():
        if field not in settings:
            raise ConfigError(f"evals.{name}.{field}: unknown field{near(field, settings)}")
        settings[field] = _checked(f"evals.{name}.{field}", value, settings[field])
    return settings


def protocol_id(name: str, fields: Mapping[str, Any]) -> str:
    """The evaluator's name and a short hash of all its settings, defaults included.

    >>> protocol_id("knn", {}) == protocol_id("knn", {"k": 20})
    True
    >>> protocol_id("knn", {}) == protocol_id("knn", {"k": 10})
    False
    """
    settings = json.dumps(resolve(name, fields), sort_keys=True)
    return f"{name}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"


def _checked(field: str, value: Any, default: Any) -> Any:
    """The value in the type of its default."""
    least = 0 if field.endswith(".seed") else 1
    if default == ():
        if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
            return tuple(value)
        expected = "a tuple of names"
    elif isinstance(default, tuple):
        if isinstance(value, list | tuple) and value and all(_whole(v, 1) for v in value):
            return tuple(int(v) for v in value)
        expected = "a tuple of whole numbers above zero"
    elif isinstance(default, int):
        if _whole(value, least):
            return int(value)
        expected = f"a whole number of at least {least}"
    else:
        if isinstance(value, numbers.Real) and not isinstance(value, bool) and float(value) > 0:
            return float(value)
        expected = "a number above zero"
    raise ConfigError(f"{field}: found {value!r}, expected {expected}")


def _whole(value: Any, least: int) -> bool:
    return (
        isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least
    )
