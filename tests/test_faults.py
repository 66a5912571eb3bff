"""A run that is killed, stopped, run again or diverges: what is left, and how it goes on."""

import random
import signal
import time

import numpy as np
import pytest
import tiny

from jaxssl import main
from jaxssl.config.naming import named_leaves
from jaxssl.program import Program
from jaxssl.run.checkpoint import Checkpoints

LONG = ("train.steps=240", "checkpoint.every_steps=7")
EIGHT = {"JAX_NUM_CPU_DEVICES": "8"}  # as this process has


def arguments(folder, workdir, *overrides):
    """The command line of a run in this process."""
    spec = tiny.write(folder)
    flags = [f"--config={spec}", f"--workdir={folder / workdir}"]
    return [*flags, *(f"--config.{text}" for text in overrides)]


def send_at(process, number, workdir, step, seconds=600):
    """Sends a signal once the metrics of `step` are written; False where the run ended before."""
    path, deadline = workdir / "metrics.jsonl", time.monotonic() + seconds
    while process.poll() is None:
        assert time.monotonic() < deadline, f"step {step} was not reached"
        if path.exists() and path.read_text().count("\n") >= step:
            process.send_signal(number)
            return True
        time.sleep(0.005)
    return False


def ended(folder, workdir):
    """What must not depend on interruptions: metrics, evaluations, and the hash of the params."""
    summary = tiny.summary(folder / workdir)
    assert summary["status"] == "finished"
    return tiny.rows(folder / workdir), summary["evals"], summary["artifact"]


def test_killed_and_stopped_runs_go_on_bit_for_bit(tmp_path, capsys):
    assert main.main(arguments(tmp_path, "whole", *LONG)) == 0
    work = tmp_path / "work"

    process = tiny.start(tmp_path, "work", *LONG, **EIGHT)
    assert send_at(process, signal.SIGKILL, work, 40)
    tiny.finish(process, -signal.SIGKILL)
    assert tiny.summary(work)["status"] == "running"

    process = tiny.start(tmp_path, "work", *LONG, **EIGHT)
    assert send_at(process, signal.SIGTERM, work, 120)
    _, shown = tiny.finish(process, 0)
    summary = tiny.summary(work)
    assert summary["status"] == "stopped" and 120 <= summary["step"] < 240
    assert f"stopped at step {summary['step']}" in shown
    assert max(tiny.rows(work)) == summary["step"]

    capsys.readouterr()
    assert main.main(arguments(tmp_path, "work", *LONG)) == 0
    assert f"at step {summary['step']}" in capsys.readouterr().out
    assert ended(tmp_path, "work") == ended(tmp_path, "whole")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_killed_ten_times_at_random_is_never_killed(tmp_path, seed):
    """Three minutes: pytest -m slow tests/test_faults.py."""
    draw = random.Random(seed)
    longer = ("train.steps=400", "checkpoint.every_steps=7")
    assert main.main(arguments(tmp_path, "whole", *longer)) == 0
    work, reached = tmp_path / "work", []
    # Seven times at a step; three times, early on, at any moment of the start or the restore.
    plan: list[int | float] = [*sorted(draw.sample(range(1, 390), 7))]
    for _ in range(3):
        plan.insert(draw.randrange(5), draw.uniform(0, 5))
    for moment in plan:
        process = tiny.start(tmp_path, "work", *longer, **EIGHT)
        if isinstance(moment, int):
            assert send_at(process, signal.SIGKILL, work, moment)
        else:
            time.sleep(moment)
            process.kill()
        tiny.finish(process, -signal.SIGKILL)
        reached.append(max(tiny.rows(work), default=0) if (work / "metrics.jsonl").exists() else 0)
    print(f"killed at {plan}; steps reached: {reached}")
    tiny.finish(tiny.start(tmp_path, "work", *longer, **EIGHT))
    assert ended(tmp_path, "work") == ended(tmp_path, "whole")


def test_a_finished_run_is_only_evaluated_again(tmp_path, capsys, monkeypatch):
    assert main.main(arguments(tmp_path, "work", "train.steps=6")) == 0
    before, rate = ended(tmp_path, "work"), tiny.summary(tmp_path / "work")["examples_per_second"]
    capsys.readouterr()

    def step(self):
        raise AssertionError("a finished run compiled its step")

    monkeypatch.setattr(Program, "step", property(step))
    assert main.main(arguments(tmp_path, "work", "train.steps=6")) == 0
    assert "finished at step 6" in capsys.readouterr().out
    assert ended(tmp_path, "work") == before
    assert tiny.summary(tmp_path / "work")["examples_per_second"] == rate


# Params of 1e30 overflow in the next forward pass.
DIVERGES = "optimizer.learning_rate=('piecewise', 0.01, (7, 1e30))"


def test_a_diverged_run_says_where_and_keeps_what_was_good(tmp_path, capsys):
    flags = arguments(tmp_path, "work", DIVERGES)
    assert main.main(flags) == 1
    err = capsys.readouterr().err
    (line,) = [text for text in err.splitlines() if text.startswith("stopped: ")]
    assert "stopped: step 9: prediction is nan, loss is nan; last good checkpoint: step 5" in line
    summary = tiny.summary(tmp_path / "work")
    assert summary["status"] == "failed" and summary["reason"] in line
    assert max(tiny.rows(tmp_path / "work")) == 8
    config = tiny.load(tmp_path)
    program = Program(config)
    checkpoints = Checkpoints(tmp_path / "work" / "checkpoints")
    state = checkpoints.restore(program.shapes, program.shardings)
    checkpoints.close()
    assert int(state.step) == 5
    for name, leaf in named_leaves(state.params).items():
        assert np.isfinite(leaf).all(), name
    # Run again, it goes on from there, and stops in the same place.
    assert main.main(flags) == 1
    assert line in capsys.readouterr().err


def test_diverging_before_the_first_checkpoint(tmp_path, capsys):
    assert main.main(arguments(tmp_path, "work", "optimizer.learning_rate=1e30")) == 1
    assert "step 2: prediction is nan" in (err := capsys.readouterr().err)
    assert "no checkpoint was written" in err
