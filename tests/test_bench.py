import json

import jax
import jax.numpy as jnp
import pytest

import experiments
from jaxssl.bench import __main__ as bench
from jaxssl.bench import growth, loop, microbatches, sigreg
from jaxssl.bench.measure import Measure, in_turn, ratios, relative_gap
from jaxssl.bench.workload import Workload
from jaxssl.config.errors import ConfigError

CONFIG = f"--config={experiments.FOLDER / 'lejepa.py'}:digits"
TINY = [
    "--config.encoder.widths=(8,)",
    "--config.encoder.strides=(1,)",
    "--config.student.projector.widths=(8, 4)",
    "--config.losses.sigreg.num_slices=8",
    "--config.train.global_batch=32",
    "--config.views.global.count=2",
    *(f"--config.views.global.{name}=None" for name in ("affine", "elastic", "jitter", "blur")),
]


def test_the_median_and_the_quartiles_ignore_one_bad_repeat():
    record = Measure("x", (1.0, 2.0, 3.0, 4.0, 1000.0)).record()
    assert record == {"median": 3.0, "low": 2.0, "high": 4.0, "repeats": 5}


@pytest.mark.parametrize("sign, met, missed", [(">=", 2.0, 1.9), ("<=", 2.0, 2.1), ("<", 1.9, 2.0)])
def test_a_goal_is_on_the_median(sign, met, missed):
    assert Measure("x", (met, met, 50.0, -50.0), goal=(sign, 2.0)).record()["met"] is True
    found = Measure("x", (missed,), goal=(sign, 2.0))
    assert found.record()["met"] is False and found.record()["goal"] == f"{sign} 2"
    assert "missed" in found.text()


def test_sides_take_turns_and_the_first_round_is_not_counted():
    order = []

    def side(name, times):
        left = iter(times)
        return lambda: order.append(name) or next(left)

    found = in_turn({"a": side("a", (9.0, 1.0, 2.0)), "b": side("b", (8.0, 3.0, 4.0))}, 2)
    assert found == {"a": [1.0, 2.0], "b": [3.0, 4.0]}
    assert order == ["a", "b", "a", "b", "b", "a"]


def test_ratios_are_within_a_repeat():
    assert ratios([2.0, 30.0], [1.0, 10.0]) == [2.0, 3.0]
    with pytest.raises(ValueError):
        ratios([1.0], [])


def test_the_relative_gap_is_the_worst_leaf_over_the_largest_entry():
    assert relative_gap({"a": 1.0, "b": 9.0}, {"a": 2.0, "b": 10.0}) == pytest.approx(0.1)


def test_written_rates_add_up_to_the_time_whatever_is_between_them():
    rate = "perf/examples_per_second"
    rows = [
        {"step": 1, "train/loss": 2.0},
        {"step": 10, "train/loss": 2.0, rate: 18.0},
        {"step": 10, "eval/knn/accuracy": 0.5},
        {"step": 12, "train/loss": 2.0, rate: 4.0},
    ]
    assert loop.written_seconds(rows, batch=4) == 9 * 4 / 18 + 2 * 4 / 4


def test_sigreg_is_compared_with_an_equal():
    found = {m.name: m for m in sigreg.run(None, 1, sizes=(64, 8, 16, 5))}
    assert found["value relative gap"].median < 1e-5
    assert found["gradient relative gap"].median < 1e-4
    assert found["plain over fast"].goal == (">=", 3.0)
    assert found["fast temporary bytes"].goal == ("<=", 3 * 64 * 16 * 4)


def test_a_workload_keeps_the_method_and_cuts_the_rest():
    config = experiments.load("lejepa")
    cut = Workload(config, steps=7).config
    assert (cut.train.steps, cut.evals.knn, cut.checkpoint.every_steps) == (7, None, 0)
    for section in ("encoder", "student", "losses", "views", "data"):
        assert cut[section] == config[section]


def test_batch_norms_give_way_to_norms_of_one_sample():
    config = microbatches.without_batch_norm(experiments.load("lejepa"))
    assert (config.encoder.norm, config.student.projector.norm) == ("group", "layer")
    assert microbatches.without_batch_norm(config) == config


