"""Configs: what the command line may say, and what makes two runs the same."""

import pytest
import tiny
from ml_collections import ConfigDict

import experiments
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError
from jaxssl.config.skeleton import skeleton


@pytest.fixture
def load(tmp_path):
    spec = tiny.write(tmp_path)
    return lambda *overrides: configs.load(f"{spec}:digits", [f"--config.{o}" for o in overrides])


def test_the_skeleton_is_closed_and_complete():
    empty = skeleton()
    assert empty.is_locked
    with pytest.raises(AttributeError, match="locked"):
        empty.trian = 1
    with pytest.raises(AttributeError, match="locked"):
        empty.train.stepz = 1
    with pytest.raises(ConfigError, match="method: empty"):
        configs.validate(empty)


@pytest.mark.parametrize(
    "name, preset", [(n, p) for n in experiments.NAMES for p in experiments.presets(n)]
)
def test_every_preset_is_valid_and_locked(name, preset):
    config = experiments.load(name, preset)
    configs.validate(config)
    assert config.is_locked and config.preset == preset


@pytest.mark.parametrize(
    "text, key, value",
    [
        ("train.steps=7", "train.steps", 7),
        ("train.epochs=2", "train.epochs", 2.0),  # epochs may be fractions
        ("train.epochs=0.5", "train.epochs", 0.5),
        ("optimizer.weight_decay=1", "optimizer.weight_decay", 1.0),
        ("optimizer.learning_rate=3e-4", "optimizer.learning_rate", 3e-4),
        (
            "optimizer.learning_rate=('warmup_cosine', 1e-3, 5, 0.0)",
            "optimizer.learning_rate",
            ("warmup_cosine", 1e-3, 5, 0.0),
        ),
        ("losses.sigreg.weight=('linear', 0, 1)", "losses.sigreg.weight", ("linear", 0, 1)),
        ("encoder.widths=(4, 4)", "encoder.widths", (4, 4)),
        ("encoder.norm=group", "encoder.norm", "group"),
        ("data.path=/a/b=c", "data.path", "/a/b=c"),
        ("optimizer.nesterov=true", "optimizer.nesterov", True),
        ("optimizer.nesterov=False", "optimizer.nesterov", False),
        ("evals.knn=None", "evals.knn", None),
        ("mesh.rules=(('.*', 'replicate'),)", "mesh.rules", ((".*", "replicate"),)),
        # Fields that a family knows and the config does not hold yet.
        ("method_options.drop_path=0.1", "method_options.drop_path", 0.1),
        ("encoder.stem_kernel=3", "encoder.stem_kernel", 3),
        ("views.global.flip=0.5", "views.global.flip", 0.5),
    ],
)
def test_the_command_line_sets(load, text, key, value):
    node = load(text)
    for name in key.split("."):
        node = node[name]
    assert node == value and type(node) is type(value)


@pytest.mark.parametrize("entry", ["losses.prediction", "views.global", "student.projector"])
def test_none_drops_a_named_entry(load, entry):
    section, name = entry.split(".")
    assert name in load()[section]
    assert name not in load(f"{entry}=None")[section]


def test_overrides_are_read_in_order(load):
    assert load("train.steps=1", "train.steps=2").train.steps == 2


@pytest.mark.parametrize(
    "text, problem",
    [
        ("train.steps=2.0", "expected int"),
        ("train.steps=('linear', 1, 2)", "expected int"),
        ("optimizer.learning_rate=True", "a number or a schedule"),
        ("encoder.widths=[4]", "expected tuple"),
        ("data.path=3", "expected str"),
        ("optimizer.nesterov=1", "expected bool"),
        ("losses.mine.fn=sigreg", "unknown key 'losses.mine'"),
        ("train.more.steps=3", "unknown key 'train.more'"),
        ("train.steps.more=3", "unknown key 'train.steps.more'"),
        ("losses=None", "expected a section"),
        ("=3", "unknown key"),
    ],
)
def test_the_command_line_refuses(load, text, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        load(text)
    assert "\n" not in str(caught.value)


def test_merged_copies(load):
    old = load()
    new = configs.merged(old, {"train.steps": 3, "encoder.widths": (4,)})
    assert (new.train.steps, new.encoder.widths, new.is_locked) == (3, (4,), True)
    assert (old.train.steps, old.encoder.widths) == (20, (8,))
    with pytest.raises(ConfigError, match=r"did you mean 'train\.steps'"):
        configs.merged(old, {"train.step": 3})
    more = configs.merged(old, {"losses.mine": dict(fn="sigreg")})
    assert more.losses.mine.fn == "sigreg" and "mine" not in old.losses


def test_a_config_of_an_older_version_reads_back(load):
    now = configs.to_dict(load()) | {"method": "composed"}
    now["stages"] = [{"name": "a", "changes": {"method": "composed", "train.steps": 3}}]
    for old in ("joint_embedding", "masked_prediction"):
        stage = {"name": "a", "changes": {"method": old, "train.steps": 3}}
        before = now | {"method": old, "stages": [stage]}
        assert configs.differences(before, now) == []
        assert configs.from_dict(before) == configs.from_dict(now)


def test_differences_name_what_moves_a_parameter(load):
    as_read = lambda *overrides: configs.to_dict(load(*overrides))
    base = as_read()
    assert configs.differences(base, as_read()) == []
    free = ("mesh.fsdp=2", "evals.knn.k=3", "checkpoint.keep=9", "report.samples=1", "data.path=x")
    assert configs.differences(base, as_read(*free)) == []
    assert configs.differences(base, as_read("train.seed=1")) == ["train.seed: 0 -> 1"]
    assert configs.differences(base, as_read("losses.sigreg=None"))
    assert configs.differences(base, as_read("encoder.widths=(8, 8)")) == [
        "encoder.widths: [8] -> [8, 8]"
    ]


def test_json_holds_all_of_it(load):
    config = load()
    plain = configs.to_dict(config)
    assert plain["losses"]["sigreg"]["num_slices"] == 8
    assert configs.differences(plain, configs.to_dict(ConfigDict(config))) == []


def test_a_config_comes_back_from_its_file(load):
    config = load("optimizer.learning_rate=('cosine', 0.1, 0.0)")
    tree = configs.to_dict(config)
    again = configs.from_dict(tree)
    assert configs.to_dict(again) == tree and again.is_locked
    assert again.optimizer.learning_rate == ("cosine", 0.1, 0.0)  # a tuple, as in the file
    # Of a version that knew less: fields have their defaults, evaluators are off.
    del tree["evals"]["pretext"], tree["evals"]["size"], tree["data"]["ranges"], tree["alarms"]
    older = configs.from_dict(tree, ["--config.evals.knn.k=3"])
    assert older.evals.pretext is None and older.evals.size == 0 and older.evals.knn.k == 3
    assert older.data.ranges == () and older.alarms == skeleton().alarms
    tree["train"]["stepz"] = 3
    with pytest.raises(ConfigError, match=r"train\.stepz: unknown key; did you mean"):
        configs.from_dict(tree)
