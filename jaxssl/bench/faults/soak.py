"""One long run: the memory and the open files of its process, and what it leaves on the disk."""

import pathlib
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

from jaxssl.bench.faults.config import get_config
from jaxssl.bench.faults.lab import Child, Lab, Lost, reached
from jaxssl.report import human

EVERY = 500  # steps between evaluations, and between checkpoints
SECONDS = 2.0  # between samples
LEAST = 20  # samples: a tenth of them is two


class Sample(NamedTuple):
    """Bytes of resident memory, and open file descriptors."""

    memory: int
    files: int


def soak(lab: Lab, steps: int) -> str:
    """A long run finishes, leaves `checkpoint.keep` checkpoints, and opens no more and more files.

    Returns:
      A line: memory, files and checkpoints.

    Raises:
      Lost: it does not.
    """
    workdir = lab.workdir()
    child = lab.start(
        workdir,
        f"train.steps={steps}",
        f"evals.every_steps={EVERY}",
        f"checkpoint.every_steps={EVERY}",
        "report.every_steps=50",
    )
    # What is compiled and opened once is there by then.
    child.until(lambda: reached(workdir) > min(EVERY, steps // 10))
    samples = []
    while child.process.poll() is None:
        if sample := sampled(child):
            samples.append(sample)
        time.sleep(SECONDS)
    child.ends(0)
    if len(samples) < LEAST:
        raise Lost(f"found {len(samples)} samples, expected {LEAST}; ask for more --steps")
    first, last = tenths(samples)
    left = len(list((workdir / "checkpoints").iterdir()))
    keep = get_config().checkpoint.keep
    memory = f"{human.size(first.memory)} to {human.size(last.memory)}"
    line = f"memory {memory}, open files {first.files} to {last.files}, checkpoints {left}"
    if left != keep or last.files > first.files:
        raise Lost(f"found {line}; expected {keep} checkpoints and no more files")
    return f"{steps:,} steps: {line}"


def sampled(child: Child) -> Sample | None:
    """Of a process; None where it has ended meanwhile."""
    process = pathlib.Path("/proc") / str(child.process.pid)
    try:
        status = (process / "status").read_text().splitlines()
        memory = next(line for line in status if line.startswith("VmRSS:"))
        return Sample(1024 * int(memory.split()[1]), len([*(process / "fd").iterdir()]))
    except (OSError, StopIteration):
        return None


def tenths(samples: Sequence[Sample]) -> tuple[Sample, Sample]:
    """Medians of the first and of the last tenth of the samples.

    >>> first, last = tenths([Sample(100 + i, 5) for i in range(30)])
    >>> first.memory, last.memory, last.files
    (101, 128, 5)
    """
    tenth = max(1, len(samples) // 10)
    first, last = (
        Sample(*(round(statistics.median(x)) for x in zip(*part)))
        for part in (samples[:tenth], samples[-tenth:])
    )
    return first, last
