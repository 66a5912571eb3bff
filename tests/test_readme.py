"""The READMEs do what they say: commands run, snippets work, tables are current, names exist."""

import importlib.util
import itertools
import json
import os
import pathlib
import re
import runpy
import shlex
import subprocess
import sys

import jax
import numpy as np
import pytest

import experiments
from experiments.prove import arms, render
from jaxssl import main
from jaxssl.bench import __main__ as bench
from jaxssl.bench import invariance
from jaxssl.bench.faults import command as faults
from jaxssl.commands import evaluate, export, memorisation, side_by_side
from jaxssl.config import load as configs
from jaxssl.config.skeleton import OPEN, skeleton
from jaxssl.plan import __main__ as plan
from jaxssl.program import Program

ROOT = experiments.FOLDER.parent
FILES = ("README.md", "jaxssl/README.md", "tpu_scripts/README.md", "experiments/README.md")
READMES = {name: (ROOT / name).read_text() for name in FILES}
LINES = 300  # of the README of the top level, without generated tables
SCRIPT = "tpu_scripts/"
# First names of paths that are of a run or of a user.
ELSEWHERE = ("runs", "my_package", "~")
# What a run leaves, among what looks like a field.
LEFT = ("report.html", "stages.json")
# What looks like a path and is a name in a batch.
FIELDS_OF_BATCHES = ("unlabelled/image", "unlabelled/index")
# Less of the same: fewer steps, a narrower network, one of the evaluations.
SHORT = (
    "--config.train.steps=4",
    "--config.train.global_batch=32",
    "--config.encoder.widths=(8,16)",
    "--config.encoder.strides=(1,2)",
    "--config.student.projector.widths=(16,16)",
    "--config.losses.sigreg.num_slices=16",
    "--config.evals.linear=None",
    "--config.evals.fewshot=None",
    "--config.evals.calibration_batches=2",
    "--config.report.samples=32",
)


def blocks(language, *names):
    """The fenced code blocks of one language, of some READMEs or of all."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [block for name in names or FILES for block in pattern.findall(READMES[name])]


def commands():
    """Every line of the READMEs' shell blocks, in words, without what is set before it."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    split = [shlex.split(line) for line in lines]
    setting = re.compile(r"[A-Z_]+=").match
    return [list(itertools.dropwhile(setting, words)) for words in split]


def arguments(*starts):
    """What follows these words, in the commands that begin with them."""
    return [words[len(starts) :] for words in commands() if tuple(words[: len(starts)]) == starts]


def of_module(name):
    """The arguments of each `python -m NAME`."""
    return arguments("python", "-m", name)


def scripts():
    """The commands that run a script for pods, in words."""
    return [words for words in commands() if words[0].startswith(SCRIPT)]


def calls_of_main():
    """The arguments of every `jaxssl.main` that a README calls, or has a script call."""
    handed = [words[words.index("--") + 1 :] for words in scripts() if "--" in words]
    swept = ["python", "-m", "jaxssl.main"]  # to which sweep.sh adds a workdir
    handed = [[*w[3:], "--workdir=runs/swept"] if w[:3] == swept else w for w in handed]
    return of_module("jaxssl.main") + handed


def quoted(name):
    """What stands in backticks in a README, outside of blocks; (line, text)."""
    found, inside = [], False
    for line in READMES[name].splitlines():
        inside ^= line.startswith("```")
        if not inside:
            found += [(line, text) for text in re.findall(r"`([^`]+)`", line)]
    return found


def on_path_of_tests(words, folder):
    """A README command with this interpreter, in another workdir."""
    words = [sys.executable if w in ("python", ".venv/bin/python") else w for w in words]
    return [f"--workdir={folder}" if w.startswith("--workdir=") else w for w in words]


def test_the_first_two_commands_set_everything_up():
    setup = "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && "
    job, tests = (block.strip() for block in blocks("bash", "README.md")[:2])
    assert job.startswith(setup + ".venv/bin/python -m jaxssl.main ")
    assert tests == setup + ".venv/bin/pytest"  # .ci/run takes both steps from this line
    ci = (ROOT / ".ci" / "run").read_text()
    pattern = re.search(r"grep -E '(.+)' README\.md", ci)
    assert pattern is not None
    lines = READMES["README.md"].splitlines()
    assert [line for line in lines if re.search(pattern[1], line)] == [tests]


