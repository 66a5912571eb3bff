"""Finished runs beside each other: what the table says, and that settings which differ show."""

import html
import re

import numpy as np
import pytest

from jaxssl.commands import side_by_side
from jaxssl.commands.side_by_side import main
from jaxssl.report import samples, writers

CONFIG = {
    "name": "run",
    "method": "composed",
    "losses": {"sigreg": {"fn": "sigreg", "weight": 0.02}},
    "optimizer": {"name": "adamw", "learning_rate": 0.001},
    "evals": {"test": 0, "knn": {"k": 20}, "linear": {"steps": 50}},
    "data": {"source": "digits"},
}
EVALS = {
    "knn/accuracy": {"trained": 0.9, "random_init": 0.8, "raw_input": 0.95},
    "pretext/pixels": {"trained": 0.5, "constant": 0.75, "better": "lower"},
}


def leave(folder, config=CONFIG, evals=EVALS, spectrum=True):
    """The files of a finished run."""
    with writers.MetricsWriter(folder) as writer:
        for step in (1, 2):
            writer.write(step, {"train/loss": 1 / step, "eval/knn/accuracy": 0.5, "train/x": 1.0})
    writers.write_json(folder / "config.json", config)
    writers.write_summary(folder, status="finished", step=2, seconds=1.0, evals=evals)
    if spectrum:
        images = np.zeros((6, 4, 4, 1), np.uint8)
        x, y = np.random.default_rng(0).normal(size=(6, 3)), np.arange(6) % 2
        samples.save(folder, samples.Samples(images, y, x, images, y, x))


@pytest.fixture
def two(tmp_path):
    leave(tmp_path / "one" / "run")
    config = CONFIG | {
        "optimizer": {"name": "adamw", "learning_rate": 0.01},
        "losses": {**CONFIG["losses"], "extra": {"fn": "koleo"}},
        "evals": CONFIG["evals"] | {"linear": {"steps": 90}},
    }
    evals = {"knn/accuracy": {"trained": 0.7, "random_init": 0.8, "raw_input": None}}
    leave(tmp_path / "two" / "run", config, evals, spectrum=False)
    return [tmp_path / name / "run" for name in ("one", "two")]


def test_command_writes_the_page_and_prints_the_table(two, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert main([*map(str, two), f"--output={out}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:-1]] == [
        ["knn/accuracy", "one/run", "0.9000", "0.8000", "+0.1000", "0.9500", "-0.0500"],
        ["two/run", "0.7000", "-0.2000", "0.8000", "-0.1000"],
        ["pretext/pixels", "(less", "is", "better)", "one/run", "0.5000", "0.7500", "-0.2500"],
        ["two/run"],
    ]
    assert lines[0].split()[:3] == ["evaluation", "run", "trained"] and lines[-1] == str(out)
    page = out.read_text()
    assert not re.search(r"https?:|<script|<link|@import", page)
    text = re.sub(r"<style.*?</style>", "", page, flags=re.DOTALL)
    text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", text)))
    for words in (
        "knn/accuracy one/run 0.9000 0.8000 +0.1000 0.9500 -0.0500 two/run 0.7000 -0.2000",
        "field one/run two/run losses.extra.fn absent koleo optimizer.learning_rate 0.001 0.01",
        " train/loss ",
        " eval/knn/accuracy ",
        "one/run (effective rank",
    ):
        assert words in text
    # Metrics of one method alone are not put over those of another.
    assert "train/x" not in text and "two/run (effective rank" not in text


def test_evaluations_by_other_settings_are_marked(two):
    titles = lambda: {row[0] for row in side_by_side.evals_table(side_by_side.read(two))[1:]}
    assert titles() == {"knn/accuracy", "pretext/pixels (less is better)"}
    config = writers.read_json(two[1] / "config.json")
    for section, change in (
        ("evals", {"knn": {"k": 5}}),
        ("evals", {"test": 100}),
        ("data", {"source": "npz"}),
    ):
        changed = {**config, section: config[section] | change}
        writers.write_json(two[1] / "config.json", changed)
        assert titles() == {"knn/accuracy *", "pretext/pixels (less is better)"}


def test_runs_that_are_alike_say_so(tmp_path):
    for name in ("a", "b"):
        leave(tmp_path / name, evals={})
    found = side_by_side.read([tmp_path / "a", tmp_path / "b"])
    assert [run.name for run in found] == ["a", "b"]
    side_by_side.write(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "Nothing that moves a parameter" in page and "None of these runs made" in page


def test_bad_input_is_one_line(two, tmp_path, capsys):
    one, other = map(str, two)
    for argv, expected in (
        ([one], "workdirs: found "),
        ([one, one], "workdirs: found "),
        (["--output=x.html"], "workdirs: found "),
        ([one, str(tmp_path / "absent")], "holds no run"),
        ([one, other, f"--output={tmp_path}/no/x.html"], "No such file"),
    ):
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1
