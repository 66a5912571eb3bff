"""The error that a user's input can raise, with the near name it suggests, and those of a run."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """Bad input: one line that names the field or file, what was found, what was expected, the fix.

    `jaxssl.main` prints it without a traceback and exits with code 2.
    """


class Diverged(RuntimeError):
    """A loss that is not finite: the step, the first such term and the last good checkpoint."""


class Alarmed(Diverged):
    """An alarm of a run whose `alarms.action` is "stop": the alarm's line."""


def near(name: object, known: Iterable[object]) -> str:
    """`"; did you mean 'x'?"` for the closest known name, else `"; known: a, b"`.

    >>> near("sigrek", ["sigreg", "koleo"])
    "; did you mean 'sigreg'?"
    """
    names = sorted(map(str, known))
    close = difflib.get_close_matches(str(name), names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names) or 'none'}"
