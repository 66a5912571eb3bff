"""Do the numbers depend on the devices? Small runs of experiments, split in many ways, against one.

  JAX_NUM_CPU_DEVICES=8 python -m jaxssl.bench.invariance [--experiments=NAME,NAME]
      [--columns=NAME,NAME] [--steps=N] [--json=FILE]

A cell is the largest relative difference from the run on one device: first of the metrics of every
step, |a - b| / |b|, then of the final params, max |a - b| / max(max |b|, 0.1) over each leaf. The
small configs are those of `jaxssl.bench.small.smooth`. "restored" saves after a step and goes on
from the file; "8 to 2" saves on eight devices and goes on with two; "2x4 processes" is two
processes with four devices each, which run ahead beside the other columns. A cell that says n/a
does not apply; microbatches do not go with batch normalisation.

With --json each row is written once it is done, and rows that the file holds are not run again.
"""

import contextlib
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.bench import small
from jaxssl.bench.pair import Pair, Trajectory
from jaxssl.config import command_line as cli
from jaxssl.config.errors import ConfigError, near
from jaxssl.program import Program
from jaxssl.report import markdown
from jaxssl.report.progress import Pieces
from jaxssl.report.writers import read_json, write_json
from jaxssl.run.checkpoint import Checkpoints

USAGE = (
    "python -m jaxssl.bench.invariance [--experiments=NAME,NAME] [--columns=NAME,NAME] "
    "[--steps=N] [--json=FILE]"
)
DEVICES = 8
PROCESSES = "2x4 processes"  # the column
TINY = 1e-12
# A bias starts at zero, and is added to features of a scale of one. Before a normalisation its
# gradient is what rounding leaves of zero, which an optimizer like Adam makes as large as any.
SCALE = 0.1


class Cell(NamedTuple):
    """Largest relative differences, or why there are none."""

    metrics: float = 0.0
    params: float = 0.0
    absent: str = ""

    def text(self) -> str:
        """For the table.

        >>> Cell().text(), Cell(2e-7, 0.0).text(), Cell(absent="batch norm").text()
        ('equal', '2e-07 / 0', 'n/a')
        """
        if self.absent:
            return "n/a"
        if self.metrics == self.params == 0:
            return "equal"
        return " / ".join(f"{x:.0e}" if x else "0" for x in (self.metrics, self.params))


def difference(a: Any, b: Any, least: float = TINY) -> float:
    """max |a - b| / max(max |b|, least); infinite where only one is finite.

    >>> round(difference([1.0, 2.2], [1.0, 2.0]), 6), difference([np.nan], [np.nan])
    (0.1, 0.0)
    """
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    if a.size == 0 or np.array_equal(a, b, equal_nan=True):
        return 0.0
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    return float(np.abs(a - b).max() / max(np.abs(b).max(), least))


def compare(run: Trajectory, reference: Trajectory) -> Cell:
    """The largest differences of the metrics of every step, and of the params.

    Raises:
      ConfigError: the runs do not have the same steps, metrics and params.
    """
    names = lambda t: ([sorted(row) for row in t.log], sorted(t.params))
    if names(run) != names(reference):
        raise ConfigError("the runs differ in their steps, metrics or params: nothing to compare")
    pairs = [(row[k], other[k]) for row, other in zip(run.log, reference.log) for k in other]
    return Cell(
        max((difference(a, b) for a, b in pairs), default=0.0),
        max(
            (difference(run.params[k], b, SCALE) for k, b in reference.params.items()), default=0.0
        ),
    )


# ---------------------------------------------------------------------------- the columns


