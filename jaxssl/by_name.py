"""Networks found by name: `{name: "vit", **fields}` calls `build(**fields)` of the module `vit`."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from jaxssl.errors import ConfigError, near


def _modules(package: ModuleType) -> list[str]:
    """Names of the modules of a package that expose `build`."""
    names = [info.name for info in pkgutil.iter_modules(package.__path__)]
    return [
        n for n in names if hasattr(importlib.import_module(f"{package.__name__}.{n}"), "build")
    ]


def build_by_name(
    package: ModuleType, config: Mapping[str, Any], field: str, by: str = "name", **given: Any
) -> Any:
    """Call `build(**given, **fields)` of the module of `package` that `config[by]` names.

    Errors: ConfigError for an unknown name, an unknown or missing field, or a value that the
    module's own `build` refuses; the message begins with the full name of the field.
    """
    fields = dict(config)
    if by not in fields:
        raise ConfigError(f"{field}.{by}: missing; known: {', '.join(_modules(package))}")
    name = fields.pop(by)
    known = _modules(package)
    if name not in known:
        found = f"{field}.{by}: found {name!r}, expected a module of {package.__name__}"
        raise ConfigError(found + near(str(name), known))
    build = importlib.import_module(f"{package.__name__}.{name}").build
    parameters = dict(inspect.signature(build).parameters)
    for key in given:
        parameters.pop(key)
    for key in fields:
        if key not in parameters:
            raise ConfigError(f"{field}.{key}: no such field of {name!r}{near(key, parameters)}")
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and key not in fields:
            raise ConfigError(f"{field}.{key}: missing; {name!r} needs it")
    try:
        return build(**given, **fields)
    except ConfigError as error:
        raise ConfigError(f"{field}.{error}") from None


def check_choice(field: str, value: Any, known: Iterable[Any]) -> None:
    """Raise ConfigError where `value` is not one of `known`.

    >>> check_choice("pool", "mean", ("cls", "mean"))
    """
    known = list(known)
    if value not in known:
        hint = near(str(value), map(str, known))
        expected = " or ".join(map(repr, known))
        raise ConfigError(f"{field}: found {value!r}, expected {expected}{hint}")


def check_positive(field: str, values: Iterable[Any]) -> None:
    """Raise ConfigError where `values` is empty or holds anything but positive integers.

    >>> check_positive("widths", (32, 64))
    """
    values = tuple(values)
    if not values or not all(isinstance(v, int) and v > 0 for v in values):
        raise ConfigError(f"{field}: found {values!r}, expected at least one positive integer")
