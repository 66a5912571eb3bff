import math

import numpy as np
import pytest
import tiny

from jaxssl import main
from jaxssl.bench import alarms as bench
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError
from jaxssl.evals.features import subset
from jaxssl.program import Program
from jaxssl.report.writers import read_metrics
from jaxssl.watch import alarms
from jaxssl.watch.alarms import readings
from jaxssl.watch.alarms.judge import KINDS, Alarm, Judge

TOTAL = 600
BASE = {"rankme": 41.0, "spread": 0.5, "nearest": 0.4}
SCORES = {"codes": 12.0, "contrast": 0.1}


def features(step, output="pooled", **values):
    return {"step": step} | {f"alarms/{output}/{name}": x for name, x in values.items()}


def training(step, loss=1.0, gradient_norm=1.0, **more):
    named = {"loss": loss, "gradient_norm": gradient_norm, **more}
    return {"step": step} | {f"train/{name}": x for name, x in named.items()}


def judged(rows, **settings):
    judge = Judge(alarms.DEFAULTS | settings, TOTAL)
    for row in rows:
        judge.add(row)
    return judge.alarms


def healthy(steps=TOTAL, loss=lambda s: 2.0 * math.exp(-s / 300), **drift):
    """A run whose features lose rank and spread as those of good runs do."""
    rows = [features(0, **BASE) | features(0, "scores", **SCORES)]
    for step in (1, *range(10, steps + 1, 10)):
        rows.append(training(step, loss(step), 1.0 / (1 + step / 20)))
        if step % 30 == 0:
            part = max(0.2, 1 - step / 300)
            now = {name: part * x for name, x in BASE.items()} | drift
            scores = {name: part * x for name, x in SCORES.items()}
            rows.append(features(step, **now) | features(step, "scores", **scores))
    return rows


def failing(output, loss=lambda s: 2.0, **values):
    """A run whose features are bad from step 60 on."""
    rows = [features(0, **BASE) | features(0, "scores", **SCORES)]
    for step in range(10, 151, 10):
        rows.append(training(step, loss(step)))
        if step % 30 == 0:
            now = (BASE if output == "pooled" else SCORES) | (values if step >= 60 else {})
            rows.append(features(step, output, **now))
    return rows


@pytest.mark.parametrize(
    "kind, output, values, threshold",
    [
        ("complete collapse", "pooled", dict(spread=0.04), 0.05),
        ("dimensional collapse", "pooled", dict(rankme=1.3), 4.1),
        ("cluster collapse", "pooled", dict(nearest=0.01), 0.02),
        ("dead prototypes", "scores", dict(codes=1.1), 1.5),
        ("dead prototypes", "scores", dict(contrast=0.009), 0.01),
    ],
)
def test_each_kind_is_raised_once_at_its_threshold(kind, output, values, threshold):
    (alarm,) = judged(failing(output, **values))
    (name,) = values
    assert (alarm.kind, alarm.metric) == (kind, f"alarms/{output}/{name}")
    assert (alarm.step, alarm.since, alarm.value) == (90, 60, values[name])
    assert alarm.threshold == pytest.approx(threshold)
    assert alarm.baseline == (BASE | SCORES)[name]
    # On the other side of the threshold there is none.
    assert not judged(failing(output, **{name: 1.01 * threshold}))


def test_the_line_has_the_evidence():
    (alarm,) = judged(failing("pooled", rankme=1.3, nearest=0.01))
    assert alarm.line() == (
        "step 90: cluster collapse: distance of the nearest 0.01 of pooled, 0.4 at random init; "
        "RankMe 1.3 of pooled, 41 at random init; since step 60"
    )
    assert alarm.record().keys() >= {"step", "kind", "metric", "value", "threshold", "baseline"}


def test_one_bad_reading_is_no_alarm():
    rows = failing("pooled", spread=0.01)
    once = [row for row in rows if row["step"] < 90]
    assert not judged(once)
    assert len(judged(once, patience=1)) == 1
    mended = [*once, features(90, **BASE), features(120, **BASE | {"spread": 0.01})]
    assert not judged(mended)


def test_a_graver_collapse_follows_and_a_lighter_one_does_not():
    rank = failing("pooled", rankme=1.3)
    worse = [features(s, **BASE | dict(rankme=1.3, spread=0.0)) for s in (180, 210, 240)]
    found = judged(rank + worse)
    assert [a.kind for a in found] == ["dimensional collapse", "complete collapse"]
    spread = failing("pooled", spread=0.0)
    lighter = [features(s, **BASE | dict(rankme=1.3)) for s in (180, 210, 240)]
    assert [a.kind for a in judged(spread + lighter)] == ["complete collapse"]


