"""The parameters of a transform: what a config may say, checked and brought to one form.

A transform is a frozen dataclass whose fields are declared with the functions below. `parse` turns
a config value into an instance, or raises a `ConfigError` that names the field.
"""

import dataclasses
import numbers
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jaxssl.config.errors import ConfigError, near

T = TypeVar("T")
Parse = Callable[[str, Any], Any]


def _field(parse: Parse, default: Any) -> Any:
    metadata = {"parse": parse}
    if default is None:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=parse("default", default), metadata=metadata)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _within(where: str, value: Any, low: float, high: float, expected: str) -> float:
    if not _is_number(value) or not low <= value <= high:
        raise ConfigError(f"{where}: found {value!r}, expected {expected}")
    return float(value)


def _pair(where: str, value: Any, low: float, high: float, expected: str) -> tuple[float, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ConfigError(f"{where}: found {value!r}, expected {expected}")
    first, second = (_within(where, v, low, high, expected) for v in value)
    if first > second:
        raise ConfigError(f"{where}: found {value!r}, expected {expected}, the lower end first")
    return first, second


def number(default: float | None, low: float, high: float) -> Any:
    """One number in [low, high]."""
    return _field(lambda w, v: _within(w, v, low, high, f"a number in [{low}, {high}]"), default)


def probability(default: float | None) -> Any:
    """One number in [0, 1]."""
    return number(default, 0.0, 1.0)


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def whole(where: str, value: Any, low: int) -> int:
    """The whole number `value`, at least `low`."""
    if not _is_whole(value) or value < low:
        raise ConfigError(f"{where}: found {value!r}, expected a whole number >= {low}")
    return int(value)


def count(default: int, low: int) -> Any:
    """One whole number of at least `low`."""
    return _field(lambda w, v: whole(w, v, low), default)


def odd_or_zero() -> Any:
    """An odd whole number, or 0, the default."""

    def parse(where: str, value: Any) -> int:
        if not _is_whole(value) or value < 0 or (value and value % 2 == 0):
            raise ConfigError(f"{where}: found {value!r}, expected an odd whole number, or 0")
        return int(value)

    return _field(parse, 0)


def interval(default: tuple[float, float], low: float, high: float) -> Any:
    """A pair (lower, upper) within [low, high]."""
    expected = f"a pair of numbers in [{low}, {high}]"
    return _field(lambda w, v: _pair(w, v, low, high, expected), default)


def around(centre: float, default: float, low: float, high: float) -> Any:
    """A number r, for (centre - r, centre + r) cut to [low, high], or the pair itself."""
    expected = f"a number >= 0 or a pair of numbers in [{low}, {high}]"

    def parse(where: str, value: Any) -> tuple[float, float]:
        if _is_number(value):
            reach = _within(where, value, 0.0, high - centre, expected)
            return max(low, centre - reach), centre + reach
        return _pair(where, value, low, high, expected)

    return _field(parse, default)


def choice(default: str, *names: str) -> Any:
    """One of the names."""

    def parse(where: str, value: Any) -> str:
        if value not in names:
            raise ConfigError(f"{where}: found {value!r}{near(str(value), names)}")
        return str(value)

    return _field(parse, default)


def parse_group(
    where: str, group: Mapping[str, Any], transforms: Mapping[str, type], *others: str
) -> dict[str, Any]:
    """The transforms of a group of views that are on, in the order of `transforms`.

    One that is absent, None or of probability 0 is off. A group has a `count`, too.

    Args:
      where: messages begin with it.
      group: of the config.
      transforms: name -> class.
      others: names of fields of a group, beside `count`, that are no transforms.

    Raises:
      ConfigError: an unknown transform or field, a value out of range, or no count.
    """
    known = ("count", *others, *transforms)
    for name in group:
        if name not in known:
            raise ConfigError(f"{where}.{name}: no such transform{near(name, known)}")
    if "count" not in group:
        raise ConfigError(f"{where}.count: missing, expected a whole number >= 1")
    whole(f"{where}.count", group["count"], 1)
    parsed: dict[str, Any] = {
        name: parse(kind, f"{where}.{name}", group[name])
        for name, kind in transforms.items()
        if group.get(name) is not None
    }
    return {name: t for name, t in parsed.items() if getattr(t, "probability", 1.0) > 0.0}


def parse(kind: type[T], where: str, value: Any) -> T:
    """An instance of the dataclass `kind` from a config value: its fields by name.

    A single number stands for the field `probability`, where that is the first of `kind`.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if next(iter(fields)) == "probability" and _is_number(value):
        value = {"probability": value}
    if not isinstance(value, Mapping) and not hasattr(value, "items"):
        raise ConfigError(
            f"{where}: found {value!r}, expected a dict with fields {', '.join(fields)}"
        )
    parsed = {}
    for name, entry in value.items():
        if name not in fields:
            raise ConfigError(f"{where}.{name}: no such field{near(name, fields)}")
        parsed[name] = fields[name].metadata["parse"](f"{where}.{name}", entry)
    for name, field in fields.items():
        if name not in parsed and field.default is dataclasses.MISSING:
            raise ConfigError(f"{where}.{name}: missing, and it has no default")
    return kind(**parsed)
