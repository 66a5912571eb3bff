"""The other processes of a run: which of them has died or failed, found in a bounded time.

Every process writes a sign of life to the key-value store of JAX's coordination service (in process
0); process 0 looks for signs that stay away, and tells the others. A process that fails leaves its
reason there. JAX's own watch stands behind this one, and is alone in seeing process 0 itself die.
"""

import contextlib
import ctypes
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

CODE = 3  # the exit code of a process that ends because another one has
GRACE = 2.0  # seconds in which a process that fails like the others may say so itself
FOLDER = "jaxssl"
# How an error of the runtime begins that another process may have caused; a dispatch raises some of
# these as ValueError. Not so RESOURCE_EXHAUSTED, say, or INVALID_ARGUMENT: those are one's own.
ANOTHERS = re.compile(
    "(UNKNOWN|INTERNAL|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED|FAILED_PRECONDITION): "
)


class Peers:
    """The processes of a run, as one of them sees them.

    Args:
      client: of the coordination service: `key_value_set` and `key_value_dir_get`.
      index: this process.
      count: how many there are.
      heartbeat: seconds without a sign of life after which a process counts as dead.
      clock: seconds from any origin.
      leave: ends this process with an exit code.
    """

    def __init__(
        self,
        client: Any,
        index: int,
        count: int,
        heartbeat: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        leave: Callable[[int], Any] = os._exit,
    ) -> None:
        self.index, self.count, self.heartbeat = index, count, heartbeat
        self.period = min(5.0, heartbeat / 10)
        self.bound = bound(heartbeat)
        self._client, self._clock, self._leave = client, clock, leave
        self._beats = 0
        self._seen: dict[int, tuple[str, float]] = dict.fromkeys(range(count), ("", clock()))
        self._failing = threading.Event()
        self._ending = threading.Lock()

    def start(self) -> None:
        """Watches in the background, until JAX leaves the run."""
        threading.Thread(target=self._watch, name="peers", daemon=True).start()

    def look(self) -> tuple[int, str] | None:
        """Gives a sign of life; (number, reason) of another process that has died or failed."""
        self._beats += 1
        self._put("beat", str(self._beats))
        if self.index == 0:
            now = self._clock()
            for number, beat in self._get("beat").items():
                if beat != self._seen[number][0]:
                    self._seen[number] = beat, now
            number = self._stalest()
            if now - self._seen[number][1] > self.heartbeat:
                self._put("lost", f"died: no sign of life for {self.heartbeat:g} s", number)
        lost = self._get("lost")
        lost.pop(self.index, None)
        return min(lost.items(), default=None)

    def end(self, number: int, reason: str) -> None:
        """Ends this process, with one line on the one that died or failed."""
        with self._ending:  # by whichever thread is first
            self._say(number, reason)
            self._last_words({self.index, number})
            self._leave(CODE)

    def runtime_failed(self) -> None:
        """Ends this process where the coordination service has gone, or was first to see a death.

        JAX calls this in the thread that answers of the service come to: nothing more is asked.
        """
        if self._failing.is_set():
            time.sleep(GRACE)  # the main thread is about to say why, and to leave
        if not self._ending.locked():
            if self.index == 0:
                self._say(self._stalest(), "died: no sign of life")
            else:
                self._say(0, "died: the coordination service that it runs has gone")
        self._leave(CODE)

    def _say(self, number: int, reason: str) -> None:
        line = (
            f"stopped: process {number} of {self.count} {reason}; run the same command on all "
            "processes to go on from the last checkpoint"
        )
        print(line, file=sys.stderr, flush=True)

    def failed(self, error: BaseException) -> None:
        """Tells the others of an error that ends this process.

        First it waits, where a death elsewhere may be behind the error, until that one is named:
        then this does not return.
        """
        if may_be_anothers(error):
            time.sleep(self.bound + GRACE)
        self._failing.set()
        with self._ending:
            lines = str(error).splitlines()
            reason = f"failed: {type(error).__name__}: {lines[0] if lines else ''}"
            with contextlib.suppress(Exception):
                self._put("lost", reason.rstrip(": "))
            self._last_words({self.index})

    def _watch(self) -> None:
        while jax.distributed.is_initialized():
            # An error here is the service's, and JAX's own watch deals with it.
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                found = self.look()
                if found is not None:
                    time.sleep(GRACE)
                    if not self._failing.is_set():
                        self.end(*found)
            time.sleep(self.period)

    def _last_words(self, gone: set[int]) -> None:
        """Process 0 takes the service with it: it leaves after those who are not `gone`."""
        with contextlib.suppress(Exception):
            self._put("ended", "")
            deadline = self._clock() + 2 * self.period + GRACE + 2
            while self.index == 0 and self._clock() < deadline:
                if len(self._get("ended").keys() | gone) == self.count:
                    break
                time.sleep(0.1)

    def _stalest(self) -> int:
        """The other process that gave no sign for the longest time."""
        others = (number for number in range(self.count) if number != self.index)
        return min(others, key=lambda number: self._seen[number][1])

    def _put(self, kind: str, value: str, number: int | None = None) -> None:
        key = f"{FOLDER}/{kind}/{self.index if number is None else number}"
        self._client.key_value_set(key, value, allow_overwrite=True)

    def _get(self, kind: str) -> dict[int, str]:
        """process -> value."""
        found = self._client.key_value_dir_get(f"{FOLDER}/{kind}/")
        return {int(key.rpartition("/")[2]): value for key, value in found}


def bound(heartbeat: float) -> int:
    """Seconds of silence after which JAX's own watch ends all processes.

    Later than Peers, which knows more of what has happened.
    """
    return math.ceil(2 * heartbeat) + 10


def may_be_anothers(error: BaseException | None) -> bool:
    """Whether an error of the runtime, such as a broken connection, is behind `error`."""
    while error is not None:
        if ANOTHERS.match(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def runtime_failures(call: Callable[[], None]) -> Iterator[None]:
    """Has JAX's own watch `call`, where it would print a C++ stack and abort.

    For a client that is made inside this context, `jax.distributed.initialize` has no parameter for
    it. jaxlib takes a function, but fails to convert the status that it would pass to it: a C++
    `std::bad_cast`, which ends the process by way of the terminate handler. So that is set as well.
    """
    from jax._src.lib import _jax

    make = _jax.get_distributed_runtime_client

    def with_callback(*args: Any, **more: Any) -> Any:
        return make(*args, missed_heartbeat_callback=lambda *status: call(), **more)

    _on_bad_cast(call)
    _jax.get_distributed_runtime_client = with_callback
    try:
        yield
    finally:
        _jax.get_distributed_runtime_client = make


_handlers: list[Any] = []  # C++ holds no reference to them


def _on_bad_cast(call: Callable[[], None]) -> None:
    """Sets a C++ terminate handler, which leaves all but `std::bad_cast` to the one before."""
    try:
        library = ctypes.CDLL("libstdc++.so.6")
    except OSError:
        return  # not Linux
    handler_type = ctypes.CFUNCTYPE(None)
    library.__cxa_current_exception_type.restype = ctypes.c_void_p
    library._ZSt13set_terminatePFvvE.restype = handler_type

    def terminate() -> None:
        kind = library.__cxa_current_exception_type()  # its second word is the name
        if kind and ctypes.cast(kind, ctypes.POINTER(ctypes.c_char_p))[1] == b"St8bad_cast":
            call()
        before()

    _handlers.append(handler_type(terminate))
    before = library._ZSt13set_terminatePFvvE(_handlers[-1])