def test_the_main_job_runs_and_then_only_evaluates_again(tmp_path):
    job = shlex.split(blocks("bash", "README.md")[0].strip().rpartition(" && ")[2])
    words = [*on_path_of_tests(job, tmp_path / "run"), *SHORT]
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    for said in ("step 4/4", "finished at step 4; evaluating only"):
        done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        assert said in done.stdout + done.stderr
    # What the tour says is there, and what it reads.
    names = {"report.html", "config.json", "metrics.jsonl", "summary.json", "checkpoints"}
    assert names <= {path.name for path in (tmp_path / "run").iterdir()}
    (reads,) = arguments("python", "-c")
    reads = [sys.executable, "-c", reads[0].replace("runs/lejepa", str(tmp_path / "run"))]
    assert "knn/accuracy" in subprocess.run(reads, capture_output=True, text=True).stdout
    # And what the README makes of a finished run.
    (take_away,) = (block for block in blocks("python") if "runs/lejepa" in block)
    found = {"images": np.zeros((3, 16, 16, 1), np.uint8)}
    exec(take_away.replace("runs/lejepa", str(tmp_path / "run")), found)
    assert found["features"].shape[0] == 3
    for module in (evaluate, export):
        (words,) = of_module(module.__name__)
        words = [w.replace("runs/lejepa", str(tmp_path / "run")) for w in words]
        words = [w.replace("--output=", f"--output={tmp_path}/") for w in words]
        assert module.main(words) == 0
    assert (tmp_path / "lejepa.stablehlo").stat().st_size
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert set(summary["evals"]["knn/accuracy"]) >= {"trained", "random_init", "raw_input"}


