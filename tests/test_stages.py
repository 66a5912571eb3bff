"""Lists of stages: what the next one starts from; a kill in any of them changes nothing."""

import image_views
import jax
import numpy as np
import pytest
import tiny

from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import content_hash, named_leaves
from jaxssl.program import Program
from jaxssl.report.writers import read_json, read_metrics
from jaxssl.run import loop, runs, stages, train
from jaxssl.step import make_step
from jaxssl.watch import nonfinite

# A teacher from the first stage's params guides the second.
FILE = tiny.FILE.replace(
    "    return config",
    """
    config.teachers.old = dict(rule="frozen", source="artifact", artifact="first")
    config.losses.distil = dict(
        fn="view_mean_prediction", student="projection", teacher="old/projection", pairs="all"
    )
    config.stages = (
        dict(name="first", changes={"teachers.old": None, "losses.distil": None}),
        dict(
            name="second",
            init_from="first",
            take=("params/encoder",),
            changes={"train.seed": 1, "train.steps": 6, "losses.sigreg.weight": 0.0},
        ),
    )
    config.train.steps = 4
    config.checkpoint.every_steps = 2
    config.evals.knn = None
    return config""",
)


@pytest.fixture
def config(tmp_path):
    (tmp_path / "staged.py").write_text(FILE)
    return configs.load(str(tmp_path / "staged.py"))


def params(state, top="params"):
    return {name: np.asarray(leaf) for name, leaf in named_leaves(getattr(state, top)).items()}


def test_the_second_stage_starts_from_what_the_first_left(config, tmp_path):
    first, second = stages.resolve(config, tmp_path / "work")
    assert (first.folder.name, second.folder.name) == ("0-first", "1-second")
    assert (first.config.train.steps, second.config.train.steps) == (4, 6)
    assert "old" not in first.config.teachers and "distil" not in first.config.losses
    assert (first.config.train.seed, second.config.train.seed) == (0, 1)

    left = {"first": stages.artifact(train.run_stage(first, {}, last=False).state)}
    program = Program(second.config, left)
    fresh, state = program.init(), stages.started(program.init(), second, left)
    old = {n: np.asarray(leaf) for n, leaf in named_leaves(left["first"]["params"]).items()}
    for name, leaf in params(state).items():
        taken = name.startswith("encoder/")
        np.testing.assert_array_equal(leaf, old[name] if taken else params(fresh)[name])
    assert int(state.step) == 0
    moments = named_leaves(state.optimizer)
    assert not any(np.any(leaf) for leaf in moments.values())
    # The frozen teacher is the first stage's last network, and stays so.
    for _ in range(2):
        for name, leaf in params(state, "teachers").items():
            np.testing.assert_array_equal(leaf, old[name.removeprefix("old/")])
        # Its buffers are its own: the state is donated, what is left of the first stage is not.
        state, metrics = program.step(state, next(program.batches(0)))
    assert float(metrics["distil"]) > 0
    assert np.isfinite(jax.tree.leaves(left["first"]["params"])[0]).all()


class Killed(Exception):
    """Stands for a kill between two steps."""


def test_killed_in_the_second_stage_is_never_killed(config, tmp_path, monkeypatch):
    whole = train.run(config, tmp_path / "whole")
    check, seen = nonfinite.found, []

    def killing(values):
        seen.append(values)
        if len(seen) == 4 + 5:
            raise Killed
        return check(values)

    with monkeypatch.context() as patch:
        patch.setattr(nonfinite, "found", killing)
        with pytest.raises(Killed):
            train.run(config, tmp_path / "cut")
    resumed = train.run(config, tmp_path / "cut")
    assert resumed["artifact"] == whole["artifact"]
    for stage in ("0-first", "1-second"):
        assert tiny.rows(tmp_path / "cut" / stage) == tiny.rows(tmp_path / "whole" / stage)
        assert tiny.summary(tmp_path / "cut" / stage)["status"] == "finished"
    assert read_json(tmp_path / "cut" / "stages.json") == read_json(tmp_path / "whole/stages.json")
    # What a stage was begun from is part of what it is.
    for fields in (dict(take=("params",)), dict(init_from="", take=())):
        with pytest.raises(ConfigError, match=r"1-second: holds a stage with \w+ .*new folder"):
            train.run(with_second(config, **fields), tmp_path / "cut")


def with_second(config, **fields):
    """The config with other fields of the second stage."""
    first, second = (dict(stage) for stage in config.stages)
    return configs.merged(config, {"stages": (first, second | fields)})


