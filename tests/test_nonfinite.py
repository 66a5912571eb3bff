"""Numbers that are not finite: caught at their step, named, and skipped, rewound or fatal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import toys

from jaxssl import main
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError, Diverged
from jaxssl.config.naming import named_leaves
from jaxssl.method import Aux
from jaxssl.program import Program
from jaxssl.run import rewinds, train
from jaxssl.watch import nonfinite

# The weighted term overflows float32 in the step after the eighth alone, or from it on.
ONE_BAD_STEP = {"losses.sigreg.weight": ("piecewise", 0.02, (8, 3e38), (9, 0.02))}
BAD_FOR_GOOD = {"losses.sigreg.weight": ("piecewise", 0.02, (8, 3e38))}
SKIP = {"nonfinite.action": "skip", "train.steps": 12, "evals.knn": None}
REWIND = {**SKIP, "nonfinite.action": "rewind"}


WITH_TEACHER = """
    config.teachers.ema = dict(rule="ema", follows=("encoder", "projector"), decay=0.9)
    config.losses.distance = dict(
        fn="byol", student="projection", teacher="ema/projection", pairs="cross"
    )
"""


class Killed(Exception):
    """Stands for a kill between two steps."""


def config(folder, *changes):
    return tiny.load(folder, **{k: v for change in changes for k, v in change.items()})


def infect(tree, name):
    """`tree` with one NaN in the leaf of that name."""
    leaf = named_leaves(tree)[name]
    bad = leaf.at[(0,) * leaf.ndim].set(jnp.nan)
    return jax.tree.map(lambda x: bad if x is leaf else x, tree)


# ------------------------------------------------------------------------------------- the guard


def on_data(context):
    return jnp.mean((context.batch["x"] @ context.params["net"]["w"]) ** 2), Aux(context.extra, {})


def infinite_slope(context):
    """1 + sqrt(0 w): a finite value whose gradient is none."""
    return 1.0 + jnp.sqrt(0.0 * context.params["net"]["w"][0] ** 2), Aux(context.extra, {})


@pytest.mark.parametrize(
    "loss, sample, named",
    [
        (on_data, jnp.nan, "data field 'x' of sample 3 is not finite"),
        (on_data, jnp.inf, "data field 'x' of sample 3 is not finite"),
        (infinite_slope, 0.0, "gradient_norm/net is nan"),
    ],
)
def test_a_step_that_is_not_finite_moves_nothing_but_the_counter(loss, sample, named):
    init = lambda key, batch: ({"net": {"w": jnp.ones(4)}}, {})
    encode = lambda params, seen, extra, batch: {"pooled": batch["x"]}
    method = toys.Method(init, {"main": loss}, {"student": encode})
    optimizers = {"main": toys.sgd()}
    start = toys.start(method, optimizers)
    batch = toys.batch()
    batch["x"] = batch["x"].at[3, 1].set(sample)
    state, metrics = jax.jit(toys.make_step(method, optimizers))(start, batch)
    np.testing.assert_array_equal(state.params["net"]["w"], np.ones(4))
    assert int(state.step) == 1
    bad = nonfinite.found({name: np.asarray(x) for name, x in metrics.items()})
    assert named in [*nonfinite.sources(state, batch), *bad]
    clean, metrics = jax.jit(toys.make_step(method, optimizers))(state, toys.batch(1))
    moved = not np.array_equal(clean.params["net"]["w"], np.ones(4))
    assert moved == (loss is on_data)


@pytest.mark.parametrize(
    "values, named",
    [
        (dict(loss=np.nan, gradient_norm=np.nan, a=1.0, b=np.inf), ["b is inf", "loss is nan"]),
        (dict(loss=np.inf, gradient_norm=1.0, a=1.0), ["loss is inf"]),
        (dict(loss=1.0, gradient_norm=np.nan), ["gradient_norm is nan", "loss is 1.0"]),
        (
            {
                "loss": 1.0,
                "gradient_norm": np.inf,
                "gradient_norm/a": 1.0,
                "gradient_norm/b": np.inf,
            },
            ["gradient_norm/b is inf", "gradient_norm is inf", "loss is 1.0"],
        ),
        (dict(loss=1.0, gradient_norm=1.0, other=np.nan), []),  # does not exist in this phase
    ],
)
def test_the_first_number_that_is_not_finite_is_named(values, named):
    assert nonfinite.found({k: np.float32(v) for k, v in values.items()}) == named


def test_a_teacher_or_a_network_that_is_not_finite_is_named(tmp_path, monkeypatch):
    path = tmp_path / "ema.py"
    path.write_text(tiny.FILE.replace("    return config", WITH_TEACHER + "    return config"))
    settings = configs.load(str(path), ["--config.train.steps=3"])
    init = Program.init
    for part in ("teachers", "params"):
        names = named_leaves(getattr(Program(settings).shapes, part))
        name = next(n for n in names if n.endswith("projector/linear0/kernel"))

        def bad_init(program, part=part, name=name):
            state = init(program)
            return state.replace(**{part: infect(getattr(state, part), name)})

        with monkeypatch.context() as patch:
            patch.setattr(Program, "init", bad_init)
            with pytest.raises(Diverged) as stopped:
                train.run(settings, tmp_path / part)
        line = str(stopped.value)
        assert line.startswith(f"step 1: {part}/{name} has 1 values of 128 that are not finite")
        assert "loss is nan" in line and line.endswith("no checkpoint was written")


# ----------------------------------------------------------------------------------------- skip


def test_a_skipped_step_is_as_if_it_had_not_been(tmp_path, monkeypatch):
    summary = train.run(config(tmp_path, SKIP, ONE_BAD_STEP), tmp_path / "whole")
    assert summary["status"] == "finished" and summary["skipped"] == [9]
    rows = tiny.rows(tmp_path / "whole")
    assert 9 not in rows and all(np.isfinite(row["train/loss"]) for row in rows.values())
    # Killed after it, and before it is read a second time.
    check, read = nonfinite.found, []

    def killing(values):
        read.append(values)
        if len(read) == 10:
            raise Killed
        return check(values)

    with monkeypatch.context() as patch:
        patch.setattr(nonfinite, "found", killing)
        with pytest.raises(Killed):
            train.run(config(tmp_path, SKIP, ONE_BAD_STEP), tmp_path / "cut")
    resumed = train.run(config(tmp_path, SKIP, ONE_BAD_STEP), tmp_path / "cut")
    assert resumed["skipped"] == [9] and resumed["artifact"] == summary["artifact"]
    assert tiny.rows(tmp_path / "cut") == rows


def test_no_more_steps_are_skipped_than_allowed(tmp_path):
    settings = config(tmp_path, SKIP, BAD_FOR_GOOD, {"nonfinite.limit": 2})
    with pytest.raises(Diverged) as stopped:
        train.run(settings, tmp_path / "work")
    line = str(stopped.value)
    assert line.startswith("step 11: sigreg is") or line.startswith("step 11: loss is")
    assert "2 steps were skipped before; last good checkpoint: step 10" in line
    summary = tiny.summary(tmp_path / "work")
    assert summary["status"] == "failed" and summary["skipped"] == [9, 10]


# --------------------------------------------------------------------------------------- rewind


def failing_once(at):
    """`nonfinite.found` that finds the `at`-th step's numbers bad, once."""
    check, read = nonfinite.found, []

    def found(values):
        read.append(values)
        return ["loss is nan"] if len(read) == at else check(values)

    return found


