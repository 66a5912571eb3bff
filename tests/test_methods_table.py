"""The README's generated tables, and the record of finished runs behind them."""

import json
import pathlib
import shlex

import pytest

from jaxssl import config as configs
from jaxssl import measurements, methods_table, stages
from jaxssl.errors import ConfigError
from jaxssl.report.writers import write_json, write_summary

EXPERIMENT = '''"""Small: one idea
in two lines.

Doe (2020), A small idea, arXiv 2001.00001.
"""

from jaxssl import base

PRESETS = ("digits", "cifar10")


def get_config(preset="digits"):
    config = base.vision(preset)
    config.method = "joint_embedding"
    config.losses.spread = dict(fn="sigreg", student="pooled", num_slices=8, weight=0.5)
    return config
'''
README = (
    "# Title\n<!-- methods -->\n<!-- /methods -->\nwords\n<!-- numbers -->\n<!-- /numbers -->\n"
    "<!-- invariance -->\n<!-- /invariance -->\n<!-- faults -->\n<!-- /faults -->\n"
)


@pytest.fixture
def root(tmp_path):
    """A project with one experiment and a README without tables."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "small.py").write_text(EXPERIMENT)
    (tmp_path / "README.md").write_text(README)
    return tmp_path


def run(root, seed, trained, *overrides, status="finished", preset="digits", errors=()):
    """The workdir of a run, as the loop leaves it."""
    workdir = root / f"run-{seed}-{len(list(root.iterdir()))}"
    spec = f"{root / 'experiments' / 'small.py'}:{preset}"
    config = configs.load(spec, [f"--config.train.seed={seed}", *overrides])
    workdir.mkdir()
    write_json(workdir / "config.json", configs.to_dict(config))
    evals = {
        "knn/accuracy": {"trained": trained, "random_init": 0.5, "raw_input": 0.9},
        "features/std": {"trained": 3.0, "random_init": 1.0, "raw_input": 2.0, "better": None},
    }
    if errors:
        evals["pretext/pixels"] = dict(zip(("trained", "constant"), errors), better="lower")
    write_summary(workdir, status=status, step=600, seconds=90.0 + seed, evals=evals)
    return str(workdir)


@pytest.mark.parametrize("error, won", [(0.3, True), (0.7, False)])
def test_an_error_is_better_where_it_is_less_than_that_of_the_best_constant(root, error, won):
    measurements.record(root, [run(root, 0, 0.96, errors=(error, 0.6))], machine="a box")
    found = methods_table.tables(root)
    row = (
        f"| `small:digits` | pretext/pixels | {error:.3f} |  |  | 0.600 (x {error / 0.6:.2f}) | 1 |"
    )
    assert row in found["numbers"].splitlines()
    assert ("better than its controls on 2 metrics" in found["methods"]) == won
    assert ("not better than constant on pretext/pixels" in found["methods"]) != won


def test_numbers_are_the_mean_and_spread_over_seeds_beside_the_controls(root):
    folders = [run(root, seed, trained) for seed, trained in ((1, 0.96), (0, 0.92), (2, 0.94))]
    measurements.record(root, folders, machine="a box")
    found = methods_table.tables(root)["numbers"]
    gains = "94.0 ± 2.0 | 50.0 ± 0.0 (+44.0) | 90.0 ± 0.0 (+4.0)"
    row = f"| `small:digits` | knn/accuracy | {gains} |  | 3 |"
    assert row in found.splitlines()
    assert "features/std" not in found  # shown by a run, but neither more nor less is a success
    assert "91 s of training for each seed on a box" in found
    assert (
        "for seed in 0 1 2; do python -m jaxssl.main --config=experiments/small.py:digits" in found
    )


def test_a_run_of_another_config_is_a_row_of_its_own_and_its_command_says_how(root):
    off = ("--config.losses.spread.weight=0.0", "--config.encoder.widths=(8, 8, 8, 8, 8)")
    measurements.record(root, [run(root, 0, 0.95), run(root, 0, 0.3, *off)], machine="a box")
    plain, changed = measurements.results(root)
    assert plain["changes"] == {} and plain["evals"]["knn/accuracy"]["trained"] == [0.95]
    assert changed["changes"] == {"encoder.widths": [8] * 5, "losses.spread.weight": 0.0}
    words = shlex.split(methods_table.command(changed).partition("do ")[2].partition(";")[0])
    spec = f"{root / 'experiments' / 'small.py'}:digits"
    overrides = [w for w in words if w.startswith("--config.") and "seed" not in w]
    config = configs.load(spec, overrides)  # the recorded command gives the config that ran
    assert config.encoder.widths == (8,) * 5 and config.losses.spread.weight == 0


def test_a_new_measurement_replaces_the_old_one(root):
    for trained in (0.6, 0.7):
        measurements.record(root, [run(root, 0, trained)], machine="a box")
    (only,) = measurements.results(root)
    assert only["evals"]["knn/accuracy"]["trained"] == [0.7]


def test_what_moves_no_number_is_the_same_measurement(root):
    shards = ("--config.mesh.fsdp=2", "--config.checkpoint.keep=5", "--config.evals.every_steps=7")
    measurements.record(root, [run(root, 0, 0.95), run(root, 1, 0.96, *shards)], machine="a box")
    (only,) = measurements.results(root)
    assert only["seeds"] == [0, 1]


def test_methods_say_whether_they_beat_their_controls(root):
    rows = lambda: methods_table.tables(root)["methods"]
    assert rows().count("not measured") == 2
    assert "| [Small](experiments/small.py) | one idea in two lines |" in rows()
    assert "A small idea, [arXiv:2001.00001](https://arxiv.org/abs/2001.00001)." in rows()
    measurements.record(root, [run(root, 0, 0.95), run(root, 1, 0.89)], machine="a box")
    assert "`digits`: not better than raw input on knn/accuracy (2 seeds)" in rows()
    measurements.record(root, [run(root, 0, 0.95), run(root, 1, 0.96)], machine="a box")
    assert "`digits`: better than its controls on 1 metric (2 seeds)" in rows()
    assert "`cifar10`: not measured" in rows()


def test_what_has_no_run_of_its_own_stands_as_it_does_at_equal_compute(root):
    def row(name, seeds, knn):
        evals = {"trained": knn, "random_init": [0.4] * len(seeds), "raw_input": [0.3] * len(seeds)}
        return dict(experiment=name, seeds=seeds, evals={"knn": evals, "linear": evals})

    def stands(*rows):
        record = dict(table="comparison", preset="digits", rows=rows)
        (root / "experiments" / "comparison.json").write_text(json.dumps(record))
        return methods_table.tables(root)["methods"]

    plain = row("small", [0, 1], [0.45, 0.6])
    better = "`digits`: at equal compute better than its controls on 2 metrics (2 seeds)"
    assert better in stands(plain)
    assert better in stands(plain, row("small.control", [1], [0.5]))  # 0.6 against 0.5
    lost = "at equal compute not better than its control on knn, its control on linear"
    assert lost in stands(plain, row("small.control", [0], [0.5]))
    measurements.record(root, [run(root, 0, 0.95)], machine="a box")
    assert "`digits`: better than its controls on 1 metric (1 seed)" in stands(plain)


def test_what_benches_wrote_is_shown(root):
    cell = lambda size: dict(metrics=size, params=2 * size, absent="")
    absent = dict(metrics=0.0, params=0.0, absent="batch normalisation")
    rows = {
        "a": dict(steps=3, cells={"2 devices": cell(1e-7), "microbatches": absent}),
        "b": dict(steps=3, cells={"2 devices": cell(3e-7), "microbatches": cell(0.0)}),
    }
    (root / "experiments" / "invariance.json").write_text(json.dumps(rows))
    trials = [dict(provoked=True, survived=s, seconds=2.0, note=n) for s, n in ((1, ""), (0, "no"))]
    record = dict(seed=0, steps=9, faults={"sigterm": trials})
    (root / "experiments" / "faults.json").write_text(json.dumps(record))
    found = methods_table.tables(root)
    assert "| 2 devices | 2 | 3e-07 / 6e-07 |" in found["invariance"]
    assert "| microbatches | 1 | equal |" in found["invariance"]
    assert "| a | 1e-07 / 2e-07 | n/a |" in found["invariance"]
    assert "| 2 | 1 | 2.0 s, at most 2.0 s |" in found["faults"]
    assert "- sigterm: no" in found["faults"]


def staged(root, seed, trained, *overrides):
    """The workdir of a run with two stages; only the last one's evaluations count."""
    text = EXPERIMENT.replace(
        "    return config",
        '    second = dict(name="b", init_from="a", changes={"train.steps": 7})\n'
        '    config.stages = (dict(name="a"), second)\n    return config',
    )
    (root / "experiments" / "small.py").write_text(text)
    workdir = root / f"staged-{seed}-{len(list(root.iterdir()))}"
    spec = f"{root / 'experiments' / 'small.py'}:digits"
    config = configs.load(spec, [f"--config.train.seed={seed}", *overrides])
    plan = stages.resolve(config, workdir)
    for stage, accuracy, steps in zip(plan, (0.1, trained), (600, 7)):
        stage.folder.mkdir(parents=True)
        write_json(stage.folder / "config.json", configs.to_dict(stage.config))
        evals = {"knn/accuracy": {"trained": accuracy, "random_init": 0.5, "raw_input": 0.9}}
        fields = dict(status="finished", step=steps, seconds=10.0, artifact="x", evals=evals)
        write_summary(stage.folder, **fields)
    stages.write_index(plan, workdir)
    return str(workdir)


