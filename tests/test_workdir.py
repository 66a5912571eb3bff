"""One run at a time in a workdir: the second is refused, and a kill frees it."""

import errno
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from jaxssl.config.errors import ConfigError
from jaxssl.run.workdir import LOCK, claimed

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOLDS = """
import os, sys, time
from jaxssl.run.workdir import claimed
with claimed(sys.argv[1]):
    if os.fork() == 0:  # a worker, which lives on when the run is killed
        time.sleep(float(sys.argv[2]))
        os._exit(0)
    print("claimed", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder, until it is told to end or is killed."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HOLDS, str(tmp_path), "8"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "claimed\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_second_run_is_refused_until_the_first_is_killed(tmp_path, other):
    for _ in range(2):  # being refused changes nothing
        with pytest.raises(ConfigError) as caught, claimed(tmp_path):
            raise AssertionError("two runs in one folder")
        text = str(caught.value)
        assert text.startswith(f"--workdir={tmp_path}: in use by process {other.pid} on host ")
        assert "use another folder" in text and "\n" not in text
    other.send_signal(signal.SIGKILL)
    other.wait()
    # Its worker is alive; the file still names the dead one.
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == other.pid
    with claimed(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_it_is_free_again_at_the_end(tmp_path):
    with pytest.raises(KeyError), claimed(tmp_path):
        with pytest.raises(ConfigError, match=f"process {os.getpid()} "), claimed(tmp_path):
            raise AssertionError("claimed twice")
        raise KeyError
    assert (tmp_path / LOCK).read_text() == ""
    with claimed(tmp_path):
        pass


def test_other_folders_are_free(tmp_path, other):
    with claimed(tmp_path / "a", make=True), claimed(tmp_path / "b", make=True):
        assert (tmp_path / "a" / LOCK).exists()


def test_a_folder_is_made_only_where_asked(tmp_path):
    with pytest.raises(ConfigError, match="work: No such file"), claimed(tmp_path / "work"):
        raise AssertionError("claimed what is not there")
    assert not (tmp_path / "work").exists()
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match=r"--workdir=.*file"),
        claimed(tmp_path / "file", make=True),
    ):
        raise AssertionError("claimed a file")


def test_a_lock_whose_holder_is_not_told(tmp_path, other):
    (tmp_path / LOCK).write_text("")
    with pytest.raises(ConfigError, match="in use by another process"), claimed(tmp_path):
        raise AssertionError("two runs in one folder")


def test_without_locks_every_run_is_let_in(tmp_path, monkeypatch):
    def unsupported(descriptor, operation):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with claimed(tmp_path), claimed(tmp_path):
        pass