def test_a_run_goes_back_and_on_with_other_random_numbers(tmp_path, monkeypatch):
    settings = config(tmp_path, REWIND)
    plain = train.run(settings, tmp_path / "plain")
    with monkeypatch.context() as patch:
        patch.setattr(nonfinite, "found", failing_once(8))
        whole = train.run(settings, tmp_path / "whole")
    (entry,) = whole["rewinds"]
    assert (entry["cause"], entry["to_step"]) == ("nonfinite", 5)
    assert "step 8: loss is nan" in entry["reason"]
    before, after = tiny.rows(tmp_path / "plain"), tiny.rows(tmp_path / "whole")
    assert sorted(after) == sorted(before) == list(range(1, 13))
    assert all(after[step] == before[step] for step in range(1, 6))
    assert all(after[step]["train/loss"] != before[step]["train/loss"] for step in range(6, 12))
    assert whole["artifact"] != plain["artifact"]

    # Killed after it went back, it goes on with the same other numbers.
    once = failing_once(8)
    reads = []

    def killing(values):
        reads.append(values)
        if len(reads) == 10:  # the second step after
            raise Killed
        return once(values)

    with monkeypatch.context() as patch:
        patch.setattr(nonfinite, "found", killing)
        with pytest.raises(Killed):
            train.run(settings, tmp_path / "cut")
    resumed = train.run(settings, tmp_path / "cut")
    assert resumed["artifact"] == whole["artifact"] and resumed["rewinds"] == whole["rewinds"]
    assert tiny.rows(tmp_path / "cut") == after


