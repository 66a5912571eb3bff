"""The tax of the loop: the steps a second that users get, over those of the compiled step alone."""

import contextlib
import io
import itertools
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

from jaxssl.bench.measure import Measure, in_turn, ratios
from jaxssl.bench.workload import Workload
from jaxssl.report.writers import read_metrics
from jaxssl.run import train
from jaxssl.run.stages import Stage

GOAL = 0.97


def run(workload: Workload, repeats: int) -> list[Measure]:
    """`train.run_stage` itself (data, metrics and events written), against a bare jitted step."""
    found = in_turn(
        {"loop": lambda: _loop_seconds(workload), "bare": workload.bare_seconds}, repeats
    )
    counted = workload.steps - 1
    return [
        Measure("loop over bare", ratios(found["bare"], found["loop"]), goal=(">=", GOAL)),
        Measure("loop steps/s", [counted / s for s in found["loop"]]),
        Measure("bare steps/s", [counted / s for s in found["bare"]]),
    ]


def _loop_seconds(workload: Workload) -> float:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        with contextlib.redirect_stderr(io.StringIO()):
            stage = Stage("", workload.config, pathlib.Path(folder), "", ())
            train.run_stage(stage, {}, last=False, program=workload.program)
        rows = read_metrics(pathlib.Path(folder) / "metrics.jsonl")
    return written_seconds(rows, workload.config.train.global_batch)


def written_seconds(rows: Sequence[dict[str, Any]], batch: int) -> float:
    """The time of all steps but the first, from the rates in `metrics.jsonl`.

    Each rate is that of the steps since the row before, so that together they leave no gap.

    >>> loss, rate = "train/loss", "perf/examples_per_second"
    >>> rows = [{"step": 1, loss: 1}, {"step": 3, loss: 1, rate: 8}, {"step": 4, loss: 1, rate: 2}]
    >>> written_seconds(rows, batch=4)
    3.0
    """
    rows = [row for row in rows if "train/loss" in row]
    return sum(
        (row["step"] - before["step"]) * batch / row["perf/examples_per_second"]
        for before, row in itertools.pairwise(rows)
    )