def test_prototypes_that_random_init_does_not_use_are_not_dead():
    rows = failing("scores", codes=1.0)
    rows[0] |= features(0, "scores", codes=2.0, contrast=0.1)
    assert not judged(rows)


def of_heads(**parts):
    """Rank and spread of two heads, as parts of random init's, from step 30 on."""
    rows = []
    for step in (0, 30, 60, 90):
        row = {"step": step}
        for head, (rank, spread) in parts.items():
            kept = (rank, spread) if step else (1.0, 1.0)
            row |= features(step, head, rankme=40.0 * kept[0], spread=0.5 * kept[1])
        rows.append(row)
    return rows


def test_heads_collapse_where_dimensions_and_spread_go_together_and_in_all_of_them():
    both = (0.17, 0.55)
    (alarm,) = judged(of_heads(projection=both, prediction=(0.1, 0.5)))
    assert (alarm.step, alarm.kind) == (60, "dimensional collapse")
    assert alarm.line() == (
        "step 60: dimensional collapse: RankMe 6.8 of projection, 40 at random init; "
        "spread 0.275 of projection, 0.5 at random init; since step 30"
    )
    # Good runs: fewer dimensions that spread, and a predictor that is behind its projector.
    assert not judged(of_heads(projection=(0.2, 1.0), prediction=(0.3, 0.9)))
    assert not judged(of_heads(projection=(0.45, 1.2), prediction=both))
    # Of the encoder's own features nothing is known by their product.
    assert not judged(of_heads(pooled=both))


def test_less_rank_counts_where_the_loss_is_at_its_optimum():
    """A prediction without a regulariser: the rank falls to a quarter, as it does in good runs."""
    falling = lambda s: 2.0 * math.exp(-s / 10)
    (alarm,) = judged(failing("pooled", falling, rankme=10.0))
    assert alarm.kind == "dimensional collapse" and alarm.threshold == pytest.approx(0.5 * 41)
    assert not judged(failing("pooled", rankme=10.0))


@pytest.mark.parametrize("size", [0.0, 1.0])
def test_a_student_that_copies(size):
    """Nothing hidden (a loss and gradient of zero), or a loss that falls to nothing at once."""
    rows = [features(0, **BASE), training(1, size, size)]
    for step in range(10, 121, 10):
        rows.append(training(step, 1e-3 * size, 1e-3 * size))
        if step % 30 == 0:
            rows.append(features(step, **{name: 1.05 * x for name, x in BASE.items()}))
    (alarm,) = judged(rows)
    assert (alarm.step, alarm.kind, alarm.metric) == (60, "copying", "train/loss")
    assert "features are still those of random init" in alarm.line()
    # Features that moved were learned, however low the loss.
    moved = [row | features(row["step"], **BASE | {"rankme": 30.0}) for row in rows[1:]]
    assert not judged(rows[:1] + moved)


def test_a_vanished_gradient_is_an_optimum_too():
    rows = [features(0, **BASE)]
    for step in (1, *range(10, 91, 10)):
        rows.append(training(step, -1.0, 1.0 if step < 20 else 1e-6))
        rows += [features(step, **BASE)] if step % 30 == 0 else []
    assert [a.metric for a in judged(rows)] == ["train/gradient_norm"]


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
def test_explosions_last(name):
    rows = [training(step) for step in range(10, 101, 10)]
    high = [training(step, **{name: 150.0}) for step in (110, 120, 130)]
    (alarm,) = judged(rows + high)
    assert alarm.kind == "exploding " + name.removesuffix("_norm")
    assert (alarm.step, alarm.since, alarm.threshold, alarm.baseline) == (130, 110, 100.0, 1.0)
    assert "150, 1 in the first tenth; since step 110" in alarm.line()
    assert not judged(rows + high[:2] + [training(130)] + high[2:])
    assert not judged(rows + [training(r["step"], **{name: 99.0}) for r in high])


def test_an_explosion_within_the_first_tenth_is_not_its_own_measure():
    rows = [training(step) for step in (1, 10, 20)]
    rows += [training(step, gradient_norm=1e4) for step in (30, 40, 50)]
    assert [(a.kind, a.step) for a in judged(rows)] == [("exploding gradient", 50)]


@pytest.mark.parametrize(
    "loss",
    [
        lambda s: 2.0 * math.exp(-s / 300),
        lambda s: -math.tanh(s / 100),  # a cosine
        lambda s: 5.5 + math.sin(s),  # a cross-entropy that learns nothing for now
        lambda s: math.nan if s % 20 else 1.0,  # of alternating phases
    ],
)
def test_a_healthy_run_raises_none(loss):
    assert not judged(healthy(loss=loss))