def test_a_run_that_fails_again_and_again_stops(tmp_path, capsys):
    flags = [f"--config={tiny.write(tmp_path)}", f"--workdir={tmp_path / 'work'}"]
    changes = {**REWIND, **BAD_FOR_GOOD, "nonfinite.limit": 2}
    flags += [f"--config.{name}={value}" for name, value in changes.items()]
    assert main.main(flags) == 1
    err = capsys.readouterr().err
    assert err.count("back to step 5: step 9:") == 2
    assert "went back 2 times before; last good checkpoint: step 5" in err
    summary = tiny.summary(tmp_path / "work")
    assert summary["status"] == "failed"
    assert [entry["to_step"] for entry in summary["rewinds"]] == [5, 5]


def test_an_alarm_goes_back_to_before_its_first_sign(tmp_path):
    # A threshold that any features are below stands for a collapse.
    collapsed = {
        **{"alarms.every_steps": 2, "alarms.spread": 100.0, "alarms.samples": 60},
        **{"alarms.action": "rewind", "alarms.limit": 1, "checkpoint.keep": 9},
        **{"train.steps": 8, "evals.knn": None, "checkpoint.every_steps": 1},
    }
    with pytest.raises(Diverged, match="went back 1 times before"):
        train.run(config(tmp_path, collapsed), tmp_path / "work")
    (entry,) = tiny.summary(tmp_path / "work")["rewinds"]
    # The sign of step 2 is the first; at step 0, the reading before it, all was well.
    assert (entry["cause"], entry["from_step"], entry["to_step"]) == ("alarms", 4, 0)
    assert "complete collapse" in entry["reason"]


def test_attempts_are_counted_from_the_last_time_the_step_was_reached():
    back = lambda to: rewinds.Entry("nonfinite", 99, to, "")
    assert rewinds.attempt([], 0) == 0
    assert rewinds.attempt([back(10), back(20), back(20)], 20) == 2
    assert rewinds.attempt([back(20), back(10)], 20) == 0
    assert rewinds.attempt([back(20), back(10), back(20)], 20) == 1


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"nonfinite.action": "rewnd"}, "nonfinite.action: found 'rewnd' (did you mean 'rewind'?)"),
        ({"nonfinite.limit": -1}, "nonfinite.limit: -1; expected at least 0"),
        ({"checkpoint.on_failure": "panic"}, "checkpoint.on_failure: 'panic'"),
    ],
)
def test_bad_settings_are_one_line(tmp_path, changes, message):
    with pytest.raises(ConfigError) as error:
        configs.validate(config(tmp_path, changes))
    assert message.split(" (")[0] in str(error.value) and "\n" not in str(error.value)