@pytest.mark.parametrize("words", calls_of_main(), ids=" ".join)
def test_every_command_of_the_tour_is_one_that_the_program_takes(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    flags, overrides = main.parse(words)
    assert configs.load(flags.config, overrides).method


def test_every_plan_of_the_tour_is_one_that_the_program_takes(monkeypatch):
    monkeypatch.chdir(ROOT)
    plans = of_module("jaxssl.plan")
    assert len(plans) == 2
    for words in plans:
        flags, overrides = plan.parse(words)
        assert configs.load(flags.config, overrides).method
        assert flags.topology


@pytest.mark.parametrize("words", scripts(), ids=" ".join)
def test_every_script_takes_the_words_of_its_command(words, tmp_path):
    script, *rest = words
    assert (ROOT / script).exists()
    if script.endswith("local_pod.sh"):  # which has no --dry-run, and is not to train here
        stand_in = tmp_path / "python"
        stand_in.write_text(f'#!/bin/bash\n[[ $1 == -c ]] && exec {sys.executable} "$@"\nexit 0\n')
        stand_in.chmod(0o755)
        env = {**os.environ, "PYTHON": str(stand_in)}
    else:
        rest = ["--dry-run", *rest]
        env = None
    (tmp_path / "rates.txt").write_text("slow --config.optimizer.learning_rate=1e-4\n")
    done = subprocess.run(
        [ROOT / script, *rest], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_every_benchmark_of_the_tour_is_one_that_the_program_takes(monkeypatch):
    monkeypatch.chdir(ROOT)
    benches = of_module("jaxssl.bench")
    assert benches
    for words in benches:
        _, flags, overrides = bench.parse(words)
        assert configs.load(flags["config"], overrides).method
    for module, name in ((faults, "jaxssl.bench.faults"), (invariance, "jaxssl.bench.invariance")):
        (words,) = of_module(name)
        module.parse(words)


def test_what_is_compared_and_tested_is_there():
    (seen,) = of_module("jaxssl.commands.memorisation")
    workdirs = {w.partition("=")[2] for words in of_module("jaxssl.main") for w in words}
    assert {w.partition("=")[2] for w in seen} <= workdirs
    assert all(w.partition("=")[0] in memorisation.__doc__ for w in seen)
    (compared,) = of_module(side_by_side.__name__)
    assert set(compared) <= {*workdirs, "runs/lejepa"}  # which the first command makes
    tested = arguments("pytest")
    assert [] in tested
    assert all((ROOT / w).exists() for words in tested for w in words if w.startswith("tests/"))
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_no_command_of_a_readme_is_left_out_of_these_tests():
    """Each line of a shell block is of a kind that a test above takes up."""
    modules = (
        *("jaxssl.main", "jaxssl.plan", "experiments.prove"),
        *("jaxssl.bench", "jaxssl.bench.faults", "jaxssl.bench.invariance"),
        *(module.__name__ for module in (evaluate, export, memorisation, side_by_side)),
    )
    kinds = [("python", "-m", name) for name in modules]
    kinds += [("python3", "-m", "venv"), ("python", "-c"), ("pytest",), (".ci/run",)]
    for words in commands():
        known = any(tuple(words[: len(kind)]) == kind for kind in kinds)
        assert known or words[0].startswith(SCRIPT), words
    assert len(calls_of_main()) >= 7


def test_the_proofs_that_a_readme_names_are_of_experiments_that_are_there():
    proofs = of_module("experiments.prove")
    assert ["--write"] in proofs
    for name in (w for words in proofs for w in words if not w.startswith("--")):
        assert (experiments.FOLDER / f"{name}.py").exists()


def test_the_python_snippets_run():
    assert blocks("python")
    for block in blocks("python"):
        if "runs/lejepa" not in block:
            exec(compile(block, "README.md", "exec"), {})


def test_the_new_method_of_the_readme_trains_with_its_teacher(tmp_path):
    (diff,) = blocks("diff")
    lines = diff.splitlines()
    added = [line[1:] for line in lines if line.startswith("+") and not line.startswith("+++")]
    assert f"@@ -0,0 +1,{len(added)} @@" in lines
    path = tmp_path / "lejepa_teacher.py"
    path.write_text("\n".join(added) + "\n")
    config = configs.load(str(path), [*SHORT, "--config.train.steps=2"])
    program = Program(config, devices=jax.devices()[:1])
    state, batches = program.init(), program.batches(0)
    losses = []
    for _ in range(2):
        state, metrics = program.step(state, next(batches))
        losses.append(float(metrics["prediction"]))
    moved = jax.tree.map(
        lambda t, p: bool((t != p).any()), state.teachers["ema"]["encoder"], state.params["encoder"]
    )
    assert any(jax.tree.leaves(moved))  # an average lags behind what it follows
    assert all(value > 0 for value in losses)
    # The table would have a row of it, and a proof an arm for its control.
    said = arms.read(tmp_path, "lejepa_teacher")
    assert said.title == "LeJEPA with a teacher" and said.presets == ("digits", "cifar10")
    assert all(arms.config(said, arm) for arm in (arms.METHOD, *said.controls))


def test_the_tables_are_current(capsys):
    assert render.main(ROOT, check=True) == 0, capsys.readouterr()


def test_the_readme_of_the_top_is_short():
    assert len(READMES["README.md"].splitlines()) < LINES
    assert "<!--" not in READMES["README.md"]


@pytest.mark.parametrize("name", FILES)
def test_links_lead_somewhere(name):
    folder = (ROOT / name).parent
    links = [link for link in re.findall(r"\]\(([^)]+)\)", READMES[name]) if "://" not in link]
    missing = [link for link in links if not (folder / link).exists()]
    assert links and not missing


PATH = re.compile(r"~?[\w.*-]+(/[\w.*-]+)*/?")
FILE = re.compile(r"\.(py|sh|md|toml|ya?ml|sbatch)$")


def named_paths(name):
    """What a README names in backticks that is a path of the repository."""
    texts = [text for _, text in quoted(name) if PATH.fullmatch(text)]
    paths = [text for text in texts if "/" in text or FILE.search(text)]
    return [p for p in paths if p.split("/")[0] not in ELSEWHERE and p not in FIELDS_OF_BATCHES]


@pytest.mark.parametrize("name", FILES)
def test_folders_and_files_that_a_readme_names_exist(name):
    places = (ROOT, (ROOT / name).parent, experiments.FOLDER)
    paths = named_paths(name)
    missing = [p for p in paths if not any((place / p).exists() for place in places)]
    assert not missing
    assert paths or name.startswith("experiments/")


def test_a_path_that_is_not_there_would_be_found(monkeypatch):
    wrong = "| `jaxssl/config/load/load/load.py`, `nowhere.py` | see `run/train.py` |"
    monkeypatch.setitem(READMES, "jaxssl/README.md", wrong)
    found = named_paths("jaxssl/README.md")
    assert found == ["jaxssl/config/load/load/load.py", "nowhere.py", "run/train.py"]
    with pytest.raises(AssertionError):
        test_folders_and_files_that_a_readme_names_exist("jaxssl/README.md")


@pytest.mark.parametrize("name", FILES)
def test_presets_that_a_readme_names_exist(name):
    for file, preset in re.findall(r"\b([a-z]\w*\.py):(\w+)", READMES[name]):
        assert preset in runpy.run_path(str(experiments.FOLDER / file))["PRESETS"], (file, preset)


@pytest.mark.parametrize("name", FILES)
def test_modules_and_fields_that_a_readme_names_exist(name):
    known = skeleton().to_dict()
    for _, text in quoted(name):
        if command := re.match(r"(?:taskset -c 0 )?python -m ([\w.]+)", text):
            assert importlib.util.find_spec(command[1]), text
        if re.fullmatch(r"jaxssl(\.\w+)+", text):
            package, _, last = text.rpartition(".")
            there = hasattr(importlib.import_module(package), last)
            assert there or importlib.util.find_spec(text), text
        field = re.fullmatch(r"(?:--)?(?:config\.)?(\w+)\.(\w+)(?:[.=].*)?", text)
        if field and field[1] in known and text not in LEFT and not FILE.search(text):
            section = known[field[1]]
            assert field[1] in OPEN or field[2] in section or field[1] == "evals", text


def test_every_room_of_the_package_is_in_its_readme():
    rooms = re.findall(r"^\| (`.+?) \| ", READMES["jaxssl/README.md"], re.MULTILINE)
    named = {text.rstrip("/") for cell in rooms for text in re.findall(r"`([^`]+)`", cell)}
    there = {
        path.name
        for path in pathlib.Path(ROOT / "jaxssl").iterdir()
        if path.name[0] not in "_." and (path.is_dir() or path.suffix == ".py")
    }
    assert there <= named
