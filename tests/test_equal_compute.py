"""The comparison at equal compute: what a step costs, the runs, the record and what it shows."""

import json
import shutil
import xml.etree.ElementTree as ElementTree

import pytest
import tiny

import experiments
from experiments.equal_compute import budget, one, render, runs, tables
from experiments.equal_compute.__main__ import main
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError
from jaxssl.report.writers import read_json, write_json, write_summary
from jaxssl.run import stages

# The tiny run as an experiment; its "cifar10" is the digits, with views of half the full side.
TINY = '''"""{title}: an idea.

Doe (2020), A small idea, arXiv 2001.00001.
"""
''' + tiny.FILE.replace("recipes.base(preset)", 'recipes.base("digits")').replace(
    "size=8, noise", "size=12, noise"
)
TINY += """
CONTROLS = {"no_regulariser": {"losses.sigreg.weight": 0.0}}
PROOF = dict(preset="digits", on="knn/accuracy", seeds=3)
"""
TABLE = tables.TABLES["comparison"]


@pytest.fixture
def root(tmp_path):
    """A project with three experiments, of which one has not the preset."""
    folder = tmp_path / "root" / "experiments"
    folder.mkdir(parents=True)
    for name in ("small", "other"):
        (folder / f"{name}.py").write_text(TINY.replace("{title}", name.title()))
    plain = TINY.replace("{title}", "Plain").replace('("digits", "cifar10")', '("digits",)')
    (folder / "plain.py").write_text(plain)
    return folder.parent


# ------------------------------------------------------------------ what a step costs


def with_teacher(folder):
    """Two full and three small views; a teacher that sees the full ones."""
    config = tiny.load(folder)
    with config.unlocked():
        config.views.local = dict(count=3, size=4, noise=dict(sigma=0.1))
        config.teachers.ema = dict(rule="ema", follows=("encoder", "projector"), decay=0.9)
        config.losses.taught = dict(
            fn="view_mean_prediction", student="projection", teacher="ema/projection", pairs="all"
        )
    return config


def test_views_are_those_of_student_and_teachers_by_their_pixels(tmp_path):
    full = 8 * 8
    # 32 samples: 2 full views and 3 of a quarter of the pixels; the teacher's 2 full ones.
    assert budget.cost(with_teacher(tmp_path), full).amount == 32 * (2 + 3 / 4) + 32 * 2
    assert budget.cost(tiny.load(tmp_path), full).amount == 32 * 2
    assert budget.cost(tiny.load(tmp_path), 4 * full).amount == 32 * 2 / 4


def test_microbatches_and_tokens_left_out_count_as_what_is_encoded(tmp_path):
    config = tiny.load(tmp_path)
    with config.unlocked():
        vit = dict(width=8, depth=1, heads=2, patch=2, image_size=8)
        config.encoder = dict(name="vit", **vit)
        config.student.projector.norm = "layer"
        config.train.microbatches = 4
    assert budget.cost(config, 64).amount == 32 * 2
    with config.unlocked():
        config.masks.dropped = dict(name="random", views="global", ratio=0.75, how="drop")
    assert budget.cost(config, 64).amount == 32 * 2 / 4


def test_arithmetic_is_that_of_the_whole_step(tmp_path):
    """Half of the samples are half of the work, but for what the params themselves cost."""
    config = tiny.load(tmp_path)
    half = configs.merged(config, {"train.global_batch": 16})
    whole = budget.cost(config, 64, "GFLOP").amount
    assert 0.4 < budget.cost(half, 64, "GFLOP").amount / whole < 0.6


def test_an_experiment_belongs_to_the_table_of_its_encoder():
    vit = tables.TABLES["comparison_vit"]
    for name, table in (("simclr", TABLE), ("mae", vit), ("ibot", vit), ("msn", TABLE)):
        assert tables.of(experiments.load(name, tables.PRESET)) == table, name