@pytest.mark.parametrize(
    "fields, line",
    [
        (dict(nam="x"), r"stages\[1\]\.nam: unknown field; did you mean 'name'"),
        (dict(name="first"), r"stages\[1\]\.name: found 'first'.*not yet used"),
        (dict(name="a/b"), r"stages\[1\]\.name: found 'a/b'"),
        (dict(init_from="frist"), r"stages\[1\]\.init_from.*did you mean 'first'"),
        (dict(take="params"), r"stages\[1\]\.take: found 'params', expected a tuple"),
        (dict(take=("parms",)), r"stages\[1\]\.take.*did you mean 'params'"),
        (dict(changes=3), r"stages\[1\]\.changes: found 3"),
        (dict(changes={"train.stepz": 1}), r"stages\[1\]\.changes: .*did you mean 'train.steps'"),
        (dict(changes={"train.steps": 0, "train.epochs": 1.0, "train.examples": 9}), "exactly one"),
        (dict(init_from="", changes={"train.steps": 0}), "none given, expected exactly one"),
        (dict(changes={"train.global_batch": 0}), r"stages\[1\]\.changes: train.global_batch: 0"),
        # What only the networks can tell: before the first stage is trained.
        (dict(take=("params/encodr",)), "no 'encodr'; did you mean 'encoder'"),
        (dict(changes={"encoder.widths": (4,)}), r"conv0/kernel is \(\(3, 3, 4, 8\)"),
        (dict(changes={"teachers.old.artifact": "frist"}), "did you mean 'first'"),
        (dict(changes={"losses.distil.fn": "none"}), "losses.distil.fn"),
    ],
)
def test_a_faulty_stage_is_refused_before_the_first_is_trained(config, tmp_path, fields, line):
    with pytest.raises(ConfigError, match=line) as caught:
        train.run(with_second(config, **fields), tmp_path / "work")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "work").exists()


