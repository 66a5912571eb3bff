"""The proof of each experiment: its controls as data, the runs, the record, the page."""

import doctest
import functools
import importlib
import json
import os
import pathlib
import shutil
import signal

import pytest
import tiny

import experiments
from experiments.prove import arms, cells, record, render
from experiments.prove.__main__ import main
from experiments.prove.verdict import verdict
from jaxssl import data, program
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError, Diverged
from jaxssl.data import streams
from jaxssl.program import describe, find_family
from jaxssl.report.writers import read_json
from jaxssl.run import rehearsal, stages, train
from jaxssl.watch import nonfinite

TOY = (
    '''"""Toy: one idea
in two lines.

Doe (2020), A small idea, arXiv 2001.00001.
"""

CONTROLS = {
    "no_regulariser": {"losses.sigreg.weight": 0.0},
    "strong": {"losses.sigreg.weight": 0.5},
}
PROOF = dict(preset="digits", on="knn/accuracy", seeds=2)
'''
    + tiny.FILE
)
STAGES = """    later = dict(name="b", init_from="a", changes={"train.steps": 4})
    config.stages = (dict(name="a"), later)
    return config
"""
RECORD = pathlib.Path("experiments") / record.PLACE
FIELDS = {
    *("experiment", "preset", "control", "metric", "method", "control_values", "random_init"),
    *("raw_input", "steps", "commit", "versions", "command", "verdict"),
}
# What another run of the same cells does not find again.
OF_A_RUN = ("seconds", "command", "commit")


def project(folder, text=TOY):
    """A project with one experiment, and no git around it."""
    (folder / "experiments").mkdir(parents=True)
    (folder / "experiments" / "toy.py").write_text(text)
    return folder


def prove(root, *words):
    """The exit code of the command; its runs are in the project."""
    return main([*words, f"--workdir={root / 'runs'}"], root)


def rows(root):
    """control -> its row of the record, without what is of a run alone."""
    found = read_json(root / RECORD)
    return {r["control"]: {k: v for k, v in r.items() if k not in OF_A_RUN} for r in found}


@pytest.fixture(scope="module")
def proved(tmp_path_factory):
    """A project whose proof is finished: (its folder, how often a step was compiled)."""
    root = project(tmp_path_factory.mktemp("proved"))
    compiled, make = [], program.make_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "make_step", lambda *a: compiled.append(a) or make(*a))
        assert prove(root, "toy", "--controls=no_regulariser") == 0
    return root, len(compiled)


def fake_runs(monkeypatch, value=lambda config: 0.5, raises=None):
    """Puts finished runs in place of real ones; the list of (folder, seed) of those that came."""
    made = []

    def run(config, workdir, programs):
        made.append((pathlib.Path(workdir).name, config.train.seed))
        if raises is not None:
            raise raises
        workdir.mkdir(parents=True)
        evals = {"knn/accuracy": {"trained": value(config), "random_init": 0.4, "raw_input": 0.3}}
        summary = dict(status="finished", step=20, seconds=1.0, evals=evals)
        (workdir / "summary.json").write_text(json.dumps(summary))
        return summary

    monkeypatch.setattr(train, "run", run)
    return made


@pytest.fixture
def again(tmp_path):
    """A project whose proof is on record; the runs are made up."""
    root = project(tmp_path / "again")
    with pytest.MonkeyPatch.context() as patch:
        fake_runs(patch, lambda config: 0.6 if config.losses.sigreg.weight else 0.4)
        assert prove(root, "toy", "--controls=no_regulariser") == 0
    return root


# ------------------------------------------------------------------ what experiments say


@functools.cache
def said(name):
    return arms.read(experiments.FOLDER, name)


@pytest.mark.parametrize("name", experiments.NAMES)
def test_every_experiment_says_what_proves_it(name):
    experiment = said(name)
    assert experiment.preset in experiment.presets and experiment.seeds >= 2
    evaluator, _, metric = experiment.metric.partition("/")
    assert evaluator and metric
    assert arms.better(experiment.metric) in ("higher", "lower")
    config = arms.config(experiment, arms.METHOD)  # refuses an evaluator that is off
    assert [n for n in config.evals if hasattr(config.evals[n], "items")] == [evaluator]
    assert experiment.title and experiment.idea and experiment.reference