def test_a_tables_learning_rate_stands_for_the_presets_in_every_stage():
    vit = tables.TABLES["comparison_vit"]
    assert tables.load(experiments.FOLDER / "mae.py").optimizer.learning_rate == vit.rate
    dbot = tables.load(experiments.FOLDER / "dbot.py")
    rates = [s.config.optimizer.learning_rate for s in stages.resolve(dbot, experiments.FOLDER)]
    assert rates == [("part", first, 2800, vit.rate) for first in (0, 1400)]
    # What a stage has of its own stays.
    beit = stages.resolve(tables.load(experiments.FOLDER / "beit.py"), experiments.FOLDER)
    assert beit[0].config.optimizer.learning_rate[1] == 0.05
    assert [stage.config.train.global_batch for stage in beit] == [256, 64]


def test_a_table_has_overrides_of_its_own():
    file = experiments.FOLDER / "mae.py"
    shared = tables.load(file).train.global_batch
    assert shared == 64 != configs.load(f"{file}:{tables.PRESET}").train.global_batch


def test_a_loss_that_reads_the_labels_is_told_from_one_that_does_not(tmp_path):
    config = tiny.load(tmp_path)
    assert not budget.cost(config, 64).labels
    with config.unlocked():
        config.losses.classes = dict(
            fn="label_smoothing_cross_entropy",
            student="projection",
            pairs="single",
            labels=dict(batch="label"),
        )
    found = budget.cost(config, 64)
    assert (found.amount, found.labels) == (64.0, True)


def test_groups_of_views_that_pass_side_by_side_all_count(tmp_path):
    config = tiny.load(tmp_path)
    with config.unlocked():
        vit = dict(width=8, depth=1, heads=2, patch=2, image_size=8)
        config.encoder = dict(name="vit", **vit)
        config.student.projector.norm = "layer"
        config.views.local = dict(count=3, size=4, noise=dict(sigma=0.1))
    assert budget.cost(config, 64).amount == 32 * (2 + 3 / 4)


def staged(folder):
    """A stage of 30 steps, one of 10 with twice the samples, and one that only evaluates."""
    rate = ("warmup_cosine", 0.1, 4, 0.0)
    part = lambda first: {"optimizer.learning_rate": ("part", first, 40, rate)}
    more = {"train.steps": 10, "train.global_batch": 64}
    return tiny.load(
        folder,
        stages=(
            dict(name="a", changes={"train.steps": 30, **part(0)}),
            dict(name="b", init_from="a", changes={**more, **part(30)}),
            dict(name="c", init_from="b", changes={"train.steps": 0}),
        ),
    )


def test_stages_share_a_budget_as_they_share_the_run(tmp_path):
    """30 steps at 64 views and 10 at 128 are 3,200; half of that pays for half of each."""
    config = staged(tmp_path)
    found = budget.costs(config, 64)
    assert [(cost.amount, cost.planned) for cost in found] == [(64.0, 30), (128.0, 10), (0.0, 0)]
    lengths = budget.steps(1600, found)
    assert lengths == [15, 5, 0]
    assert not any(cost.labels for cost in found)

    a, b, c = stages.resolve(
        configs.merged(config, budget.changes(config, found, lengths)), tmp_path
    )
    assert [stage.config.train.steps for stage in (a, b, c)] == lengths and c.evaluates_only
    assert (b.init_from, b.config.train.global_batch) == ("a", 64)
    rate = ("warmup_cosine", 0.1, 2, 0.0)
    assert a.config.optimizer.learning_rate == ("part", 0, 20, rate)
    assert b.config.optimizer.learning_rate == ("part", 15, 20, rate)
    # Only what the last stage leaves is judged.
    assert a.config.evals.knn is None is b.config.evals.linear
    assert c.config.evals.linear.to_dict() == {"c": 1.0, "max_iterations": 100}

    with pytest.raises(ConfigError, match=r"--budget=200.*of one step"):
        budget.steps(200, found)