def test_a_run_without_stages_has_a_length(tmp_path):
    with pytest.raises(ConfigError, match=r"^none given, expected exactly one of train\.steps"):
        train.run(tiny.load(tmp_path, **{"train.steps": 0}), tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_no_steps_beside_epochs_of_the_run_are_refused(config, tmp_path):
    config = configs.merged(config, {"train.steps": 0, "train.epochs": 2.0})
    first, second = (dict(stage) for stage in config.stages)
    second["changes"] = {"train.steps": 0}
    config = configs.merged(config, {"stages": (first, second)})
    with pytest.raises(
        ConfigError, match=r"stages\[1\]\.changes: train\.steps is 0, but train\.ep"
    ):
        stages.resolve(config, tmp_path)


# Two tasks on one schedule: each task is deployed annealed, and the next one goes on from before.
TASKS = tiny.FILE.replace(
    "    return config",
    """
    config.data.update(source="npz", path="FOLDER/task1.npz", size=0)
    del config.losses.sigreg
    config.train.update(global_batch=8)
    config.evals.knn = None
    config.evals.update(bank=0, test=0, batch_size=8, calibration_batches=0)
    task1 = ("infinite", 1e-2, 5e-3, 1e-4, 0.2, 0.4, 0.6)
    task2 = ("infinite", 5e-3, 5e-3, 1e-4, 0, 0, 0.6)
    rate = "optimizer.learning_rate"
    whole = ("params", "optimizer", "teachers", "extra")
    second = {"data.path": "FOLDER/task2.npz"}
    knn = {"evals.knn": protocol.resolve("knn", {"k": 5})}
    hold = lambda spec: {rate: ("part", 0, 5, spec), "train.steps": 3}
    anneal = lambda spec: {rate: ("part", 3, 5, spec), "train.steps": 2}
    config.stages = (
        dict(name="constant1", changes=hold(task1)),
        dict(name="anneal1", init_from="constant1", take=whole, changes=anneal(task1)),
        dict(name="constant2", init_from="constant1", take=whole, changes=second | hold(task2)),
        dict(name="anneal2", init_from="constant2", take=whole, changes=second | anneal(task2)),
        dict(name="forget", init_from="anneal2", changes=knn | {"train.steps": 0}),
    )
    return config""",
).replace(
    "from jaxssl.config import recipes",
    "from jaxssl.config import recipes\nfrom jaxssl.evals import protocol",
)


def write_task(path, seed):
    rng = np.random.default_rng(seed)
    arrays = {}
    for split in ("train", "test"):
        y = np.arange(16) % 2
        x = rng.integers(0, 100, (16, 8, 8)) + 120 * y[:, None, None]
        arrays |= {f"x_{split}": x.astype(np.uint8), f"y_{split}": y}
    np.savez(path, **arrays)


def on_host(tree):
    return {name: np.array(leaf) for name, leaf in named_leaves(tree).items()}


def test_tasks_in_turn_then_an_evaluation_of_the_first(tmp_path, monkeypatch):
    for seed in (1, 2):
        write_task(tmp_path / f"task{seed}.npz", seed)
    (tmp_path / "tasks.py").write_text(TASKS.replace("FOLDER", str(tmp_path)))
    config, work = configs.load(str(tmp_path / "tasks.py")), tmp_path / "work"
    started, begun, left = stages.started, {}, {}

    def recording(state, stage, artifacts):
        state = started(state, stage, artifacts)
        begun[stage.name] = on_host(stages.artifact(state))
        left.update({name: on_host(tree) for name, tree in artifacts.items()})
        return state

    def killed(*arguments, **fields):
        raise Killed

    monkeypatch.setattr(stages, "started", recording)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop.report, "write", killed)  # at the end of the last stage
        train.run(config, work)

    # Every part of the state comes from the named stage, not from the one before.
    for stage, source in dict(
        anneal1="constant1", constant2="constant1", anneal2="constant2", forget="anneal2"
    ).items():
        assert begun[stage].keys() == left[source].keys()
        for name, leaf in begun[stage].items():
            if stage == "forget" and name.startswith("optimizer/"):
                continue  # nothing trains, and nothing was said of what to take
            np.testing.assert_array_equal(leaf, left[source][name], err_msg=f"{stage}: {name}")
    kernel = "params/encoder/conv0/kernel"
    assert np.any(begun["constant2"][kernel] != left["anneal1"][kernel])
    moments = [name for name in begun["constant2"] if name.startswith("optimizer/")]
    assert any(np.any(begun["constant2"][name]) for name in moments)

    # The last one trained nothing; repeated after the kill, it says the same.
    before = tiny.summary(work / "4-forget")
    summary = train.run(config, work)
    assert (summary["status"], summary["step"]) == ("finished", 0)
    assert summary["evals"] == before["evals"] and summary["evals"]["knn/accuracy"]["trained"] > 0.5
    assert summary["artifact"] == before["artifact"]
    assert summary["artifact"] == tiny.summary(work / "3-anneal2")["artifact"]
    assert (work / "4-forget" / "report.html").exists()
    kept = runs.load(work, stage="forget").state  # it can be read back like any other
    assert int(kept.step) == 0
    np.testing.assert_array_equal(on_host(kept.params)[kernel[7:]], left["anneal2"][kernel])
    row = read_metrics(work / "4-forget" / "metrics.jsonl")[-1]
    assert row["step"] == 0 and "eval/knn/accuracy" in row

    index = read_json(work / "stages.json")
    assert [row["name"] for row in index] == [entry["name"] for entry in config.stages]
    assert [row["init_from"] for row in index] == [
        "",
        "constant1",
        "constant1",
        "constant2",
        "anneal2",
    ]
    assert index[0]["take"] == [] and index[1]["take"] == list(config.stages[1]["take"])
    assert index[4]["take"] == ["params", "teachers", "extra"]
    for row in index:
        own = tiny.summary(work / row["folder"])
        assert row["status"] == "finished"
        assert (row["artifact"], row["evals"]) == (own["artifact"], own["evals"])


@pytest.mark.parametrize("follows", [(), ("encoder",)])
def test_a_teacher_from_an_earlier_stage_has_its_batch_statistics(config, tmp_path, follows):
    output = "projection" if not follows else "pooled"
    second = {
        "teachers.old.follows": follows,
        "teachers.old.mode": "eval",
        "losses.distil.student": output,
        "losses.distil.teacher": f"old/{output}",
        "train.seed": 1,
    }
    config = with_second(config, init_from="", take=(), changes=second)
    first, second = stages.resolve(config, tmp_path / "work")
    left = {"first": stages.artifact(train.run_stage(first, {}, last=False).state)}
    program = Program(second.config, left)
    state = stages.started(program.init(), second, left)
    networks = set(follows or ("encoder", "projector"))
    assert set(state.teachers["old"]) == networks

    theirs = on_host(left["first"]["extra"]["batch_stats"]["student"])
    fresh = on_host(program.init().extra["batch_stats"]["student"])
    for _ in range(2):  # the second time after a step: it never moves
        statistics = on_host(state.extra["batch_stats"]["old"])
        assert any(np.any(statistics[name] != fresh[name]) for name in fresh)
        for name, leaf in statistics.items():
            expected = theirs if name.split("/")[0] in networks else fresh
            np.testing.assert_array_equal(leaf, expected[name])
        for name, leaf in on_host(state.teachers["old"]).items():
            np.testing.assert_array_equal(leaf, named_leaves(left["first"]["params"])[name])
        if state.step == 0:  # the student is a new network with statistics of its own
            np.testing.assert_equal(on_host(state.extra["batch_stats"]["student"]), fresh)
            np.testing.assert_equal(on_host(state.params), on_host(program.init().params))
            state, _ = program.step(state, next(program.batches(0)))