class Reference:
    """One experiment on one device, and what every column needs of it.

    Args:
      name: of the experiment.
      steps: of every run.
      pair: two processes that run it too, where the columns need them.
    """

    def __init__(self, name: str, steps: int, pair: Pair | None):
        self.name, self.steps, self.config = name, steps, small.smooth(name)
        self.pair = pair
        self.alone = small.followed(self.config)
        self._first = self.alone.init()
        self.run = self.steps_of(self.alone)

    def steps_of(self, run: small.Followed) -> Trajectory:
        """A run from the first state of the one device."""
        return _followed(run.program, self._begun(run), 0, self.steps)

    def resumed(self, first: small.Followed, then: small.Followed) -> Trajectory:
        """One step of `first`, saved; the others are those of `then`."""
        state, metrics = first.program.step(self._begun(first), next(first.program.batches(0)))
        head = {k: float(v) for k, v in metrics.items()}
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(folder)
            checkpoints.save(state, wait=True)
            restored = checkpoints.restore(then.program.shapes, then.program.shardings)
            checkpoints.close()
        rest = _followed(then.program, restored, 1, self.steps - 1)
        return Trajectory([head, *rest.log], rest.params)

    def _begun(self, run: small.Followed) -> Any:
        """A copy, which a step may take for its own."""
        copy = jax.tree.map(jnp.copy, self._first)
        return jax.device_put(copy, run.program.shardings)


def _followed(program: Program, state: Any, start: int, steps: int) -> Trajectory:
    log, last = small.trajectory(program, state, program.batches(start), steps)
    return Trajectory(log, _params(last))


def _params(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: leaf for name, leaf in state.items() if name.startswith("params/")}


def _devices(count: int, **changes: object) -> Callable[[Reference], Cell]:
    def cell(one: Reference) -> Cell:
        run = small.followed(small.smooth(one.name, **changes), count)
        return compare(one.steps_of(run), one.run)

    return cell


def _microbatches(one: Reference) -> Cell:
    config = small.in_microbatches(one.config)
    if config == one.config:
        return Cell(absent="batch normalisation")
    return compare(one.steps_of(small.followed(config)), one.run)


def _restored(one: Reference) -> Cell:
    return compare(one.resumed(one.alone, one.alone), one.run)


def _elastic(one: Reference) -> Cell:
    many = small.followed(one.config, DEVICES)
    return compare(one.resumed(many, small.followed(one.config, 2)), one.run)


def _processes(one: Reference) -> Cell:
    assert one.pair is not None  # it is there where the column is asked for
    return compare(one.pair.found(one.name), one.run)


COLUMNS: dict[str, Callable[[Reference], Cell]] = {
    "2 devices": _devices(2),
    "8 devices": _devices(DEVICES),
    "8 devices FSDP": _devices(DEVICES, **{"mesh.fsdp": DEVICES}),
    "microbatches": _microbatches,
    "restored": _restored,
    "8 to 2": _elastic,
    PROCESSES: _processes,
}


# ---------------------------------------------------------------------------- the command


def measure(
    name: str, columns: Sequence[str], steps: int, pieces: Pieces, pair: Pair | None
) -> dict[str, Any]:
    """A row: of each column its cell, and the seconds of the processor that all took."""
    began = time.process_time()
    pieces.begin(f"{name}: 1 device")
    with jax.default_matmul_precision("highest"):
        one = Reference(name, steps, pair)
        cells = {}
        for column in columns:
            pieces.begin(f"{name}: {column}")
            cells[column] = COLUMNS[column](one)._asdict()
    return {"steps": steps, "cpu_seconds": time.process_time() - began, "cells": cells}