def test_every_benchmark_writes_its_fields(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "benchmarks", lambda: ["input", "loop", "profile", "step", "views"])
    path = tmp_path / "results.json"
    flags = ["--steps=3", "--repeats=2", f"--json={path}"]
    assert bench.main([CONFIG, *TINY, *flags]) == 0
    results = json.loads(path.read_text())
    assert {"platform", "device", "cores", "jax"} <= results["machine"].keys()
    fields = {
        "loop": ("loop over bare", "loop steps/s", "bare steps/s"),
        "views": ("views over step, in time", "views/s"),
        "input": ("batches/s", "host waits for data, part of the time"),
        "step": ("FLOP/s", "FLOPs a step", "compile seconds"),
        "profile": (
            *("steps/s", "examples/s", "input alone, batches/s", "views alone, batches/s"),
            *("forward alone, batches/s", "host waits for the device, part of the time"),
            *("model FLOP/s", "temporary bytes a device", "largest resident bytes of the process"),
        ),
    }
    assert results["benchmarks"].keys() == fields.keys()
    for name, wanted in fields.items():
        for field in wanted:
            assert results["benchmarks"][name][field]["median"] > 0
    found = results["benchmarks"]["profile"]
    assert found["examples/s"]["median"] == 32 * found["steps/s"]["median"]
    assert found["device waits for the host, part of the time"]["median"] < 1
    assert results["benchmarks"]["loop"]["loop over bare"]["repeats"] == 2
    assert results["benchmarks"]["loop"]["loop over bare"]["goal"] == ">= 0.97"
    shown = capsys.readouterr().out
    assert "loop over bare" in shown and "platform" in shown


def test_microbatches_take_less_memory_for_the_same_gradient():
    config = experiments.load("lejepa", "digits", *TINY)
    found = {m.name: m.median for m in microbatches.run(Workload(config, 2), 1)}
    assert found["temporary bytes over those of one"] < 1
    assert found["loss relative gap"] < 1e-5
    assert found["gradient relative gap"] < 1e-5


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["lop"], "no benchmark 'lop'; did you mean 'loop'?"),
        (["loop", "--repeats=none"], "--repeats: found 'none', expected a whole number >= 1"),
        (["loop", "--steps=1"], "--steps: found '1', expected a whole number >= 2"),
        (["loop", "--repeat=2"], "--repeat=2: unknown argument"),
        (["loop", "--config=experiments/none.py"], "no such file"),
        (["--against=torch,lightli"], "no peer 'lightli'; did you mean 'lightly'?"),
        (["--against=torch", "--peer-python=/nowhere/python"], "--peer-python: no program at"),
    ],
)
def test_bad_input_is_one_line_and_code_2(arguments, message, capsys):
    assert bench.main([CONFIG, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_all_benchmarks_are_found_by_name():
    found = bench.benchmarks()
    assert {"evals", "input", "loop", "masking", "profile", "step", "views"} <= set(found)
    assert bench.parse([])[0] == found
    with pytest.raises(ConfigError):
        bench.parse(["measure"])


def test_peers_are_timed_alone_unless_benchmarks_are_named_too():
    names, flags, _ = bench.parse(["--against=torch,lightly"])
    assert (names, flags["against"]) == ([], ["torch", "lightly"])
    assert bench.parse(["loop", "--against=torch"])[0] == ["loop"]


def test_growth_sees_a_cubic_cost():
    cube = lambda x: jnp.sum(x[:, None, None] * x[:, None] * x)
    found = {n: growth.cost(cube, jax.ShapeDtypeStruct((n,), jnp.float32)) for n in (32, 64)}
    assert growth.exponent({n: c.work for n, c in found.items()}) > 2.9
    assert found[32].largest == 32**3
    turns = lambda x: jax.lax.fori_loop(0, 10, lambda _, y: jnp.exp(y), x)
    assert growth.cost(turns, jnp.ones(100)).work == pytest.approx(1000, rel=0.1)
    product = growth.cost(lambda a, b: a @ b, jnp.ones((2, 3)), jnp.ones((3, 5)))
    assert product == growth.Cost(2 * 2 * 3 * 5, 10)


def test_no_loss_of_a_batch_is_cubic():
    for measure in growth.run(None, 1):
        assert measure.met is not False, measure.text()