def test_a_fitted_loss_is_no_copy():
    """Labels can be learned to a loss of nearly zero."""
    assert not judged(healthy(loss=lambda s: 2.3 * math.exp(-s / 20), rankme=28.0))


def test_off_says_nothing():
    assert not judged(failing("pooled", spread=0.0), action="off")
    assert alarms.interval(alarms.DEFAULTS | {"action": "off", "every_steps": 5}, 600) == 0


# ------------------------------------------------------------------------------------- readings


def test_readings_know_their_collapses():
    draw = np.random.default_rng(0)
    whole = draw.normal(size=(256, 32)).astype(np.float32)
    base = readings.of_features(whole)
    assert base["spread"] > 0.99 and base["rankme"] > 28 and 0.5 < base["nearest"] < 1
    constant = readings.of_features(np.ones((256, 32), np.float32) + 1e-4 * whole)
    assert constant["spread"] < 1e-3 and constant["nearest"] == pytest.approx(base["nearest"], 1e-2)
    line = readings.of_features(np.outer(whole[:, 0], np.ones(32)).astype(np.float32))
    assert line["rankme"] == pytest.approx(1)
    few = readings.of_features(whole[draw.integers(0, 8, 256)] + 1e-4 * whole)
    assert few["nearest"] < 1e-3 and few["spread"] > 0.9
    for found in (readings.of_features(1e3 * whole), readings.of_features(1e-3 * whole)):
        assert found == pytest.approx(base, rel=1e-5)


def test_a_spread_is_one_less_the_mean_cosine():
    x = np.random.default_rng(0).normal(1.0, 1.0, (64, 8))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosine = np.square(x.mean(0)).sum()  # of all pairs, each with itself too
    assert readings.of_features(x)["spread"] == pytest.approx(math.sqrt(1 - cosine))


def test_readings_of_nothing_and_of_nan():
    assert set(readings.of_features(np.zeros((4, 3))).values()) == {0.0}
    assert all(map(math.isnan, readings.of_features(np.full((4, 3), np.nan)).values()))
    assert readings.of_scores(np.tile([0.0, 1.0, 0.0], (5, 1)))["codes"] == 1.0
    assert readings.of_scores(np.ones((5, 3)))["contrast"] == 0.0


# --------------------------------------------------------------------------------- in the config


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"alarms.action": "halt"}, "alarms.action: found 'halt'"),
        ({"alarms.action": "stp"}, "did you mean 'stop'"),
        ({"alarms.rank": 0.0}, "alarms.rank: found 0.0, expected a number above zero"),
        ({"alarms.rank": ("linear", 1.0, 0.0)}, "alarms.rank"),
        ({"alarms.samples": 2}, "alarms.samples: 2; expected at least 8"),
        ({"alarms.every_steps": -1}, "alarms.every_steps"),
    ],
)
def test_bad_settings_are_one_line(tmp_path, changes, message):
    with pytest.raises(ConfigError) as error:
        configs.validate(tiny.load(tmp_path, **changes))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_alarms_move_no_parameter(tmp_path):
    old, new = (
        configs.to_dict(tiny.load(tmp_path, **changes))
        for changes in ({}, {"alarms.action": "stop", "alarms.every_steps": 3})
    )
    assert not configs.differences(old, new)
    assert not configs.differences({k: v for k, v in old.items() if k != "alarms"}, new)


# ---------------------------------------------------------------------------------- in the loop

# A threshold that any features are below stands for a collapse.
COLLAPSED = (
    *("alarms.every_steps=2", "alarms.spread=100.0", "alarms.samples=60"),
    *("evals.knn=None", "train.steps=8"),
)


def arguments(folder, workdir, *overrides):
    flags = [f"--config={tiny.write(folder)}", f"--workdir={folder / workdir}"]
    return [*flags, *(f"--config.{text}" for text in overrides)]


