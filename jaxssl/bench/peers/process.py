"""A peer's process: started, told what to train, and asked for rounds of steps, one JSON a line."""

import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from jaxssl.config.errors import ConfigError

FOLDER = pathlib.Path(__file__).resolve().parent
# What would make the other interpreter load this one's packages.
OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
# OpenMP's threads then sleep while they wait for each other. Where they spin, a machine with other
# work makes PyTorch's steps ten times longer, which says nothing about PyTorch.
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}


class Skipped(Exception):
    """Why a peer takes no part; no error."""


class Peer:
    """A worker of `jaxssl.bench.peers.workers` in another interpreter.

    Args:
      name: of the peer.
      python: the interpreter.
      command: what it runs; by default the workers.

    Attributes:
      parameters: network -> how many numbers the peer's learns.
      facts: what it says of itself.
      made_seconds: imports and construction.
      loss: of the last step.
      cpu_seconds: of each round, summed over threads.
      peak_bytes: the most that it took of a device's memory, 0 where it does not tell.

    Raises:
      ConfigError: no such interpreter, or a worker that failed, with its last line.
      Skipped: the peer does not offer what is described, or is not installed there.
    """

    def __init__(self, name: str, python: pathlib.Path, command: Sequence[str] = ("-m", "workers")):
        self.name = name
        # Not resolved: an environment's Python is a link, and knows itself by its path.
        python = pathlib.Path(os.path.abspath(python))
        if not os.access(python, os.X_OK) or python.is_dir():
            raise ConfigError(f"--peer-python: no program at {python}, expected a Python")
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [python, *command, name],
            cwd=FOLDER,
            env=PASSIVE | {name: x for name, x in os.environ.items() if name not in OURS},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.parameters: dict[str, int] = {}
        self.facts: dict[str, Any] = {}
        self.cpu_seconds: list[float] = []
        self.made_seconds = self.loss = float("nan")
        self.peak_bytes = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def make(self, description: Mapping[str, Any]) -> None:
        """Builds networks, optimizer and batches there."""
        reply = self._ask({"make": description})
        self.parameters, self.facts = reply["parameters"], reply["facts"]
        self.made_seconds = reply["seconds"]

    def run(self, steps: int) -> float:
        """The seconds that `steps` steps take there."""
        reply = self._ask({"run": steps})
        self.loss = reply["loss"]
        self.cpu_seconds.append(reply["cpu_seconds"])
        self.peak_bytes = float(reply.get("peak_bytes", 0))
        self.facts |= reply.get("facts", {})
        return float(reply["seconds"])

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        # Why the pipe is broken, the reply or the last line of the errors says.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        try:
            reply = json.loads(line)
        except json.JSONDecodeError:
            self._fail(self._last_line() or f"found {line!r}, expected a JSON object")
        if "unsupported" in reply:
            raise Skipped(reply["unsupported"])
        if "error" in reply:
            self._fail(reply["error"])
        return reply

    def _fail(self, why: str) -> None:
        raise ConfigError(f"peer {self.name}: {why}")

    def _last_line(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else ""