def test_what_cannot_be_counted_is_refused(tmp_path, monkeypatch):
    stages = tiny.load(tmp_path, stages=({"name": "a"}, {"name": "b"}))
    with pytest.raises(ConfigError, match=r"stages: .*one stage"):
        budget.cost(stages, 64)
    monkeypatch.setattr(budget._Watch, "__call__", lambda self, call, a, k, _: call(*a, **k))
    with pytest.raises(ConfigError, match="no image enters an encoder"):
        budget.cost(tiny.load(tmp_path), 64)


def test_the_budget_is_never_exceeded():
    one = [budget.Cost(64.0, labels=False, planned=700)]
    assert budget.steps(1000, one) == budget.steps(960, one) == [15]
    with pytest.raises(ConfigError, match=r"--budget=63.*64 of one step"):
        budget.steps(63, one)


def test_only_the_length_the_warm_ups_and_the_evaluations_change(tmp_path):
    config = tiny.load(tmp_path)
    with config.unlocked():
        config.optimizer.learning_rate = ("warmup_cosine", 0.1, 700, 0.01)
        heads = dict(match="projector", own_learning_rate=("warmup_linear", 0.2, 9))
        config.optimizer.groups = dict(heads=heads)
    changed = budget.changes(config, budget.costs(config, 64), [50])
    after = configs.merged(config, changed)
    assert after.optimizer.learning_rate == ("warmup_cosine", 0.1, 5, 0.01)
    assert after.optimizer.groups.heads.own_learning_rate == ("warmup_linear", 0.2, 5)
    assert after.train.steps == 50 and after.evals.every_steps == 0
    assert after.evals.linear.to_dict() == {"c": 1.0, "max_iterations": 100}
    sections = {key.split(".")[0] for key in changed}
    assert sections == {"train", "evals", "checkpoint", "optimizer"}
    assert after.train.global_batch == config.train.global_batch


# ------------------------------------------------------------------ the runs


def test_runs_are_made_once_and_a_failure_ends_itself_alone(root, tmp_path, capsys, monkeypatch):
    """Views have a quarter of the full view's pixels: 2 of 32 samples are 16 views a step."""
    bad = root / "experiments" / "other.py"
    bad.write_text(bad.read_text().replace('"lejepa_prediction"', '"lejepa_predicton"'))
    folder = tmp_path / "runs"
    words = [f"--workdir={folder}", "--experiments=small,other", "--budget=50", "--machine=a box"]
    assert main(words, root) == 1
    printed = capsys.readouterr()
    assert "1 run of 2 finished" in printed.out
    (failed,) = [line for line in printed.err.splitlines() if line.startswith("failed: ")]
    assert failed.startswith("failed: other seed 0: error: losses.prediction.fn: found")
    summary = read_json(folder / "small-0" / "summary.json")
    assert summary["status"] == "finished" and summary["step"] == 3

    # The same command again: what is finished is not made again.
    started = []
    monkeypatch.setattr(runs, "_start", lambda run, *_: started.append(run.experiment) or "no")
    assert main(words, root) == 1
    assert started == ["other"]
    assert "small seed 0: finished before, kNN" in capsys.readouterr().err
    # An experiment that is another one today is not the one that was run.
    small = root / "experiments" / "small.py"
    small.write_text(small.read_text().replace("weight=0.02", "weight=0.03"))
    assert not runs.finished(runs.plan(root, folder, TABLE, ["small"], [0])[0], 50)

    # The record holds the run, and no path of this machine.
    assert main(["--record", f"--workdir={folder}"], root) == 0
    text = (root / TABLE.record).read_text()
    (row,) = json.loads(text)["rows"]
    assert (row["experiment"], row["steps"], row["cost_of_step"]) == ("small", [3], [16.0])
    assert row["own_encoder"] and row["own_data"] and not row["labels"]
    assert row["machines"] == ["a box"]
    assert {len(v) for kinds in row["evals"].values() for v in kinds.values()} == {1}
    assert str(tmp_path) not in text and "data/" not in text

    # Runs of another budget never come into this folder.
    assert main([*words[:2], "--budget=60"], root) == 2
    assert "--budget=50, expected comparison and 60; use a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        (["--experiments=smal"], "no 'smal'; did you mean 'small'?"),
        (["--experiments=small,plain"], "'plain' has no preset 'cifar10'"),
        (["--seeds=0,x"], "--seeds: found '0,x'"),
        (["--seeds=1,1"], "--seeds: found '1,1'"),
    ],
)
def test_bad_input_is_one_line_before_anything_runs(root, tmp_path, words, message, capsys):
    folder = tmp_path / "runs"
    assert main([f"--workdir={folder}", *words], root) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
    assert not folder.exists()
    assert main(words, root) == 2  # no folder to run in


