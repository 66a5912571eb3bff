"""Records that cannot be decoded: how they are named, refused or counted."""

import threading

import numpy as np

from jaxssl.config.errors import ConfigError

POLICIES = ("error", "skip")


class Unreadable(ConfigError):
    """Why one record holds no sample, without its name, which `Source.where` adds.

    Only for what the stored bytes themselves are: a file that cannot be reached now may be reached
    later, and a run whose data depend on the hour cannot be repeated.
    """


class BadRecords(ConfigError):
    """One line on the first bad record among those that were asked for.

    Attributes:
      bad: bool [B], which of them are bad.
      skip: whether `data.on_bad_record` asks to do without them.
    """

    def __init__(self, line: str, bad: np.ndarray, skip: bool):
        super().__init__(line)
        self.bad, self.skip = bad, skip


class Ledger:
    """The bad records that were met, each once; may be used from several threads.

    >>> ledger = Ledger()
    >>> ledger.add(7, "data.path: b.png: cut short")
    >>> ledger.add(3, "data.path: a.png: cut short")
    >>> ledger.lines()
    ['data.path: a.png: cut short', 'data.path: b.png: cut short']
    >>> ledger.among(np.array([7, 8])).tolist()
    [True, False]
    """

    def __init__(self) -> None:
        self._lines: dict[int, str] = {}
        self._lock = threading.Lock()

    def add(self, i: int, line: str) -> None:
        """Notes that sample i is bad, and why; again changes nothing."""
        with self._lock:
            self._lines.setdefault(i, line)

    def line(self, i: int) -> str:
        """What was noted of sample i."""
        return self._lines[i]

    def lines(self) -> list[str]:
        """What was noted of all, in the order of the samples."""
        with self._lock:
            return [line for _, line in sorted(self._lines.items())]

    def among(self, index: np.ndarray) -> np.ndarray:
        """Which of the samples `index` [B] are known to be bad, bool [B]."""
        if not self._lines:
            return np.zeros(len(index), bool)
        return np.array([i in self._lines for i in index.tolist()], bool)

    def __getstate__(self) -> dict[int, str]:
        with self._lock:
            return dict(self._lines)

    def __setstate__(self, lines: dict[int, str]) -> None:
        self._lines, self._lock = lines, threading.Lock()