def test_a_run_with_stages_is_one_measurement(root):
    folders = [staged(root, 1, 0.96), staged(root, 0, 0.94)]
    measurements.record(root, folders, machine="a box")
    (only,) = measurements.results(root)
    assert only["seeds"] == [0, 1] and only["changes"] == {}
    assert only["evals"]["knn/accuracy"]["trained"] == [0.94, 0.96]
    assert only["steps"] == 607 and only["seconds"] == [20.0, 20.0]
    weaker = staged(root, 0, 0.5, "--config.losses.spread.weight=0.25")
    measurements.record(root, [weaker], machine="a box")
    assert measurements.results(root)[1]["changes"] == {"losses.spread.weight": 0.25}
    # The control without stages is of the same experiment.
    measurements.record(root, [run(root, 0, 0.3, "--config.stages=()")], machine="a box")
    assert {"stages": []} in [r["changes"] for r in measurements.results(root)]
    with pytest.raises(ConfigError, match="found stages 0-a, 1-b; expected none"):
        (root / "experiments" / "small.py").write_text(EXPERIMENT)
        measurements.record(root, folders, machine="a box")


def test_check_fails_until_write(root, capsys):
    assert methods_table.main(["--check"], root) == 1
    assert capsys.readouterr().out.count("\n") == 1
    assert methods_table.main(["--write"], root) == 0
    assert methods_table.main(["--check"], root) == 0
    written = (root / "README.md").read_text()
    assert written.startswith("# Title\n") and "\nwords\n" in written
    assert methods_table.main(["--record", run(root, 0, 0.95)], root) == 0
    assert methods_table.main(["--check"], root) == 1


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda root: [run(root, 0, 0.9, status="stopped")], "stopped; expected a finished run"),
        (lambda root: [run(root, 0, 0.9), run(root, 0, 0.9)], "seeds .* expected each once"),
        (lambda root: [str(root / "nowhere")], "nowhere.*no such file"),
    ],
)
def test_what_cannot_be_recorded_is_refused_in_one_line(root, make, message, capsys):
    with pytest.raises(ConfigError, match=message):
        measurements.record(root, make(root))
    assert methods_table.main(["--record", *make(root)], root) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert measurements.results(root) == []


def test_a_run_of_an_older_config_is_refused(root):
    folder = run(root, 0, 0.9)
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    del config["train"]["precision"]
    write_json(pathlib.Path(folder) / "config.json", config)
    with pytest.raises(ConfigError, match=r"only the experiment has train\.precision"):
        measurements.record(root, [folder])


def test_an_experiment_without_a_reference_is_refused(root):
    (root / "experiments" / "bare.py").write_text('"""Bare: no reference."""\n')
    with pytest.raises(ConfigError, match=r"bare\.py.*reference"):
        methods_table.experiments(root)


def test_a_readme_without_the_markers_is_refused(root):
    (root / "README.md").write_text("# Title\n")
    assert methods_table.main(["--check"], root) == 2
