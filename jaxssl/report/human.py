"""Numbers as people read them: counts, FLOPs, bytes, durations, values."""

import math

_DECIMAL = ("", "k", "M", "G", "T", "P", "E")
_COUNTS = ("", "k", "M", "B", "T")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def _scaled(value: float, base: float, units: tuple[str, ...]) -> tuple[str, str]:
    """Three significant digits of `value`, and the unit they are in."""
    if not math.isfinite(value):
        return str(value), units[0]
    power = 0
    # 999.5 would print as 1000 of its unit, so it already belongs to the next one.
    while abs(value) >= (999.5 if base == 1000 else 1023.5) and power < len(units) - 1:
        value /= base
        power += 1
    size = abs(value)
    if power == 0 and value == int(value):
        return f"{int(value)}", units[0]
    digits = 2 if size < 9.995 else 1 if size < 99.95 else 0
    text = f"{value:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text), units[power]


def count(value: float) -> str:
    """A number of things, in thousands, millions, billions, trillions.

    >>> count(950), count(21_665_664), count(1.2e9)
    ('950', '21.7 M', '1.2 B')
    """
    number, unit = _scaled(value, 1000, _COUNTS)
    return f"{number} {unit}".rstrip()


def flops(value: float) -> str:
    """Floating-point operations.

    >>> flops(3.4e9)
    '3.4 GFLOP'
    """
    number, unit = _scaled(value, 1000, _DECIMAL)
    return f"{number} {unit}FLOP"


def size(value: float) -> str:
    """Bytes, in powers of 1024.

    >>> size(512), size(1.5 * 2**30)
    ('512 B', '1.5 GiB')
    """
    number, unit = _scaled(value, 1024, _BINARY)
    return f"{number} {unit}"


def duration(seconds: float) -> str:
    """Seconds, in the two units that matter.

    >>> duration(0.25), duration(12.34), duration(185), duration(7320)
    ('250 ms', '12.3 s', '3 min 05 s', '2 h 02 min')
    """
    if not math.isfinite(seconds) or seconds < 0:
        return "?"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 1440:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def value(x: float) -> str:
    """A metric in four significant digits or more; thousands separated.

    >>> value(0.123456), value(12000), value(1234.56), value(float("nan"))
    ('0.1235', '12,000', '1,235', 'nan')
    """
    if math.isfinite(x) and abs(x) < 1e9 and (x == int(x) or abs(x) >= 1000):
        return f"{round(x):,}"
    return f"{x:.4g}"