def test_a_teacher_without_the_statistics_that_it_needs_is_refused(config, tmp_path):
    first, second = (dict(stage) for stage in config.stages)
    first["changes"] = {**first["changes"], "student.projector.norm": "none"}
    config = configs.merged(config, {"stages": (first, second)})
    with pytest.raises(ConfigError, match=r"^teachers\.old\.artifact: no 'projector'"):
        train.run(config, tmp_path / "work")


@pytest.mark.parametrize("posemb", ["learned", "sincos2d"])
def test_stages_of_other_resolutions_take_everything(tmp_path, posemb):
    whole = dict(init_from="first", take=stages.TAKEN)
    config = tiny.load(tmp_path)
    encoder = dict(name="vit", width=16, depth=1, heads=2, patch=4, image_size=8, posemb=posemb)
    changes = (
        {"views.global.low_frequency": dict(size=4)},
        {"views.global.size": 16},
        {"views.global.size": 16, "views.global.low_frequency": dict(size=12)},
    )
    with config.unlocked():
        config.encoder = encoder
        config.teachers.average = dict(rule="ema")
        config.evals.knn = None
        entries = [dict(name=f"s{i}", changes=each, **whole) for i, each in enumerate(changes)]
        config.stages = (dict(name="first"), *entries)
    plan, shapes = stages.resolve(config, tmp_path / "work"), {}
    for stage in plan:
        program = Program(stage.config, shapes)
        stages.check_start(program.shapes, stage, shapes)
        with jax.set_mesh(program.mesh):
            step = make_step(program.method, program.optimizers)
            after, _ = jax.eval_shape(step, program.shapes, program.abstract_batch())
        shapes[stage.name] = stages.artifact(after)
        assert jax.tree.map(lambda x: x.shape, shapes[stage.name]) == jax.tree.map(
            lambda x: x.shape, shapes["first"]
        )
    # The grid that positions are learned on is another matter: it is the network's own.
    if posemb == "learned":
        other = plan[1]._replace(config=configs.merged(plan[1].config, {"encoder.image_size": 16}))
        with pytest.raises(ConfigError, match="position_embedding is"):
            stages.check_start(Program(other.config, shapes).shapes, other, shapes)


def test_stages_may_see_weaker_or_smaller_views(tmp_path):
    config = tiny.load(tmp_path)
    with config.unlocked():
        config.views["global"] = dict(count=1, size=8, jitter=dict(brightness=0.4))
        config.stages = (
            dict(name="plain", changes={"views.global.jitter.brightness": 0.0}),
            dict(name="weak", changes={"views.global.jitter.brightness": 0.1}),
            dict(name="strong"),
            dict(name="small", changes={"views.global.low_frequency": dict(size=4)}),
        )
    pixels = np.random.default_rng(0).integers(0, 128, (64, 8, 8, 1)).astype(np.uint8)
    batch = {"image": pixels, "index": np.arange(64)}
    seen = {}
    for stage in stages.resolve(config, tmp_path):
        make = jax.jit(image_views.build(stage.config.views, mean=0.0, std=1.0))
        seen[stage.name] = np.asarray(make(jax.random.key(0), batch)["global"][:, 0])
    np.testing.assert_allclose(seen["plain"], pixels / 255, atol=1e-6)
    # The same draws, a quarter as strong.
    factor = {name: x.mean((1, 2, 3)) / (pixels / 255).mean((1, 2, 3)) for name, x in seen.items()}
    np.testing.assert_allclose(4 * (factor["weak"] - 1), factor["strong"] - 1, atol=1e-3)
    assert 0.3 < np.abs(factor["strong"] - 1).max() <= 0.4 + 1e-5
    assert seen["small"].shape == (64, 4, 4, 1)


def test_hashes_of_content():
    a, b = {"x": np.zeros(3), "y": np.ones(2)}, {"y": np.ones(2), "x": np.zeros(3)}
    assert content_hash(a) == content_hash(b)
    assert content_hash(a) != content_hash({"x": np.zeros(3), "z": np.ones(2)})
    assert content_hash(a) != content_hash({"x": np.zeros(3), "y": np.full(2, 1.001)})