@functools.cache
def source(text):
    """The training split of a config's `data`, as JSON; opened once."""
    return data.load(configs.ConfigDict(json.loads(text)), "train")


def build(config):
    """The method of every stage, without a shape of its state where no stage makes a table."""
    plan = stages.resolve(config, pathlib.Path("nowhere"))
    if any(stage.make for stage in plan):
        rehearsal.rehearsed(plan, {})
        return
    for stage in plan:
        train_on = source(json.dumps(stage.config.data.to_dict()))
        length = {"train.steps": 1} if stage.evaluates_only else {}
        own = configs.merged(stage.config, length)
        found = streams.open_streams(own, train_on)
        info = describe(own, train_on, found, {})
        encoders = find_family(own.method).build(own, info).encoders
        name = own.evals.encoder
        assert not name or name in encoders


@pytest.mark.parametrize("name", experiments.NAMES)
def test_each_control_builds_and_differs(name):
    experiment = said(name)
    made = {arm: arms.config(experiment, arm) for arm in (arms.METHOD, *experiment.controls)}
    marks = {arm: arms.fingerprint(config, experiment.metric) for arm, config in made.items()}
    assert len(set(marks.values())) == len(made)
    whole = {arm: configs.to_dict(config) for arm, config in made.items()}
    for control, changes in experiment.controls.items():
        assert control.isidentifier()
        build(made[control])
        # Which encoder is evaluated moves no parameter.
        if not all(field.startswith("evals.") for field in changes):
            assert configs.differences(whole[arms.METHOD], whole[control])


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("CONTROLS =", "OTHERS =", r"toy\.py: CONTROLS missing"),
        ("PROOF =", "OTHERS =", r"toy\.py: PROOF missing"),
        ("seeds=2", "sedes=2", r"PROOF has preset, on, sedes; expected preset, on, seeds"),
        ('"strong":', '"method":', r"CONTROLS has no_regulariser, method; expected"),
        ('preset="digits", on', 'preset="digit", on', r"no preset 'digit'; did you mean 'digits'"),
        ("sigreg.weight", "sigrek.weight", r"CONTROLS\['no_regulariser'\]: .*sigrek"),
        ("knn/accuracy", "linear/accuracy", r"PROOF is on 'linear/accuracy', but evals\.linear is"),
        ("knn/accuracy", "fewshot/5_shot_interval", r"neither more nor less"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, capsys, old, new, message):
    root = project(tmp_path, TOY.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        experiment = arms.read(root / "experiments", "toy")
        arms.better(experiment.metric)
        for arm in (arms.METHOD, *experiment.controls):
            arms.config(experiment, arm)
    assert prove(root, "toy", "--minutes=0") == 2
    assert capsys.readouterr().err.count("\n") == 1


# ------------------------------------------------------------------ the verdict


@pytest.mark.parametrize(
    "method, control, better, wanted",
    [
        ((0.9, 0.91, 0.92), (0.8, 0.8, 0.8), "higher", "better"),
        ((0.9, 0.91, 0.92), (0.8, 0.8, 0.8), "lower", "worse"),
        ((0.8, 0.8, 0.8), (0.9, 0.91, 0.92), "higher", "worse"),
        ((0.8, 0.8, 0.8), (0.9, 0.91, 0.92), "lower", "better"),
        ((0.8, 0.8, 0.8), (0.8, 0.8, 0.8), "higher", "tied"),
        # All agree; the mean is 1.0, its standard error 0.95.
        ((2.9, 0.05, 0.05), (0.0, 0.0, 0.0), "higher", "tied"),
        # One of five disagrees; the mean is 0.94, its standard error 0.26.
        ((1.2, 1.2, 1.2, 1.2, -0.1), (0.0,) * 5, "higher", "tied"),
        ((0.0,) * 5, (1.2, 1.2, 1.2, 1.2, -0.1), "higher", "tied"),
        ((0.9,), (0.1,), "higher", None),
        ((), (), "higher", None),
    ],
)
def test_the_verdict(method, control, better, wanted):
    by_seed = lambda values: {str(i): x for i, x in enumerate(values)}
    assert verdict(by_seed(method), by_seed(control), better) == wanted


def test_the_verdict_is_of_seeds_that_both_have():
    assert verdict({"0": 0.9, "1": 0.9, "7": 0.0}, {"0": 0.8, "1": 0.7, "2": 1.0}) == "better"
    assert verdict({"0": 0.9, "1": 0.9}, {"1": 0.8, "2": 0.8}) is None


# ------------------------------------------------------------------ the runs


def test_a_proof_is_a_row_with_all_that_it_rests_on(proved):
    root, compiled = proved
    (row,) = read_json(root / RECORD)
    assert set(row) >= FIELDS
    assert (row["experiment"], row["preset"], row["control"]) == ("toy", "digits", "no_regulariser")
    for side in ("method", "control_values", "random_init", "raw_input"):
        assert list(row[side]) == ["0", "1"] and all(0 < x < 1 for x in row[side].values())
    assert row["method"] != row["control_values"]
    assert row["steps"] == {"method": 20, "control_values": 20}
    assert row["verdict"] == verdict(row["method"], row["control_values"])
    assert row["versions"]["jax"] and row["command"] == "python -m experiments.prove toy:digits"
    assert compiled == 2  # one an arm, for both seeds


def test_a_shared_program_gives_the_numbers_of_its_own(proved, tmp_path):
    root, _ = proved
    experiment = arms.read(root / "experiments", "toy")
    plain = train.run(arms.config(experiment, arms.METHOD, seed=1), tmp_path / "plain")
    (shared,) = (root / "runs" / "toy-digits").glob("method-1-*/summary.json")
    assert read_json(shared)["artifact"] == plain["artifact"]
    value = plain["evals"]["knn/accuracy"]["trained"]
    assert rows(root)["no_regulariser"]["method"]["1"] == pytest.approx(value, abs=1e-6)


def never(*args, **kwargs):
    raise AssertionError("a run was made")


def test_what_is_on_record_is_not_run_again(again, monkeypatch, capsys):
    shutil.rmtree(again / "runs")
    before = rows(again)
    monkeypatch.setattr(train, "run", never)
    assert prove(again, "toy", "--controls=no_regulariser") == 0
    said = capsys.readouterr().out
    assert said.count("on record") == 4 and "toy:digits against no_regulariser: " in said
    assert rows(again) == before


def test_another_control_shares_the_method_of_the_first(again, monkeypatch, capsys):
    made = fake_runs(monkeypatch)
    assert prove(again, "toy") == 0
    assert [(w.split("-")[0], s) for w, s in made] == [("strong", 0), ("strong", 1)]
    both = rows(again)
    assert both["strong"]["method"] == both["no_regulariser"]["method"]
    assert both["strong"]["verdict"] and both["strong"]["control_values"] == {"0": 0.5, "1": 0.5}


def test_a_cell_of_another_config_is_run_again_and_says_so(again, monkeypatch, capsys):
    file = again / "experiments" / "toy.py"
    file.write_text(file.read_text().replace('"losses.sigreg.weight": 0.0', '"train.steps": 9'))
    made = fake_runs(monkeypatch)
    assert prove(again, "toy", "--controls=no_regulariser", "--seeds=0,") == 0
    assert [(w.split("-")[0], s) for w, s in made] == [("no_regulariser", 0)]
    assert "no_regulariser seed 0: its config has changed" in capsys.readouterr().out
    row = rows(again)["no_regulariser"]
    assert row["control_values"] == {"0": 0.5}  # the other seed was of the older config
    assert row["changes"] == {"train.steps": 9} and row["verdict"] is None
    assert list(row["method"]) == ["0", "1"]


def test_a_changed_method_leaves_no_value_of_the_old_controls(again, monkeypatch):
    file = again / "experiments" / "toy.py"
    file.write_text(file.read_text().replace("steps=20", "steps=10"))
    fake_runs(monkeypatch)
    assert prove(again, "toy", "--controls=no_regulariser", "--seeds=1", "--only=method") == 0
    row = rows(again)["no_regulariser"]
    assert row["method"] == {"0": 0.5} and row["control_values"] == {} and row["verdict"] is None


def test_another_metric_starts_a_new_row(again):
    rows_before = record.read(again / RECORD)
    experiment = arms.read(again / "experiments", "toy")._replace(metric="knn/other")
    facts = dict(better="lower", commit="", versions={}, machine="", command="")
    cell = record.Cell(0.25, steps=3)
    (row,) = record.added(
        rows_before, experiment, "strong", 0, cell, facts, {"method": "m", "strong": "s"}
    )
    assert row["control"] == "strong" and row["metric"] == "knn/other"
    assert row["method"] == {} and row["control_values"] == {"0": 0.25}


class Killed(BaseException):
    """Stands for a kill between two steps."""


@pytest.mark.parametrize("cell, step", [(0, 12), (3, 20)])
def test_killed_in_the_middle_and_started_again_ends_with_the_same_record(
    proved, tmp_path, monkeypatch, cell, step
):
    root, check, read = project(tmp_path), nonfinite.found, []

    def killing(values):
        read.append(values)
        if len(read) == 20 * cell + step:
            raise Killed
        return check(values)

    words = ("toy", "--controls=no_regulariser")
    with monkeypatch.context() as patch:
        patch.setattr(nonfinite, "found", killing)
        with pytest.raises(Killed):
            prove(root, *words)
    done = sum(len(r[side]) for r in rows(root).values() for side in record.VALUES) if cell else 0
    assert done == cell and (root / RECORD).exists() == (cell > 0)
    (log,) = sorted((root / "runs" / "toy-digits").glob("*.log"), key=os.path.getmtime)[-1:]
    assert prove(root, *words) == 0
    assert rows(root) == rows(proved[0])
    assert "resumed" in log.read_text()  # on from its checkpoint, not from the start


def test_sigterm_saves_and_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    root, check, read = project(tmp_path), nonfinite.found, []

    def stopping(values):
        read.append(values)
        if len(read) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return check(values)

    monkeypatch.setattr(nonfinite, "found", stopping)
    assert prove(root, "toy", "--only=method", "--seeds=1") == 0
    assert "stopped; the same command goes on" in capsys.readouterr().out
    assert not (root / RECORD).exists() and len(read) < 20
    assert prove(root, "toy", "--only=method", "--seeds=1") == 0
    assert list(rows(root)["strong"]["method"]) == ["0"] and len(read) < 30


def test_a_run_that_diverges_is_on_record_and_others_go_on(tmp_path, monkeypatch, capsys):
    root = project(tmp_path)
    fake_runs(monkeypatch, lambda config: 0.75)
    words = ("toy", "--controls=strong")
    assert prove(root, *words, "--only=method") == 0
    made = fake_runs(monkeypatch, raises=Diverged("step 3: loss is nan"))
    assert prove(root, *words) == 1
    assert len(made) == 2
    row = rows(root)["strong"]
    assert row["diverged"]["control_values"] == dict.fromkeys("01", "step 3: loss is nan")
    assert row["verdict"] == "better" and row["control_values"] == {}
    said = capsys.readouterr().out
    assert "diverged: step 3: loss is nan" in said
    assert "better: knn/accuracy 75.0 ± 0.0 against diverged" in said
    assert len(made) == 2 and prove(root, *words) == 0 and len(made) == 2


def test_stages_share_their_programs_too(tmp_path):
    root = project(tmp_path, TOY.replace("    return config\n", STAGES))
    assert prove(root, "toy", "--controls=strong", "--only=method") == 0
    row = rows(root)["strong"]
    assert row["steps"] == {"method": 24} and list(row["method"]) == ["0", "1"]
    experiment = arms.read(root / "experiments", "toy")
    plain = train.run(arms.config(experiment, arms.METHOD, seed=1), tmp_path / "plain")
    (shared,) = (root / "runs" / "toy-digits").glob("method-1-*/1-b/summary.json")
    assert read_json(shared)["artifact"] == plain["artifact"]


# ------------------------------------------------------------------ the command


def test_no_minutes_run_nothing_and_say_so(tmp_path, monkeypatch, capsys):
    root = project(tmp_path)
    monkeypatch.setattr(train, "run", never)
    assert prove(root, "toy", "--minutes=0") == 0
    said = capsys.readouterr().out
    assert "--minutes=0 are over: 6 cells left: toy method seed 0, toy no_regulariser" in said
    assert "no verdict yet, 0 of 2 seeds" in said
    assert not (root / RECORD).exists()


def test_minutes_end_between_two_cells(tmp_path, monkeypatch, capsys):
    root, made = project(tmp_path), fake_runs(monkeypatch)
    now = iter(range(0, 10**6, 30))  # half a minute whenever the clock is read
    monkeypatch.setattr(cells.time, "perf_counter", lambda: next(now))
    assert prove(root, "toy", "--minutes=2") == 0
    assert 0 < len(made) < 6 and f"{6 - len(made)} cells left" in capsys.readouterr().out
    assert prove(root, "toy") == 0
    assert len(made) == len(set(made)) == 6


@pytest.mark.parametrize(
    "words, message",
    [
        (("tot",), "tot: no such experiment; did you mean 'toy'?"),
        (("toy:digit",), "toy: no preset 'digit'; did you mean 'digits'?"),
        (("toy", "--only=metod"), "--only: no 'metod'; did you mean 'method'?"),
        (("toy", "--controls=stron"), "--controls: no 'stron'; did you mean 'strong'?"),
        (("toy", "--seeds=two"), "--seeds: found 'two', expected how many, or which, as 0,2"),
        (("toy", "--seeds=0"), "--seeds: found '0'"),
        (("toy", "--seeds=1,1"), "--seeds: found '1,1'"),
        (("toy", "--minutes=-1"), "--minutes: found '-1'"),
        (("toy", "--minuts=1"), "did you mean '--minutes'?"),
        (("toy", "--config.train.steps=1"), "a change belongs to CONTROLS"),
        ((), "no experiment named; usage: python -m experiments.prove NAME"),
    ],
)
def test_bad_input_is_one_line_with_the_near_name(tmp_path, capsys, words, message):
    root = project(tmp_path)
    assert prove(root, *words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and message in said


def test_flags_choose_arms_seeds_and_experiments(tmp_path, monkeypatch, capsys):
    root, made = project(tmp_path), fake_runs(monkeypatch)
    other = TOY.replace("Toy: one", "Other: one").replace('"strong"', '"weak"')
    (root / "experiments" / "other.py").write_text(other)
    ran = lambda: [(w.split("-")[0], s) for w, s in made]
    assert prove(root, "toy", "--only=method", "--seeds=2,5") == 0
    assert ran() == [("method", 2), ("method", 5)]
    made.clear()
    assert prove(root, "all", "--controls=weak", "--seeds=1") == 0  # of the other one alone
    assert ran() == [("method", 0), ("weak", 0)]
    made.clear()
    assert prove(root, "toy", "other", "toy", "--only=no_regulariser", "--seeds=1") == 0
    assert ran() == [("no_regulariser", 0)] * 2
    said = capsys.readouterr().out
    assert "toy:digits against strong: no verdict yet" in said
    assert said.count("other:digits against weak: no verdict yet") == 2


# ------------------------------------------------------------------ the page


def test_the_page_says_what_the_record_says(again, capsys):
    assert main(["--check"], again) == 1
    assert capsys.readouterr().out.count("\n") == 1
    assert main(["--write"], again) == 0
    assert main(["--check"], again) == 0
    text = (again / "experiments" / "README.md").read_text()
    row = rows(again)["no_regulariser"]
    lines = [line for line in text.splitlines() if line.startswith("| [Toy](toy.py) |")]
    assert len(lines) == 2 and lines[1].endswith("not yet run |")
    assert "one idea in two lines | [2001.00001](https://arxiv.org/abs/2001.00001)" in lines[0]
    assert lines[0].endswith(f"| 2 | **{row['verdict']}** |")
    for side in ("method", "control_values", "random_init", "raw_input"):
        assert f"| {cells.shown(row[side], 'higher')} |" in lines[0]
    file = again / "experiments" / "toy.py"
    file.write_text(file.read_text().replace("steps=20", "steps=10"))
    assert f"of an older config: **{row['verdict']}**" in render.page(again / "experiments")


def test_the_page_of_this_project_is_current(capsys):
    assert main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", ["arms", "cells", "verdict", "__main__"])
def test_examples_in_docstrings(name):
    found = doctest.testmod(importlib.import_module(f"experiments.prove.{name}"))
    assert found.attempted and not found.failed
