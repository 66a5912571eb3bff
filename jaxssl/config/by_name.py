"""Networks found by name: `{name: "vit", **fields}` calls `build(**fields)` of the module `vit`."""

import inspect
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from jaxssl.config import finder
from jaxssl.config.errors import ConfigError, near


def build_by_name(
    package: ModuleType, config: Mapping[str, Any], field: str, by: str = "name", **given: Any
) -> Any:
    """Call `build(**given, **fields)` of the module that `config[by]` names, as `finder` finds it.

    Errors: ConfigError for an unknown name, an unknown or missing field, or a value that the
    module's own `build` refuses; the message begins with the full name of the field.
    """
    fields = dict(config)
    if by not in fields:
        known = ", ".join(finder.names(package, "build"))
        raise ConfigError(f"{field}.{by}: missing; known: {known}")
    name = fields.pop(by)
    what = f"one of {package.__name__}"
    build = finder.find(package, name, defines="build", field=f"{field}.{by}", what=what).build
    parameters = dict(inspect.signature(build).parameters)
    for key in given:
        parameters.pop(key)
    check_fields(field, name, fields, parameters)
    try:
        return build(**given, **fields)
    except ConfigError as error:
        raise ConfigError(f"{field}.{error}") from None


def check_fields(
    field: str, name: str, fields: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> None:
    """Checks the fields of a part against the signature of the function that they are given to.

    Args:
      field: the full name of the part in the config.
      name: that the part was found by.
      fields: of the config.
      parameters: of the function, by name, without what the library gives itself.

    Raises:
      ConfigError: an unknown or a missing field, or a value of another kind.
    """
    for key in fields:
        if key not in parameters:
            raise ConfigError(f"{field}.{key}: no such field of {name!r}{near(key, parameters)}")
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and key not in fields:
            raise ConfigError(f"{field}.{key}: missing; {name!r} needs it")
    for key, value in fields.items():
        check_kind(f"{field}.{key}", value, parameters[key].annotation)


KINDS: Mapping[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "None",
    tuple: "a tuple",
    Sequence: "a tuple",
}


def check_kind(field: str, value: Any, annotation: Any) -> None:
    """Raise ConfigError where `value` is none of the kinds that `annotation` is made of.

    A whole number is a number, a list is a tuple, and what the annotation says of any other type,
    such as `Any`, is left to who reads it.

    >>> check_kind("width", 8, int | None)
    >>> check_kind("ranges", ((0, 9),), tuple)
    """
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    parts = typing.get_args(annotation) if union else (annotation,)
    kinds = {typing.get_origin(part) or part: part for part in parts}
    if not all(kind in KINDS for kind in kinds):
        return
    fits = type(value) in kinds or (type(value) is int and float in kinds)
    if isinstance(value, list | tuple):
        many = [part for kind, part in kinds.items() if kind in (tuple, Sequence)]
        fits = bool(many)
        for part in many:
            one, *more = typing.get_args(part) or (Any,)
            if more and more != [...] and len(value) != len(more) + 1:
                fits = False
            for entry in value:
                check_kind(field, entry, one)
    if not fits or (isinstance(value, float) and not math.isfinite(value)):
        expected = " or ".join(dict.fromkeys(KINDS[kind] for kind in kinds))
        raise ConfigError(f"{field}: found {value!r}, expected {expected}")


def check_choice(field: str, value: Any, known: Iterable[Any]) -> None:
    """Raise ConfigError where `value` is not one of `known`.

    >>> check_choice("pool", "mean", ("cls", "mean"))
    """
    known = list(known)
    if value not in known:
        hint = near(str(value), map(str, known))
        expected = " or ".join(map(repr, known))
        raise ConfigError(f"{field}: found {value!r}, expected {expected}{hint}")


def check_positive(field: str, values: Any) -> None:
    """Raise ConfigError where `values` is empty or holds anything but positive integers.

    >>> check_positive("widths", (32, 64))
    """
    many = isinstance(values, list | tuple)
    if not many or not values or not all(type(v) is int and v > 0 for v in values):
        raise ConfigError(f"{field}: found {values!r}, expected at least one positive integer")
