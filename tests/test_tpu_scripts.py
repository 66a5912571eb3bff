"""The launch scripts: what they would run, and what a rehearsed pod does when a process fails.

The scripts run a stand-in for the interpreter, so these tests import nothing and compile nothing.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent / "tpu_scripts"
STAND_IN = f"""#!/usr/bin/env bash
[[ $1 == -c ]] && exec {sys.executable} "$@"
echo "$JAX_PROCESS_ID of $JAX_NUM_PROCESSES, $JAX_NUM_CPU_DEVICES $JAX_PLATFORMS devices: $*"
echo "at $JAX_COORDINATOR_ADDRESS" >&2
"""


def stand_in(folder, then=""):
    """An interpreter that says how it was called, and then runs the shell lines `then`."""
    path = folder / "python"
    path.write_text(STAND_IN + then)
    path.chmod(0o755)
    return {**os.environ, "PYTHON": str(path)}


def call(script, *arguments, env=None):
    return subprocess.run(
        [SCRIPTS / script, *arguments], env=env, capture_output=True, text=True, timeout=30
    )


def alive(marker):
    """The processes whose command line holds `marker`."""
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    return [line for line in found.splitlines() if str(marker) in line and "ps -eo" not in line]


@pytest.mark.smoke
def test_a_rehearsed_pod_gives_every_process_its_place(tmp_path):
    done = call("local_pod.sh", "3", "4", "--", "--config=a b.py", env=stand_in(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = sorted(done.stdout.splitlines())
    places = [f"[{i}] {i} of 3, 4 cpu devices: -m jaxssl.main --config=a b.py" for i in range(3)]
    assert [line for line in lines if " of 3" in line] == places
    addresses = {line[4:] for line in lines if "at localhost:" in line}
    assert len(lines) == 6 and len(addresses) == 1  # one coordinator, on a port that was free


def test_a_process_that_fails_ends_the_others_with_its_exit_code(tmp_path):
    then = "[[ $JAX_PROCESS_ID == 1 ]] && exit 7\nsleep 60\n"
    done = call("local_pod.sh", "3", "1", "--", "--config=x", env=stand_in(tmp_path, then))
    assert done.returncode == 7
    assert "[1] 1 of 3" in done.stdout  # said before it failed
    assert not alive(tmp_path)


def test_a_stop_request_reaches_every_process(tmp_path):
    then = "trap 'echo saved; exit 0' TERM\necho ready\nwhile true; do sleep 0.05; done\n"
    command = [SCRIPTS / "local_pod.sh", "2", "1", "--", "--config=x"]
    with subprocess.Popen(
        command, env=stand_in(tmp_path, then), stdout=subprocess.PIPE, text=True
    ) as pod:
        assert pod.stdout is not None
        seen = []
        while sum("ready" in line for line in seen) < 2:
            seen.append(pod.stdout.readline())
        pod.send_signal(signal.SIGTERM)
        rest, _ = pod.communicate(timeout=30)
    assert pod.returncode == 0
    assert sorted(rest.splitlines()) == ["[0] saved", "[1] saved"]
    time.sleep(0.1)
    assert not alive(tmp_path)


@pytest.mark.parametrize("arguments", [(), ("0", "4", "--", "--config=x"), ("2", "4", "--config")])
def test_a_rehearsed_pod_refuses_what_it_does_not_understand(arguments):
    done = call("local_pod.sh", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: local_pod.sh PROCESSES DEVICES_EACH --")


DRY_RUN = r"""archive=$(mktemp -d)/jaxssl.tar.gz
git archive --format=tar.gz --output="$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" pod:jaxssl.tar.gz --zone=us-central2-b --worker=all
address=$(gcloud compute tpus tpu-vm describe pod --zone=us-central2-b --format='value(networkEndpoints[0].ipAddress)')
gcloud compute tpus tpu-vm ssh pod --zone=us-central2-b --worker=all --command="export JAX_COORDINATOR_ADDRESS=$address:8476; "'mkdir -p jaxssl && tar -xzf jaxssl.tar.gz -C jaxssl && cd jaxssl && { test -x .venv/bin/python || python3 -m venv .venv; } && .venv/bin/pip install -q -e '\''.[tpu]'\'' && .venv/bin/python -m jaxssl.main --config=c.py:big --workdir=/mnt/a'
"""  # noqa: E501


def without_python():
    return {name: value for name, value in os.environ.items() if name != "PYTHON"}


def test_launch_prints_what_it_would_run():
    words = ("pod", "us-central2-b", "--", "--config=c.py:big", "--workdir=/mnt/a")
    done = call("launch.sh", "--dry-run", *words, env=without_python())
    assert (done.returncode, done.stdout, done.stderr) == (0, DRY_RUN, "")


def test_launch_hands_the_arguments_to_the_workers_unchanged(tmp_path):
    """With a stand-in for gcloud that runs, as a worker's shell would, the end of its command."""
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(
        "#!/usr/bin/env bash\n"
        "case $4 in\n"
        "  describe) echo 10.0.0.2;;\n"
        "  ssh) for command; do :; done; command=${command#--command=}\n"
        '    python() { printf \'%s\\n\' "$JAX_COORDINATOR_ADDRESS" "${@:3}"; }\n'
        '    eval "${command%%mkdir*} ${command/#*.venv\\/bin\\/python -m/python -m}";;\n'
        "esac\n"
    )
    gcloud.chmod(0o755)
    env = {**without_python(), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    rate = "--config.optimizer.learning_rate=('constant', 1e-3)"
    words = ["--config=c.py", "--workdir=/mnt/it's here", rate, "--config.data.path=$HOME"]
    done = call("launch.sh", "pod", "zone", "--", *words, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["10.0.0.2:8476", *words]


@pytest.mark.parametrize(
    "arguments", [(), ("pod", "zone", "--config=x"), ("--wet-run", "a", "--", "b")]
)
def test_launch_refuses_what_it_does_not_understand(arguments):
    done = call("launch.sh", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: launch.sh [--dry-run] NAME ZONE --")
