"""Joining a run, and the death of a process: real processes that join, and compute nothing."""

import os
import pathlib
import signal
import socket
import subprocess
import sys

import jax
import pytest

from jaxssl import main
from jaxssl.config.errors import ConfigError
from jaxssl.devices import processes
from jaxssl.devices.heartbeat import Peers, may_be_anothers

ADDRESS = {"JAX_COORDINATOR_ADDRESS": "host:1234"}
PLACE = {**ADDRESS, "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
SLURM = dict.fromkeys(processes.SLURM, "8")
TPUS = {"TPU_WORKER_HOSTNAMES": "a,b"}
MEMBER = """
import os, signal, sys, time
from jaxssl.devices import processes
from jaxssl.config.errors import ConfigError
try:
    with processes.joined(processes.settings({}, os.environ)):
        time.sleep(1)
        if sys.argv[1] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[1] == "fail":
            raise ValueError("no room\\nat all")
        time.sleep(300)
except ConfigError as error:
    print(error, file=sys.stderr)
    processes.leave(2)
"""


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("flags", "environment", "expected"),
    [
        ({}, {}, None),
        ({}, PLACE, ("host:1234", 4, 3, None)),
        ({"process": "0", "coordinator": "other:1"}, PLACE, ("other:1", 4, 0, None)),
        ({}, {**PLACE, "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, None),
        ({}, SLURM, (None, None, None, "slurm")),
        ({}, {**SLURM, "SLURM_NTASKS": "1"}, None),
        ({}, {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, None),  # a batch script, not a step of it
        ({}, TPUS, (None, None, None, "tpu")),
        ({}, {"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"cluster": "none"}, {**TPUS, **PLACE}, None),
        ({"cluster": "tpu"}, ADDRESS, ("host:1234", None, None, "tpu")),
        (
            {},
            {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://a:1"},
            (None, None, None, "ompi"),
        ),
    ],
)
def test_the_place_of_a_process(flags, environment, expected):
    how = processes.settings(flags, environment)
    assert (how and how[:4]) == expected


@pytest.mark.parametrize(
    ("flags", "environment", "hints"),
    [
        ({}, ADDRESS, ["--processes (or JAX_NUM_PROCESSES): missing", "ADDRESS=host:1234 needs"]),
        ({"process": "1", "processes": "2"}, {}, ["--coordinator (or JAX_COORDINATOR_ADDRESS)"]),
        ({"process": "4"}, PLACE, ["--process=4", "0 to 3", "JAX_NUM_PROCESSES=4"]),
        ({}, {**PLACE, "JAX_PROCESS_ID": "one"}, ["JAX_PROCESS_ID=one: expected a whole number"]),
        ({"processes": "0"}, PLACE, ["--processes=0: expected a whole number from 1"]),
        ({"coordinator": "host"}, PLACE, ["--coordinator=host: expected HOST:PORT"]),
        ({"coordinator": "host:70000"}, PLACE, ["--coordinator=host:70000: expected HOST:PORT"]),
        ({"heartbeat": "0"}, {}, ["--heartbeat=0: expected a whole number from 1"]),
        ({}, {"JAXSSL_JOIN_TIMEOUT": "soon"}, ["JAXSSL_JOIN_TIMEOUT=soon: expected"]),
        ({"cluster": "slurn"}, {}, ["--cluster=slurn: did you mean 'slurm'?"]),
        ({}, {"OMPI_COMM_WORLD_SIZE": "2"}, ["OMPI_COMM_WORLD_SIZE=2", "--cluster=mpi4py"]),
    ],
)
def test_malformed_and_half_told_places(flags, environment, hints):
    with pytest.raises(ConfigError) as caught:
        processes.settings(flags, environment)
    line = str(caught.value)
    assert "\n" not in line
    for hint in hints:
        assert hint in line


def test_the_command_line_names_a_bad_place(capsys):
    flags = ["--config=none.py", "--workdir=none", "--processes=2"]
    assert main.main([*flags, "--process=2"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: --process=2") and line.count("\n") == 1


def start(what, index, count, port, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", MEMBER, what],
        env=os.environ
        | {
            "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(index),
            "JAXSSL_HEARTBEAT": "4",
        }
        | environment,
        stderr=subprocess.PIPE,
        text=True,
        cwd=pathlib.Path(__file__).resolve().parent.parent,
    )


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


@pytest.mark.parametrize(
    ("what", "victim", "code", "reason"),
    [
        ("die", 1, -signal.SIGKILL, "died: no sign of life for 4 s"),
        ("die", 0, -signal.SIGKILL, "died: the coordination service that it runs has gone"),
        ("fail", 0, 1, "failed: ValueError: no room"),
    ],
)
def test_the_others_name_the_one_that_died_or_failed(what, victim, code, reason):
    port = free_port()
    running = [start(what if i == victim else "wait", i, 3, port) for i in range(3)]
    said = [process.communicate(timeout=120)[1] for process in running]
    codes = [process.returncode for process in running]
    assert codes == [code if i == victim else 3 for i in range(3)], said
    for index, text in enumerate(said):
        lines = [line for line in text.splitlines() if line.startswith("stopped: ")]
        expected = f"stopped: process {victim} of 3 {reason}; run the same command"
        assert len(lines) == (index != victim)
        assert all(line.startswith(expected) for line in lines)
        assert "Check failure" not in text
        assert ("Traceback" in text) == (what == "fail" and index == victim)


def test_a_coordinator_that_is_not_there():
    port = free_port()
    process = start("wait", 1, 2, port, JAXSSL_JOIN_TIMEOUT="1")
    _, said = process.communicate(timeout=120)
    named = f"JAX_COORDINATOR_ADDRESS=localhost:{port}: the 2 processes have not all joined"
    assert process.returncode == 2
    assert said.count("\n") == 1 and said.startswith(named)


class Store:
    """The key-value store, in memory."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value, allow_overwrite):
        assert allow_overwrite
        self.values[key] = value

    def key_value_dir_get(self, folder):
        return [(key, value) for key, value in self.values.items() if key.startswith(folder)]


def test_silence_counts_from_the_last_sign():
    store, now = Store(), [0.0]
    first, second, third = (Peers(store, i, 3, 10, clock=lambda: now[0]) for i in range(3))
    for _ in range(3):
        now[0] += 9
        assert [peers.look() for peers in (third, second, first)] == [None] * 3
    now[0] += 9
    assert [third.look(), first.look()] == [None, None]
    now[0] += 9  # 18 s after what process 0 has last seen of process 1
    assert third.look() is None
    dead = (1, "died: no sign of life for 10 s")
    assert first.look() == dead and third.look() == dead


def test_an_end_is_one_line_and_its_exit_code(capsys):
    store, codes = Store(), []
    peers = Peers(store, 1, 2, 10, leave=codes.append)
    Peers(store, 0, 2, 10, clock=iter(range(0, 1000, 10)).__next__).failed(OSError("disk full"))
    found = peers.look()
    assert found == (0, "failed: OSError: disk full")
    peers.end(*found)
    assert codes == [3]
    line = capsys.readouterr().err
    assert line.startswith("stopped: process 0 of 2 failed: OSError: disk full; run the same")


def test_which_errors_may_be_anothers():
    closed = jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection closed")
    assert may_be_anothers(closed) and may_be_anothers(ValueError(str(closed)))
    wrapped = ValueError("saving failed")
    wrapped.__cause__ = closed
    assert may_be_anothers(wrapped)
    assert not may_be_anothers(ValueError("a bug"))
    assert not may_be_anothers(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"))