def test_a_run_stops_goes_on_with_a_warning_and_remembers(tmp_path, capsys):
    stops = arguments(
        tmp_path, "work", *COLLAPSED, "alarms.action=stop", "checkpoint.every_steps=3"
    )
    assert main.main(stops) == 1
    err = capsys.readouterr().err
    summary = tiny.summary(tmp_path / "work")
    (alarm,) = summary["alarms"]
    assert (alarm["step"], alarm["kind"], alarm["since"]) == (4, "complete collapse", 2)
    assert alarm["value"] < alarm["threshold"] == pytest.approx(100 * alarm["baseline"])
    assert summary["status"] == "failed" and alarm["kind"] in summary["reason"]
    assert f"stopped: {summary['reason']}" in err
    # Told to warn, it comes from step 3 to the same verdict, and goes on to the end.
    assert main.main([*stops, "--config.alarms.action=warn"]) == 0
    assert capsys.readouterr().err.count(f"alarm: {summary['reason']}") == 1
    summary = tiny.summary(tmp_path / "work")
    assert summary["status"] == "finished" and summary["alarms"] == [alarm]
    rows = read_metrics(tmp_path / "work" / "metrics.jsonl")
    read = [row["step"] for row in rows if any(name.startswith("alarms/") for name in row)]
    assert read == list(range(0, 8, 2))
    # All of it is in the rows.
    later = Judge(alarms.DEFAULTS | {"spread": 100.0}, 8)
    later.catch_up(tmp_path / "work", 8)
    assert [a.record() for a in later.alarms] == [alarm]


def test_a_healthy_run_has_none(tmp_path):
    read = ("alarms.every_steps=2", "alarms.samples=60", "alarms.patience=1")
    flags = arguments(tmp_path, "work", "train.steps=6", "evals.knn=None", *read)
    assert main.main(flags) == 0
    assert tiny.summary(tmp_path / "work")["alarms"] == []


def test_short_runs_are_read_only_where_they_say_so():
    assert alarms.interval(alarms.DEFAULTS, alarms.SHORTEST - 1) == 0
    assert 0 < alarms.interval(alarms.DEFAULTS, alarms.SHORTEST) <= alarms.SHORTEST / 10


def test_the_gravest_kinds_come_first():
    assert KINDS.index("complete collapse") < KINDS.index("dimensional collapse")
    alarm = Alarm(3, "copying", "train/loss", 0.0, 0.0, 0.0, 3)
    assert alarm.line().startswith("step 3: copying: loss 0, 0 first; and the features are still")


def test_a_reader_measures_every_vector_of_the_same_samples(tmp_path):
    config = tiny.load(tmp_path)
    with config.unlocked():
        config.student.prototypes = dict(
            name="prototypes", count=4, reads="projection", output="scores"
        )
    program = Program(config)

    def encode(context):
        batch = context.batch
        x = batch["image"].reshape(len(batch["image"]), -1).astype(np.float32)
        return {"pooled": x, "scores": x[:, 20:24], "tokens": x[:, None], "kept": x > 1}

    program.method = program.method._replace(readouts={"student": encode})
    reader = readings.Reader(program, "student", 60)  # padded to 64 on eight devices
    state = program.shapes.replace(params={}, teachers={}, extra={}, optimizer={}, key=0, step=0)
    found = reader(state)
    source = program.source
    rows = source.rows(subset(len(source), 60))["image"].reshape(60, -1).astype(np.float32)
    wanted = features(0, **readings.of_features(rows))
    wanted |= features(0, "scores", **readings.of_scores(rows[:, 20:24]))
    wanted.pop("step")
    assert found == pytest.approx(wanted, rel=1e-5)
    assert reader(state) == found


# --------------------------------------------------------------------------------- in the bench


def test_every_provoked_failure_can_be_built():
    failures = {name: case for name, case in bench.CASES.items() if case.changes}
    assert len(failures) == 6 and len(bench.CASES) == 16
    for name, case in failures.items():
        config = bench.load(case, 60)
        assert (config.train.steps, config.alarms.every_steps) == (60, 3), name
        assert Program(config).info.steps == 60, name
    healthy_run = bench.load(bench.CASES["lejepa"])
    assert healthy_run.alarms.every_steps == 0 and healthy_run.train.steps == 600


def test_the_bench_says_what_it_expected():
    alarm = dict(step=119, kind="copying", metric="train/loss", value=0.0, baseline=1.0)
    late = alarm | {"step": 120}
    found = [
        bench.Found(600, True, alarm, "failed"),
        bench.Found(600, True, late, "failed"),
        bench.Found(600, True, None, "finished"),
        bench.Found(600, False, None, "finished"),
        bench.Found(600, False, alarm, "failed"),
        bench.Found(600, False, None, "failed"),  # not finite: no alarm, and not healthy either
    ]
    assert [f.met for f in found] == [True, False, False, True, False, False]
    assert found[3].text() == "no alarm in 600 steps, finished; expected none: met"


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--only=bjol", "--only: no case 'bjol'; did you mean 'byol'?"),
        ("--steps=few", "--steps: found 'few', expected a whole number"),
        ("--stops=3", "did you mean '--steps'"),
        ("--config.train.steps=3", "unknown argument"),
    ],
)
def test_bad_input_of_the_bench_is_one_line(argument, message, capsys):
    assert bench.main([argument]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
