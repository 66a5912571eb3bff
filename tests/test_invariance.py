"""The invariance matrix: its numbers, its table, and rows that are not run twice."""

import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxssl.bench import invariance, pair
from jaxssl.bench.invariance import Cell, Trajectory
from jaxssl.config.errors import ConfigError
from jaxssl.report.writers import read_json, write_json


def test_a_difference_is_relative_to_the_largest_of_the_leaf():
    assert invariance.difference([1.0, 0.0], [1.0, 1e-3]) == pytest.approx(1e-3)
    assert invariance.difference(np.nan, np.nan) == 0
    assert invariance.difference(np.nan, 1.0) == float("inf")
    run = Trajectory([{"loss": 1.0}, {"loss": 2.2}], {"params/w": np.array([4.0])})
    reference = Trajectory([{"loss": 1.0}, {"loss": 2.0}], {"params/w": np.array([5.0])})
    cell = invariance.compare(run, reference)
    assert (cell.metrics, cell.params) == pytest.approx((0.1, 0.2))
    # What rounding leaves of zero is not a difference of all that there is.
    rounded = [Trajectory([], {"params/bias": np.array([x])}) for x in (1e-8, -1e-8)]
    assert invariance.compare(*rounded).params == pytest.approx(2e-7)
    with pytest.raises(ConfigError, match="nothing to compare"):
        invariance.compare(run, reference._replace(params={}))


def test_a_row_of_an_experiment(tmp_path, capsys, monkeypatch):
    """Restored is equal bit for bit; with batch normalisation microbatches do not apply."""
    file = tmp_path / "rows.json"
    columns = "restored,microbatches,8 to 2,2x4 processes"
    flags = ["--experiments=lejepa", f"--columns={columns}", "--steps=2", f"--json={file}"]
    assert invariance.main(flags) == 0
    shown = capsys.readouterr()
    assert "| experiment | restored | microbatches | 8 to 2 | 2x4 processes |" in shown.out
    assert "| lejepa | equal | n/a |" in shown.out
    assert "lejepa: 8 to 2" in shown.err
    cells = read_json(file)["lejepa"]["cells"]
    assert list(cells) == columns.split(",")
    assert 0 < Cell(**cells["8 to 2"]).params < 1e-4
    apart = Cell(**cells["2x4 processes"])
    assert 0 < apart.params < 1e-5 and 0 < apart.metrics < 1e-4

    def again(*_):
        raise AssertionError("a row that the file holds was run again")

    monkeypatch.setattr(invariance, "Reference", again)
    assert invariance.main(flags) == 0
    assert "| lejepa | equal | n/a |" in capsys.readouterr().out


def test_what_two_processes_found_is_kept_whole(tmp_path):
    found = Trajectory([{"loss": 2.0}, {"loss": 1.5}], {"params/a/kernel": np.eye(2)})
    pair.write(tmp_path / "x.npz", found)
    again = pair.read(tmp_path / "x.npz")
    assert again.log == found.log and [p.name for p in tmp_path.iterdir()] == ["x.npz"]
    np.testing.assert_array_equal(again.params["params/a/kernel"], np.eye(2))


def test_two_processes_that_fail_are_one_line():
    with pair.Pair(["nothing"], 2) as both, pytest.raises(ConfigError) as error:
        both.found("nothing")
    assert re.match(r"nothing: process \d of 2 ended and said: .*nothing", str(error.value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "flags, line",
    [
        (["--experiments=lejep"], "--experiments: no 'lejep'; did you mean 'lejepa'?"),
        (["--columns=8 device"], "--columns: no '8 device'; did you mean '8 devices'?"),
        (["--steps=1"], "--steps: found '1', expected a whole number from 2 up"),
        (["--config.a=1"], "unknown argument"),
    ],
)
def test_flags_that_do_not_fit(flags, line, capsys):
    assert invariance.main(flags) == 2
    assert line in capsys.readouterr().err


def test_a_file_of_other_rows(tmp_path, capsys):
    file = tmp_path / "rows.json"
    for content, line in (
        ({"lejepa": 1}, "expected rows"),
        ({"a": {"steps": 9, "cells": {}}}, "=9"),
    ):
        write_json(file, content)
        assert invariance.main([f"--json={file}"]) == 2
        assert line in capsys.readouterr().err


def test_too_few_devices(monkeypatch, capsys):
    monkeypatch.setattr(jax, "devices", lambda: [None] * 2)
    assert invariance.main(["--experiments=lejepa"]) == 2
    assert "found 2 devices, expected 8" in capsys.readouterr().err


def test_a_process_of_a_pair_ends_with_the_one_that_started_it():
    waits = "import time\nfrom jaxssl.bench import pair\npair.end_with_input()\ntime.sleep(100)"
    process = subprocess.Popen([sys.executable, "-c", waits], stdin=subprocess.PIPE)
    process.communicate(timeout=90)  # the other end of the pipe is gone
    assert process.returncode == 1


def test_what_is_on_record_is_shown_by_its_largest_differences():
    cell = lambda size: dict(metrics=size, params=2 * size, absent="")
    absent = dict(metrics=0.0, params=0.0, absent="batch normalisation")
    rows = {
        "a": dict(steps=3, cells={"2 devices": cell(1e-7), "microbatches": absent}),
        "b": dict(steps=3, cells={"2 devices": cell(3e-7), "microbatches": cell(0.0)}),
    }
    shown = invariance.block(rows)
    assert "| 2 devices | 2 | 3e-07 / 6e-07 |" in shown
    assert "| microbatches | 1 | equal |" in shown