def table(rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> str:
    """The rows in markdown.

    >>> print(table({"a": {"cells": {"x": Cell()._asdict()}}}, ["x", "y"]))
    | experiment | x | y |
    | --- | --- | --- |
    | a | equal | not run |
    """
    cells = [
        [Cell(**row["cells"][c]).text() if c in row["cells"] else "not run" for c in columns]
        for row in rows.values()
    ]
    lines = [[name, *line] for name, line in zip(rows, cells)]
    return markdown.table(["experiment", *columns], lines)


def block(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """What `jaxssl/README.md` shows of recorded rows: the largest differences of each column."""
    columns = [c for c in COLUMNS if any(c in row["cells"] for row in rows.values())]
    largest = []
    for column in columns:
        cells = [Cell(**row["cells"][column]) for row in rows.values() if column in row["cells"]]
        apply = [cell for cell in cells if not cell.absent]
        worst = Cell(
            max((cell.metrics for cell in apply), default=0.0),
            max((cell.params for cell in apply), default=0.0),
            absent="" if apply else "for none",
        )
        largest.append([column, str(len(apply)), worst.text()])
    steps = sorted({row["steps"] for row in rows.values()})
    head = ["against one device", "experiments", "largest difference, metrics / params"]
    return "\n\n".join(
        (
            markdown.table(head, largest),
            f"After {' or '.join(map(str, steps))} steps; a difference is |a - b| / |b| of a "
            "metric, or max |a - b| / max(max |b|, 0.1) of a leaf of the params.",
        )
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 2 bad input. How large a difference may be is for the reader."""
    try:
        names, columns, steps, path = parse(argv)
        if len(jax.devices()) < DEVICES:
            raise ConfigError(
                f"found {len(jax.devices())} devices, expected {DEVICES}; on a CPU, put "
                f"JAX_NUM_CPU_DEVICES={DEVICES} before the command"
            )
        rows = held(path, steps)
        has = lambda name: set(columns) <= rows.get(name, {"cells": {}})["cells"].keys()
        left = [name for name in names if not has(name)]
        with contextlib.ExitStack() as stack:
            pair = stack.enter_context(Pair(left, steps)) if PROCESSES in columns else None
            pieces = stack.enter_context(Pieces(len(left) * (len(columns) + 1)))
            for name in left:
                new = measure(name, columns, steps, pieces, pair)
                new["cells"] = {**rows.get(name, {"cells": {}})["cells"], **new["cells"]}
                rows[name] = new
                jax.clear_caches()
                if path:
                    write_json(path, rows)
        print(f"After {steps} steps: largest relative difference of metrics / of params.\n")
        print(table({name: rows[name] for name in names}, columns))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parse(argv: Sequence[str] | None = None) -> tuple[list[str], list[str], int, str]:
    """(experiments, columns, steps, a file for the rows) from the command line.

    Raises:
      ConfigError: no such flag, experiment or column, or a number that is none.
    """
    parser = cli.Parser(prog="jaxssl.bench.invariance", usage=USAGE)
    parser.add_argument("--experiments", default="", help="names, with commas between them")
    parser.add_argument("--columns", default="", help="names, with commas between them")
    parser.add_argument("--steps", default="3", help="of every run")
    parser.add_argument("--json", default="", help="a file for the rows")
    flags, rest = parser.parse(argv)
    if rest:
        raise ConfigError(f"{rest[0]}: unknown argument; usage: {USAGE}")
    if not flags.steps.isdecimal() or int(flags.steps) < 2:
        raise ConfigError(f"--steps: found {flags.steps!r}, expected a whole number from 2 up")
    names = _named("--experiments", flags.experiments, small.NAMES)
    columns = _named("--columns", flags.columns, COLUMNS)
    return names, columns, int(flags.steps), flags.json


def held(path: str, steps: int) -> dict[str, Any]:
    """The rows that a file holds.

    Raises:
      ConfigError: it is no file of rows, or one of another number of steps.
    """
    if not path or not pathlib.Path(path).exists():
        return {}
    rows = read_json(path)
    if not isinstance(rows, dict) or not all(
        isinstance(row, dict) and {"steps", "cells"} <= row.keys() for row in rows.values()
    ):
        raise ConfigError(f"{path}: expected rows that this command wrote")
    for name, row in rows.items():
        if row["steps"] != steps:
            raise ConfigError(
                f"{path}: {name} has --steps={row['steps']}, found {steps}; name another file"
            )
    return rows


def _named(flag: str, given: str, known: Any) -> list[str]:
    names = [name.strip() for name in given.split(",") if name.strip()] or list(known)
    for name in names:
        if name not in known:
            raise ConfigError(f"{flag}: no {name!r}{near(name, known)}")
    return names


if __name__ == "__main__":
    # Before the first device is asked for.
    jax.config.update("jax_num_cpu_devices", DEVICES)
    sys.exit(main())
