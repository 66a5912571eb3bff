"""The one error that a user's input can raise, and the near name that it suggests."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """Bad input: one line that names the field or file, what was found, what was expected, the fix.

    `jaxssl.main` prints it without a traceback and exits with code 2.
    """


def near(name: object, known: Iterable[object]) -> str:
    """`"; did you mean 'x'?"` for the closest known name, else `"; known: a, b"`.

    >>> near("sigrek", ["sigreg", "koleo"])
    "; did you mean 'sigreg'?"
    """
    names = sorted(map(str, known))
    close = difflib.get_close_matches(str(name), names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names) or 'none'}"
