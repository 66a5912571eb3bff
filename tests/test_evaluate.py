"""Checkpoints evaluated again: the same numbers, other evaluators, one line where it cannot be."""

import numpy as np
import pytest
import tiny

from jaxssl import main
from jaxssl.commands import evaluate
from jaxssl.config.errors import ConfigError
from jaxssl.report.writers import read_json
from jaxssl.run import runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir with checkpoints of steps 5 and 8, and what its own evaluation found."""
    folder = tmp_path_factory.mktemp("run")
    spec, workdir = tiny.write(folder), folder / "work"
    flags = [f"--config={spec}", f"--workdir={workdir}", "--config.train.steps=8"]
    assert main.main(flags) == 0
    return workdir


def test_a_checkpoint_evaluated_again_gives_the_same_numbers(run):
    found = evaluate.evaluate(run)
    online = tiny.summary(run)["evals"]
    assert found["step"] == 8 and found["seeds"] == 1
    assert found["evals"].keys() == online.keys()
    # One id for the same settings, wherever the number is shown.
    assert found["protocols"] == tiny.summary(run)["protocols"]
    assert found["protocols"]["knn"] in (run / "report.html").read_text()
    for name, values in online.items():
        for kind, value in values.items():
            assert found["evals"][name][kind] == pytest.approx(value, abs=1e-6), (name, kind)


def test_features_are_kept_by_content_and_results_by_protocol(run, monkeypatch, capsys):
    assert evaluate.main([f"--workdir={run}", "--config.evals.knn.k=3"]) == 0
    out = capsys.readouterr().out
    assert "knn/accuracy" in out and "random init" in out and "step 8, one seed" in out
    kept = sorted((run / "features").iterdir())

    def fail(*args, **more):
        raise AssertionError("features were extracted again")

    monkeypatch.setattr("jaxssl.evals.subject.extract", fail)
    again = evaluate.evaluate(run, overrides=["--config.evals.knn.k=3"])
    other = evaluate.evaluate(run, overrides=["--config.evals.knn.k=4"])
    assert sorted((run / "features").iterdir()) == kept
    assert again["protocols"]["knn"] != other["protocols"]["knn"]
    entries = read_json(run / evaluate.RESULTS)
    ids = [(entry["step"], entry["protocols"]["knn"]) for entry in entries]
    assert len(set(ids)) == len(ids) and len(ids) >= 2
    monkeypatch.undo()
    # Another checkpoint is another encoder, whose features are its own.
    older = evaluate.evaluate(run, checkpoint=5)
    assert older["step"] == 5 and len(list((run / "features").iterdir())) == len(kept) + 2
    steps = {step: runs.load(run, checkpoint=step).state.params for step in (5, 8)}
    assert not np.array_equal(
        *(np.concatenate([x.ravel() for x in _arrays(p)]) for p in steps.values())
    )


def _arrays(tree):
    return [np.asarray(x) for x in tree["encoder"].values() for x in _leaves(x)]


def _leaves(x):
    return [leaf for v in x.values() for leaf in _leaves(v)] if isinstance(x, dict) else [x]


def test_an_evaluator_that_was_off_is_switched_on_by_name(run, capsys):
    evaluate.evaluate(run)
    capsys.readouterr()
    overrides = ["--config.evals.fewshot.shots=(1, 2)", "--config.evals.fewshot.draws=2"]
    found = evaluate.evaluate(run, overrides=overrides)
    assert {"fewshot/1_shot", "fewshot/2_shot"} <= found["evals"].keys()
    assert found["evals"]["fewshot/1_shot_interval"]["better"] is None
    # Its controls are made; those that the workdir has are not made again.
    pieces = "".join(capsys.readouterr())
    assert "random init: fewshot" in pieces and "trained: knn" in pieces
    assert "random init: knn" not in pieces
    before = tiny.summary(run)["evals"]["knn/accuracy"]
    assert found["evals"]["knn/accuracy"]["random_init"] == before["random_init"]


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["--checkpoint=7"], ["no checkpoint of step 7"]),
        (["--checkpoint=x"], ["--checkpoint", "usage"]),
        (["--stage=first"], ["--stage=first", "without stages"]),
        (["--config.train.steps=9"], ["--config.train.steps=9", "finished run's field"]),
        (["--config.evals.clusterin.k=9"], ["evals.clusterin", "did you mean"]),
        (["--config.evals.knn.kk=9"], ["did you mean 'evals.knn.k'"]),
        (["--chekpoint=3"], ["--chekpoint", "did you mean '--checkpoint'"]),
    ],
)
def test_bad_input_is_one_line(run, capsys, arguments, parts):
    assert evaluate.main([f"--workdir={run}", *arguments]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1
    assert all(part in err for part in parts), err


def test_a_folder_without_a_run_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        runs.load(tmp_path)
