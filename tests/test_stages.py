"""Lists of stages: what the next one starts from; a kill in any of them changes nothing."""

import jax
import numpy as np
import pytest
import tiny

from jaxssl import config as configs
from jaxssl import stages, train
from jaxssl.errors import ConfigError
from jaxssl.naming import named_leaves
from jaxssl.program import Program

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
    check, seen = train._check_finite, []

    def killing(*arguments):
        seen.append(arguments)
        if len(seen) == 4 + 5:
            raise Killed
        check(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "_check_finite", killing)
        with pytest.raises(Killed):
            train.run(config, tmp_path / "cut")
    resumed = train.run(config, tmp_path / "cut")
    assert resumed["artifact"] == whole["artifact"]
    for stage in ("0-first", "1-second"):
        assert tiny.rows(tmp_path / "cut" / stage) == tiny.rows(tmp_path / "whole" / stage)
        assert tiny.summary(tmp_path / "cut" / stage)["status"] == "finished"


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


def test_hashes_of_content():
    a, b = {"x": np.zeros(3), "y": np.ones(2)}, {"y": np.ones(2), "x": np.zeros(3)}
    assert stages.content_hash(a) == stages.content_hash(b)
    assert stages.content_hash(a) != stages.content_hash({"x": np.zeros(3), "z": np.ones(2)})
    assert stages.content_hash(a) != stages.content_hash({"x": np.zeros(3), "y": np.full(2, 1.001)})
