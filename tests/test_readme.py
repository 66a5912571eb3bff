"""The README does what it says: its commands run, its snippets work, its tables are current."""

import json
import os
import re
import shlex
import subprocess
import sys

import jax
import numpy as np
import pytest

import experiments
from jaxssl import config as configs
from jaxssl import evaluate, export, main, methods_table
from jaxssl.plan import __main__ as plan
from jaxssl.program import Program

ROOT = experiments.FOLDER.parent
README = (ROOT / "README.md").read_text()
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


def blocks(language):
    """The fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands():
    """Every line of the README's shell blocks."""
    return [line for block in blocks("bash") for line in block.splitlines()]


def calls_of_main():
    """The arguments of every `jaxssl.main` that the README calls, or has a script call."""
    words = [shlex.split(line) for line in commands()]
    starts = ("jaxssl.main", "--")
    found = [w[max(w.index(s) for s in starts if s in w) + 1 :] for w in words if "--" in w]
    return found + [w[w.index("jaxssl.main") + 1 :] for w in words if "jaxssl.main" in w]


def on_path_of_tests(words, folder):
    """A README command with this interpreter, in another workdir."""
    words = [sys.executable if w in ("python", ".venv/bin/python") else w for w in words]
    return [f"--workdir={folder}" if w.startswith("--workdir=") else w for w in words]


def test_the_first_two_commands_set_everything_up():
    setup = "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && "
    job, tests = (block.strip() for block in blocks("bash")[:2])
    assert job.startswith(setup + ".venv/bin/python -m jaxssl.main ")
    assert tests == setup + ".venv/bin/pytest"  # .ci/run takes both steps from this line
    ci = (ROOT / ".ci" / "run").read_text()
    pattern = re.search(r"grep -E '(.+)' README\.md", ci)
    assert pattern is not None
    assert [line for line in README.splitlines() if re.search(pattern[1], line)] == [tests]


def test_the_main_job_runs_and_then_only_evaluates_again(tmp_path):
    job = shlex.split(blocks("bash")[0].strip().rpartition(" && ")[2])
    words = [*on_path_of_tests(job, tmp_path / "run"), *SHORT]
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    for said in ("step 4/4", "finished at step 4; evaluating only"):
        done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        assert said in done.stdout + done.stderr
    # What the tour says is there, and what it reads.
    names = {"report.html", "config.json", "metrics.jsonl", "summary.json", "checkpoints"}
    assert names <= {path.name for path in (tmp_path / "run").iterdir()}
    # And what the README makes of a finished run.
    (take_away,) = (block for block in blocks("python") if "runs/lejepa" in block)
    found = {"images": np.zeros((3, 16, 16, 1), np.uint8)}
    exec(take_away.replace("runs/lejepa", str(tmp_path / "run")), found)
    assert found["features"].shape[0] == 3
    for module in (evaluate, export):
        (words,) = (shlex.split(c) for c in commands() if f"{module.__name__} " in c)
        words = [w.replace("runs/lejepa", str(tmp_path / "run")) for w in words[3:]]
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
    plans = [shlex.split(line)[3:] for line in commands() if "jaxssl.plan " in line]
    assert len(plans) == 2
    for words in plans:
        flags, overrides = plan.parse(words)
        assert configs.load(flags.config, overrides).method
        assert flags.topology


def test_the_tour_has_the_commands_that_these_tests_count_on():
    assert len(calls_of_main()) >= 7
    assert all((ROOT / w).exists() for line in commands() for w in line.split() if "_scripts/" in w)


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
    # The table would have a row of it.
    (tmp_path / "experiments").mkdir()
    path.rename(tmp_path / "experiments" / path.name)
    (row,) = methods_table.experiments(tmp_path)
    assert row.method == "LeJEPA with a teacher" and row.presets == ("digits", "cifar10")


def test_the_tables_are_current(capsys):
    assert methods_table.main(["--check"]) == 0, capsys.readouterr()


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links and all((ROOT / link).exists() for link in links)


def test_folders_and_files_that_the_readme_names_exist():
    named = re.findall(r"`((?:jaxssl|tests|experiments|tpu_scripts)/[\w/.]*)`", README)
    assert named and all((ROOT / name).exists() for name in named)
