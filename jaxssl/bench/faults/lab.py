"""Runs in processes of their own: started, watched, ended, and compared with an undisturbed one."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import jaxssl
from jaxssl.config.errors import ConfigError
from jaxssl.devices.processes import on_this_machine
from jaxssl.report.writers import read_json, read_metrics

CONFIG = pathlib.Path(__file__).with_name("config.py")
PATIENCE = 600.0  # seconds for whatever a run is waited for
HEARTBEAT = 10  # seconds, of several processes


class Lost(Exception):
    """A fault that was not survived: what was found, what was expected."""


class Missed(Exception):
    """The run was over before the fault could be provoked."""


class Child:
    """A process of a run; what it says goes to a file.

    Args:
      command: its arguments.
      environment: all of it.
      log: the file.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str], log: pathlib.Path):
        self.log = log
        self.began = time.monotonic()
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=pathlib.Path(jaxssl.__file__).parents[1],
            )

    @property
    def said(self) -> str:
        """Standard output and error so far."""
        return self.log.read_text(errors="replace")

    def until(self, condition: Callable[[], bool]) -> bool:
        """Whether the condition came about before the process ended.

        Raises:
          Lost: neither did.
        """
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                raise Lost(f"neither a step nor an end in {PATIENCE:g} s")
            time.sleep(0.002)
        return True

    def provoked(self, condition: Callable[[], bool]) -> None:
        """Waits for a condition.

        Raises:
          Missed: the process ended before.
        """
        if not self.until(condition):
            raise Missed

    def send(self, number: int) -> None:
        """Sends a signal.

        Raises:
          Missed: the process has ended.
        """
        if self.process.poll() is not None:
            raise Missed
        self.process.send_signal(number)

    def kill(self) -> None:
        """Ends it by SIGKILL.

        Raises:
          Missed: it has ended by itself.
        """
        self.send(signal.SIGKILL)
        if self.process.wait() != -signal.SIGKILL:
            raise Missed

    def ends(self, code: int, *words: str, seconds: float = PATIENCE) -> None:
        """Waits for the end, which should come with `code` and have said `words`.

        Raises:
          Lost: it did not, or not in so many seconds.
        """
        try:
            found = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Lost(f"no end in {seconds:g} s, expected exit code {code}") from None
        said = self.said
        if found != code:
            last = (said.strip().splitlines() or ["nothing"])[-1]
            raise Lost(f"found exit code {found}, expected {code}; it said: {last}")
        for word in words:
            if word not in said:
                raise Lost(f"ended with exit code {code} and did not say {word!r}")

    def seconds_to_step(self) -> float | None:
        """From its start to the first step that it reports; None where it ended before."""
        stepped = self.until(lambda: any(x.startswith("step ") for x in self.said.splitlines()))
        return time.monotonic() - self.began if stepped else None


class End(NamedTuple):
    """What must not depend on a fault."""

    rows: Mapping[int, Mapping[str, Any]]
    evals: Mapping[str, Any]
    artifact: str