def test_all_means_every_experiment_with_the_preset_seed_by_seed(root, tmp_path):
    planned = runs.plan(root, tmp_path, TABLE, [], [0, 1])
    found = [(run.experiment, run.seed) for run in planned]
    assert found == [("other", 0), ("small", 0), ("other", 1), ("small", 1)]


# ------------------------------------------------------------------ the record and what it shows


def leave(folder, name, seed, knn, status="finished", errors=None, **more):
    """A run as it is left behind."""
    facts = dict(experiment=name, seed=seed, table="comparison", budget=960.0)
    facts |= dict(cost_of_step=[64.0], steps=[15], own_data=False)
    facts |= dict(labels=False, own_encoder=False, machine="a box", recipe="r")
    facts |= dict(stages={"": {"a": 1}})
    workdir = folder / f"{name}-{seed}"
    workdir.mkdir(parents=True)
    write_json(one.facts_path(workdir), facts | more)
    write_json(workdir / "config.json", {"a": 1})
    evals = {
        "knn/accuracy": {"trained": knn, "random_init": 0.4 + 0.02 * seed, "raw_input": 0.33},
        "linear/accuracy": {"trained": 0.6, "random_init": 0.5, "raw_input": 0.45},
        "features/rankme": {"trained": 20.0, "random_init": 5.0, "raw_input": 7.0, "better": None},
    }
    if errors:
        evals["pretext/pixels"] = {"trained": errors[0], "constant": errors[1], "better": "lower"}
    reason = {"reason": "step 7: loss is nan"} if status == "failed" else {}
    write_summary(workdir, status=status, step=15, seconds=60.0, evals=evals, **reason)


def text_of(root):
    """All tables on record, as the page of the experiments shows them."""
    records = [render.read(root, name) for name in tables.TABLES]
    titles = {"small": "Small", "other": "Other"}
    return "\n".join(render.block(record, titles) for record in records if record)


