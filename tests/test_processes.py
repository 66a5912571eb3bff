"""Two processes are one run: the same numbers, one set of files, checkpoints that both resume."""

import json
import signal
import socket
import time

import numpy as np
import pytest
import tiny

from jaxssl.config import load as configs
from jaxssl.run import train


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def two_processes(folder, workdir, *overrides, devices=4, **environment):
    """The run as two processes with `devices` each."""
    port = free_port()
    return [
        tiny.start(
            folder,
            workdir,
            *overrides,
            JAX_COORDINATOR_ADDRESS=f"localhost:{port}",
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(i),
            JAX_NUM_CPU_DEVICES=str(devices),
            **environment,
        )
        for i in range(2)
    ]


def assert_same(found, expected):
    """Rows of metrics that are equal up to the order of sums."""
    assert found.keys() == expected.keys()
    for step, row in expected.items():
        assert found[step].keys() == row.keys()
        for name, value in row.items():
            np.testing.assert_allclose(
                found[step][name], value, rtol=1e-5, atol=1e-7, err_msg=f"step {step}: {name}"
            )


def test_two_processes_train_as_one_and_hand_over_to_one(tmp_path):
    # Params are split over all devices, so over both processes too.
    split = ("mesh.data=1", "mesh.fsdp=-1")
    pair = two_processes(tmp_path, "two", *split)
    config = configs.load(str(tiny.write(tmp_path)), [f"--config.{text}" for text in split])
    one, two = tmp_path / "one", tmp_path / "two"
    alone = train.run(config, one)
    (_, shown), (silent, _) = (tiny.finish(p) for p in pair)
    assert "step 20/20" in shown
    assert not tiny.without_gloo(silent)
    assert_same(tiny.rows(two), tiny.rows(one))
    together = tiny.summary(two)
    assert together["status"] == "finished"
    for name, values in alone["evals"].items():
        for kind in ("trained", "random_init", "raw_input"):
            np.testing.assert_allclose(together["evals"][name][kind], values[kind], rtol=1e-5)
    lines = (two / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == [*range(1, 21), 20]  # every step once, and the evaluation: one writer
    assert len(list((two / "tensorboard").iterdir())) == 1
    # One process goes on from what two have saved at step 15, with params on every device.
    (two / "checkpoints" / "20").rename(tmp_path / "last")
    train.run(configs.merged(config, {"mesh.data": 8, "mesh.fsdp": 1}), two)
    assert_same(tiny.rows(two), tiny.rows(one))


@pytest.mark.slow
def test_sigterm_to_one_process_stops_both_at_one_step(tmp_path):
    """About 40 s: pytest -m slow tests/test_processes.py."""
    forever = ("train.steps=1000000", "checkpoint.every_steps=0")
    pair = two_processes(tmp_path, "work", *forever)
    metrics = tmp_path / "work" / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not (metrics.exists() and metrics.read_text().count("\n") > 3):
        assert time.monotonic() < deadline and pair[0].poll() is None
        time.sleep(0.1)
    began = time.monotonic()
    pair[1].send_signal(signal.SIGTERM)
    for process in pair:
        tiny.finish(process)
    assert time.monotonic() - began < 30
    summary = tiny.summary(tmp_path / "work")
    assert summary["status"] == "stopped"
    saved = [int(path.name) for path in (tmp_path / "work" / "checkpoints").iterdir()]
    assert saved == [summary["step"]]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_the_death_of_one_process_ends_the_other_and_both_go_on(tmp_path, victim):
    """About two minutes each: pytest -m slow tests/test_processes.py."""
    steps = ("train.steps=400", "checkpoint.every_steps=7")
    for process in two_processes(tmp_path, "whole", *steps, devices=1):
        tiny.finish(process)
    pair = two_processes(tmp_path, "work", *steps, devices=1, JAXSSL_HEARTBEAT="5")
    work, deadline = tmp_path / "work", time.monotonic() + 400
    while not ((work / "metrics.jsonl").exists() and len(tiny.rows(work)) > 40):
        assert time.monotonic() < deadline and pair[victim].poll() is None
        time.sleep(0.01)
    pair[victim].kill()
    _, shown = tiny.finish(pair[1 - victim], code=3, seconds=60)
    tiny.finish(pair[victim], code=-signal.SIGKILL)
    lines = [line for line in shown.splitlines() if line.startswith("stopped: ")]
    assert len(lines) == 1 and lines[0].startswith(f"stopped: process {victim} of 2 died")
    assert "Check failure" not in shown and "Traceback" not in shown
    assert 40 <= max(tiny.rows(work)) < 400
    for process in two_processes(tmp_path, "work", *steps, devices=1):
        tiny.finish(process)
    assert tiny.rows(work) == tiny.rows(tmp_path / "whole")
    found, expected = tiny.summary(work), tiny.summary(tmp_path / "whole")
    assert found["evals"] == expected["evals"] and found["artifact"] == expected["artifact"]