class Lab:
    """A folder for runs, which share compiled programs; as a context it ends what still runs.

    Args:
      folder: an empty one.

    Attributes:
      started_in: seconds to the first step of the last run that was followed to its end.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder.resolve()
        self.started_in = 0.0
        self._children: list[Child] = []
        self._whole: dict[tuple[str, ...], End] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.forget()

    def forget(self) -> None:
        """Ends what still runs."""
        for child in self._children:
            child.process.kill()
            child.process.wait()
        self._children = []

    def workdir(self) -> pathlib.Path:
        """A new one, not yet made."""
        return pathlib.Path(tempfile.mkdtemp(dir=self.folder)) / "work"

    def start(self, workdir: pathlib.Path, *overrides: str, **environment: str) -> Child:
        """Starts one process of a run, with overrides such as "train.steps=9"."""
        compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(self.folder / "compiled")
        settings = {
            "JAX_COMPILATION_CACHE_DIR": compiled,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "1",
        }
        flags = [f"--config={CONFIG}", f"--workdir={workdir}"]
        flags += [f"--config.{text}" for text in overrides]
        if "JAX_NUM_PROCESSES" not in environment:
            flags.append("--cluster=none")
        child = Child(
            [sys.executable, "-m", "jaxssl.main", *flags],
            os.environ | settings | environment,
            workdir.parent / f"{len(self._children)}.log",
        )
        self._children.append(child)
        return child

    def together(self, workdir: pathlib.Path, *overrides: str, processes: int = 1) -> list[Child]:
        """Starts all processes of a run."""
        if processes == 1:
            return [self.start(workdir, *overrides)]
        beat = {"JAXSSL_HEARTBEAT": str(HEARTBEAT)}
        return [
            self.start(workdir, *overrides, **beat, **place) for place in on_this_machine(processes)
        ]

    def whole(self, *overrides: str, processes: int = 1) -> End:
        """The end of a run with these overrides that nothing disturbs; made once.

        Raises:
          ConfigError: it did not finish.
        """
        key = (*overrides, str(processes))
        if key not in self._whole:
            workdir = self.workdir()
            try:
                self._to_the_end(self.together(workdir, *overrides, processes=processes))
                self._whole[key] = ended(workdir)
            except Lost as error:
                raise ConfigError(f"the run that nothing disturbs: {error}") from error
        return self._whole[key]

    def goes_on(
        self,
        workdir: pathlib.Path,
        *overrides: str,
        processes: int = 1,
        says: Sequence[str] = (),
    ) -> float | None:
        """Runs the same command again to an end that equals that of the undisturbed run.

        Args:
          workdir, overrides, processes: of the run.
          says: what the first process has to say.

        Returns:
          Seconds from the start to the first step; None where none was left.

        Raises:
          Lost: it does not finish, or differs.
        """
        again = self.together(workdir, *overrides, processes=processes)
        seconds = self._to_the_end(again, *says)
        same(ended(workdir), self.whole(*overrides, processes=processes))
        return seconds

    def _to_the_end(self, children: Sequence[Child], *words: str) -> float | None:
        seconds = children[0].seconds_to_step()
        self.started_in = seconds or self.started_in
        children[0].ends(0, *words)
        for child in children[1:]:
            child.ends(0)
        return seconds

    def clear(self) -> None:
        """Removes the folders of all runs that have been compared."""
        self.forget()
        for path in self.folder.glob("tmp*"):
            shutil.rmtree(path)


def rows(workdir: pathlib.Path) -> dict[int, dict[str, Any]]:
    """step -> metrics, without those that measure speed; nothing where none are written yet."""
    path = workdir / "metrics.jsonl"
    found: dict[int, dict[str, Any]] = {}
    for row in read_metrics(path) if path.exists() else ():
        kept = {name: x for name, x in row.items() if not name.startswith("perf/")}
        found.setdefault(row["step"], {}).update(kept)
    return found


def reached(workdir: pathlib.Path) -> int:
    """The last step whose metrics are written."""
    return max(rows(workdir), default=0)


def ended(workdir: pathlib.Path) -> End:
    """What a run has left.

    Raises:
      Lost: it is not finished.
    """
    summary = read_json(workdir / "summary.json")
    if summary["status"] != "finished":
        raise Lost(f"found status {summary['status']!r}, expected 'finished'")
    return End(rows(workdir), summary["evals"], summary["artifact"])


def same(found: End, wanted: End) -> None:
    """Compares two ends bit for bit.

    Raises:
      Lost: naming the first difference.

    >>> end = End({1: {"loss": 0.5}}, {}, "abc")
    >>> same(end, end)
    >>> same(end._replace(rows={1: {"loss": 0.25}}), end)
    Traceback (most recent call last):
    jaxssl.bench.faults.lab.Lost: step 1: found {'loss': 0.25}, expected {'loss': 0.5}
    """
    for step in sorted(found.rows.keys() | wanted.rows.keys()):
        here, there = found.rows.get(step), wanted.rows.get(step)
        if here != there:
            raise Lost(f"step {step}: found {here}, expected {there}")
    for field in ("evals", "artifact"):
        here, there = getattr(found, field), getattr(wanted, field)
        if here != there:
            raise Lost(f"{field}: found {here}, expected {there}")
