"""Two processes with four CPU devices each, which take the steps of small experiments together.

`Pair` starts them and hands out what they found; each of them is `python -m jaxssl.bench.pair
FOLDER STEPS NAME ...`, which writes FOLDER/NAME.npz as soon as an experiment is done, and ends
where its standard input does: with the process that started it, however that one ended.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.bench import small
from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import named_leaves
from jaxssl.devices import processes
from jaxssl.evals.features import to_host

PROCESSES, EACH = 2, 4
PATIENCE = 600.0  # seconds for one experiment
METRIC, PARAM = "metric/", "params/"


class Trajectory(NamedTuple):
    """What runs are compared by: the metrics of every step, and the last params, by path."""

    log: list[dict[str, float]]
    params: dict[str, np.ndarray]


class Pair:
    """The processes, from their start to the end of the context.

    Args:
      names: of experiments, in the order in which they are run.
      steps: of each.
    """

    def __init__(self, names: Sequence[str], steps: int):
        self._folder = tempfile.TemporaryDirectory()
        self._running: list[subprocess.Popen[bytes]] = []
        self._command = [sys.executable, "-m", "jaxssl.bench.pair", self._folder.name, str(steps)]
        self._command += names

    def __enter__(self) -> Self:
        told = {**os.environ, "JAX_NUM_CPU_DEVICES": str(EACH), "JAX_PLATFORMS": "cpu"}
        for i, place in enumerate(processes.on_this_machine(PROCESSES)):
            with self._log(i).open("wb") as log:
                self._running.append(
                    subprocess.Popen(
                        self._command,
                        env=told | place,
                        stdin=subprocess.PIPE,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
                )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._running:
            process.kill()
            process.communicate()  # waits, and closes its input
        self._folder.cleanup()

    def found(self, name: str) -> Trajectory:
        """What they found of an experiment, once it is there.

        Raises:
          ConfigError: a process failed, with its last line, or nothing came in PATIENCE seconds.
        """
        file = pathlib.Path(self._folder.name) / f"{name}.npz"
        deadline = time.monotonic() + PATIENCE
        while not file.exists():
            for i, process in enumerate(self._running):
                if process.poll() is not None and not file.exists():
                    lines = self._log(i).read_text(errors="replace").strip().splitlines()
                    why = lines[-1] if lines else "nothing"
                    raise ConfigError(f"{name}: process {i} of {PROCESSES} ended and said: {why}")
            if time.monotonic() > deadline:
                raise ConfigError(f"{name}: nothing of {PROCESSES} processes in {PATIENCE:g} s")
            time.sleep(0.05)
        return read(file)

    def _log(self, i: int) -> pathlib.Path:
        return pathlib.Path(self._folder.name) / f"{i}.log"


def write(file: pathlib.Path, found: Trajectory) -> None:
    """Beside the file, then renamed: what is there is whole."""
    arrays = {f"{METRIC}{k}": np.asarray([row[k] for row in found.log]) for k in found.log[0]}
    beside = file.with_suffix(".part.npz")
    np.savez(beside, **arrays, **found.params)  # type: ignore[arg-type]
    beside.rename(file)


def read(file: pathlib.Path) -> Trajectory:
    """What `write` wrote."""
    with np.load(file) as arrays:
        columns = {k.removeprefix(METRIC): arrays[k] for k in arrays if k.startswith(METRIC)}
        params = {k: arrays[k] for k in arrays if k.startswith(PARAM)}
    rows = zip(*columns.values(), strict=True)
    return Trajectory([dict(zip(columns, map(float, row))) for row in rows], params)


def followed(name: str, steps: int) -> Trajectory:
    """The steps of a small experiment over all devices of all processes."""
    config = small.smooth(name)
    first = jax.device_get(small.followed(config).init())  # as one device makes it, everywhere
    program = small.followed(config, jax.device_count()).program
    state = jax.tree.map(_placed, first, program.shardings)
    batches, log = program.batches(0), []
    for _ in range(steps):
        state, metrics = program.step(state, next(batches))
        log.append({k: float(to_host(v)) for k, v in metrics.items()})
    leaves = named_leaves({"params": state.params})
    return Trajectory(log, {k: to_host(leaf) for k, leaf in leaves.items()})


def _placed(value: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    """A value that every process has whole, split over the devices of all."""
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_placed(np.asarray(jax.random.key_data(value)), sharding))
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def end_with_input() -> None:
    """Ends this process as soon as its standard input has an end."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(argv: Sequence[str]) -> int:
    """One of the processes: the exit code."""
    end_with_input()
    folder, steps, *names = argv
    joined = processes.joined(processes.settings({}, os.environ))
    with joined, jax.default_matmul_precision("highest"):
        for name in names:
            found = followed(name, int(steps))
            if jax.process_index() == 0:
                write(pathlib.Path(folder) / f"{name}.npz", found)
            jax.clear_caches()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