def shown(root):
    """The rows of the table on record as lists of cells, without its head."""
    lines = [line for line in text_of(root).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_a_control_that_hides_nothing_has_no_prediction_error(root, tmp_path):
    folder = tmp_path / "runs"
    leave(folder, "small", 0, 0.5, errors=(0.2, 0.4))
    leave(folder, "other", 0, 0.5, errors=(0.0, 0.0))
    rows = {row["experiment"]: row for row in runs.collect(folder)["rows"]}
    assert rows["small"]["pretext"] == [0.5]
    assert rows["other"]["pretext"] == [None]


def test_a_run_of_stages_is_judged_by_its_last_over_the_time_of_all(tmp_path):
    parts = {"0-a": {"a": 1}, "1-b": {"b": 1}}
    leave(tmp_path, "small", 0, 0.5, stages=parts)
    workdir = tmp_path / "small-0"
    (workdir / "summary.json").unlink()
    for (part, config), knn, seconds in zip(parts.items(), (0.1, 0.7), (40.0, 20.0)):
        (workdir / part).mkdir()
        write_json(workdir / part / "config.json", config)
        with pytest.raises(ConfigError, match="no finished run"):
            runs.collect(tmp_path)
        evals = {
            name: {"trained": knn, "random_init": 0.4, "raw_input": 0.3}
            for name in runs.METRICS.values()
        }
        write_summary(workdir / part, status="finished", step=9, seconds=seconds, evals=evals)
    (row,) = runs.collect(tmp_path)["rows"]
    assert row["evals"]["knn"]["trained"] == [0.7] and row["seconds"] == [60.0]


def test_a_run_on_other_data_stands_beside_its_own_controls_alone(root, tmp_path):
    leave(tmp_path, "small", 0, 0.5)
    leave(tmp_path, "far", 2, 0.6, own_data=True)  # of its random init 0.44
    assert main(["--record", f"--workdir={tmp_path}"], root) == 0
    rows = {cells[0]: cells[1:] for cells in shown(root)}
    assert list(rows) == [
        "far ◇",
        "[Small](small.py)",
        "**random init**",
        "**raw pixels**",
    ]
    assert rows["**random init**"][0] == "40.0"
    assert "◇ judged on data of its own" in text_of(root)
    fashion = tables.load(experiments.FOLDER / "self_distilled_pretraining.py")
    assert tables.Table.has_own_data(fashion)
    assert not tables.Table.has_own_data(tables.load(experiments.FOLDER / "beit.py"))


def test_rows_are_sorted_and_marked_beside_the_controls(root, tmp_path):
    folder = tmp_path / "runs"
    for seed, knn in ((0, 0.52), (1, 0.56)):
        leave(folder, "small", seed, knn)
    leave(folder, "other", 0, 0.40)  # exactly its random init
    leave(folder, "wide", 0, 0.58, own_encoder=True)
    leave(folder, "supervised", 0, 0.70, labels=True)
    leave(folder, "broken", 0, 0.10, status="failed")
    leave(folder, "half", 0, 0.90, status="running")
    assert main(["--record", f"--workdir={folder}"], root) == 0
    rows = {cells[0]: cells[1:] for cells in shown(root)}
    assert list(rows) == [
        "supervised ‡",
        "wide †",
        "[Small](small.py)",
        "**random init**",
        "[Other](other.py) ▼",
        "**raw pixels**",
    ]
    small = ["54.0 ± 2.8", "60.0 ± 0.0", "20.0 ± 0.0", "15 × 64", "1 min 00 s", "2"]
    assert rows["[Small](small.py)"] == small
    assert rows["**random init**"] == ["41.0 ± 1.4", "50.0 ± 0.0", "5.0 ± 0.0", "", "", "2"]
    text = text_of(root)
    assert "- broken, seed 0: step 7: loss is nan" in text and "half" not in text
    assert "▼ kNN at or below random init of the same run; † an encoder of its own" in text
    assert "--workdir=runs/comparison --seeds=0,1 --budget=960`" in text and "on a box" in text


def test_what_is_predicted_is_shown_as_a_share_of_the_best_constant(root, tmp_path):
    of_vit = dict(table="comparison_vit", budget=7.0)
    leave(tmp_path, "small", 0, 0.5, errors=(0.3, 0.6), **of_vit)
    leave(tmp_path, "other", 0, 0.6, **of_vit)
    assert main(["--record", f"--workdir={tmp_path}"], root) == 0
    rows = {cells[0]: cells[1:] for cells in shown(root)}
    assert rows["[Small](small.py)"][3:5] == ["0.50", "15 × 64"]
    assert rows["[Other](other.py)"][3] == ""
    assert "7 GFLOP a run" in text_of(root)


def test_the_figure_has_a_bar_for_each_method_and_a_line_for_each_control(root, tmp_path):
    leave(tmp_path, "small", 0, 0.5)
    leave(tmp_path, "a&b", 0, 0.3)
    record = runs.collect(tmp_path)
    svg = ElementTree.fromstring(render.figure(record, {"small": "Small <one>"}))
    words = ["".join(text.itertext()) for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Small <one>", "a&b ▼", "50.0", "30.0"} <= set(words)
    assert "random init 40.0" in words and "raw pixels 33.0" in words
    small, lost = [
        bar for bar in svg.iter("{http://www.w3.org/2000/svg}rect") if bar.get("rx") == "2"
    ]
    assert float(small.get("width")) / float(lost.get("width")) == pytest.approx(5 / 3, rel=1e-3)
    assert small.get("fill") != lost.get("fill")


def test_a_record_grows_by_the_runs_of_other_folders(root, tmp_path):
    for folder, runs_left in (
        ("first", [("small", 1, 0.5), ("other", 0, 0.3)]),
        ("second", [("small", 0, 0.6), ("small", 2, 0.7), ("wide", 0, 0.4)]),
    ):
        for name, seed, knn in runs_left:
            leave(tmp_path / folder, name, seed, knn)
        assert main(["--record", f"--workdir={tmp_path / folder}"], root) == 0
    rows = {row["experiment"]: row for row in render.read(root, TABLE.name)["rows"]}
    assert list(rows) == ["other", "small", "wide"]
    assert rows["small"]["seeds"] == [0, 1, 2]
    assert rows["small"]["evals"]["knn"]["trained"] == [0.6, 0.5, 0.7]
    # The same seed again, and an experiment whose config is now another, replace what was there.
    leave(tmp_path / "third", "small", 1, 0.9)
    leave(tmp_path / "third", "wide", 3, 0.8, recipe="s")
    assert main(["--record", f"--workdir={tmp_path / 'third'}"], root) == 0
    rows = {row["experiment"]: row for row in render.read(root, TABLE.name)["rows"]}
    assert rows["small"]["evals"]["knn"]["trained"] == [0.6, 0.9, 0.7]
    assert rows["wide"]["seeds"] == [3]


def test_records_of_two_budgets_or_configs_do_not_mix(root, tmp_path, capsys):
    leave(tmp_path / "first", "small", 0, 0.5)
    assert main(["--record", f"--workdir={tmp_path / 'first'}"], root) == 0
    leave(tmp_path / "second", "small", 1, 0.5, budget=50.0)
    assert main(["--record", f"--workdir={tmp_path / 'second'}"], root) == 2
    leave(tmp_path / "third", "small", 0, 0.5)
    leave(tmp_path / "third", "small", 1, 0.5, recipe="s")
    assert main(["--record", f"--workdir={tmp_path / 'third'}"], root) == 2
    printed = capsys.readouterr().err.splitlines()
    assert "the record has --budget=960, the new runs 50" in printed[0]
    assert "found small with several configs" in printed[1] and len(printed) == 2


def test_a_run_on_record_is_not_made_again(root, tmp_path):
    run = runs.plan(root, tmp_path / "new", TABLE, ["small"], [0])[0]
    leave(tmp_path / "old", "small", 0, 0.5, recipe=runs.recipe(run))
    record = runs.collect(tmp_path / "old")
    assert runs.execute([run], TABLE, 960.0, record=record) == {}
    assert not run.workdir.exists()
    assert runs.recorded(run, 960.0, record)
    assert not runs.recorded(run._replace(seed=1), 960.0, record)
    assert not runs.recorded(run, 50.0, record)
    assert not runs.recorded(run, 960.0, {})


def test_what_is_no_comparison_is_refused(root, tmp_path, capsys):
    assert main(["--record", f"--workdir={tmp_path / 'nowhere'}"], root) == 2
    leave(tmp_path / "runs", "small", 0, 0.5)
    leave(tmp_path / "runs", "other", 0, 0.5, budget=50.0)
    assert main(["--record", f"--workdir={tmp_path / 'runs'}"], root) == 2
    # A folder with a run of an older config does not count as the run of today's.
    shutil.rmtree(tmp_path / "runs")
    leave(tmp_path / "runs", "small", 0, 0.5, stages={"": {"a": 2}})
    assert main(["--record", f"--workdir={tmp_path / 'runs'}"], root) == 2
    printed = capsys.readouterr().err.splitlines()
    assert "nowhere: no finished run" in printed[0]
    assert "found runs of budgets comparison 50, comparison 960; expected one" in printed[1]
    assert "runs: no finished run" in printed[2] and len(printed) == 3
    assert not (root / TABLE.record).exists()
