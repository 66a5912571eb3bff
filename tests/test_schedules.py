import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl.config import schedules
from jaxssl.config.errors import ConfigError


def values(spec, steps, at):
    schedule = schedules.make(spec, steps)
    return [float(schedule(step)) for step in at]


@pytest.mark.parametrize(
    ("spec", "at", "expected"),
    [
        (0.3, [0, 100], [0.3, 0.3]),
        (("constant", 2), [0, 7], [2, 2]),
        (("linear", 1.0, 0.0), [0, 25, 100, 150], [1, 0.75, 0, 0]),
        (["cosine", 0.996, 1.0], [0, 50, 100], [0.996, 0.998, 1.0]),
        (("cosine", 1.0, 0.0), [25], [0.5 * (1 + np.cos(np.pi / 4))]),
        (("exponential", 1.0, 0.01), [0, 50, 100], [1, 0.1, 0.01]),
        (("warmup_cosine", 1.0, 10, 0.2), [0, 4, 9, 10, 55, 100], [0.1, 0.5, 1, 1, 0.6, 0.2]),
        (("warmup_cosine", 1.0, 10), [100], [0]),
        (("warmup_cosine", 1.0, 0, 0.0), [0, 50], [1, 0.5]),
        (("warmup_cosine", 1.0, 200, 0.0), [99, 100], [0.5, 0.505]),
        (("warmup_linear", 2.0, 20, 0.0), [0, 19, 20, 60, 100], [0.1, 2, 2, 1, 0]),
        (("warmup_cap", 0.99), [0, 1, 2, 98, 99, 1000], [0, 0.5, 2 / 3, 1 - 1 / 99, 0.99, 0.99]),
        (("piecewise", 1.0, (30, 0.1), (60, 0.01)), [0, 29, 30, 59, 60], [1, 1, 0.1, 0.1, 0.01]),
    ],
)
def test_values(spec, at, expected):
    np.testing.assert_allclose(values(spec, 100, at), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.smoke
def test_infinite_phases():
    spec = ("infinite", 1e-3, 2.5e-4, 1e-5, 0.05, 0.3, 0.8)
    at = [0, 50, 175, 300, 500, 800, 900, 1000]
    expected = [0, 1e-3, 6.25e-4, 2.5e-4, 2.5e-4, 2.5e-4, 5e-5, 1e-5]
    np.testing.assert_allclose(values(spec, 1000, at), expected, rtol=1e-4)


def test_infinite_is_continuous():
    got = values(("infinite", 1e-3, 2.5e-4, 1e-5, 0.05, 0.3, 0.8), 1000, range(1001))
    assert np.abs(np.diff(got)).max() <= 1e-3 / 50 * 1.001  # the warm-up is the steepest phase


def test_infinite_of_a_later_task_has_no_warmup():
    spec = ("infinite", 2.5e-4, 2.5e-4, 1e-5, 0, 0, 0.8)
    np.testing.assert_allclose(values(spec, 100, [0, 1, 80, 100]), [2.5e-4] * 3 + [1e-5], rtol=1e-4)


def test_infinite_without_annealing_is_warmup_and_constant():
    spec = ("infinite", 1.0, 1.0, 0.1, 0.1, 0.1, 1.0)
    np.testing.assert_allclose(values(spec, 100, [5, 10, 60, 100]), [0.5, 1, 1, 1], rtol=1e-5)


@pytest.mark.parametrize("name", sorted(schedules.KINDS))
def test_traced_and_eager_agree_as_strong_float32_scalars(name):
    examples = {
        "constant": (0.5,),
        "piecewise": (1.0, (5, 0.1)),
        "warmup_cap": (0.9,),
        "infinite": (1.0, 0.5, 0.1, 0.1, 0.3, 0.8),
        "part": (10, 20, ("cosine", 1.0, 0.1)),
    }
    extra = (3, 0.1) if name.startswith("warmup_") else (0.1,)
    schedule = schedules.make((name, *examples.get(name, (1.0, *extra))), 10)
    for step in (0, 4, 9):
        traced = jax.jit(schedule)(jnp.int32(step))
        assert traced.dtype == jnp.float32 and traced.shape == () and not traced.weak_type
        np.testing.assert_allclose(traced, schedule(step), rtol=1e-6)


WHOLE_SPECS = [
    0.3,
    ("constant", 0.3),
    ("linear", 1.0, 0.0),
    ("cosine", 0.996, 1.0),
    ("exponential", 1.0, 0.01),
    ("warmup_cosine", 1.0, 25, 0.1),
    ["warmup_linear", 1.0, 25],
    ("warmup_cap", 0.95),
    ("piecewise", 1.0, (20, 0.1), (70, 0.01)),
    ("infinite", 1.0, 0.5, 0.1, 0.1, 0.3, 0.8),
    ("part", 50, 200, ("linear", 1.0, 0.0)),
]


@pytest.mark.parametrize("spec", WHOLE_SPECS, ids=str)
def test_stages_that_read_a_part_each_follow_the_schedule_of_the_whole_run(spec):
    whole = schedules.make(spec, 100)
    for first, steps in ((0, 20), (20, 50), (70, 30)):
        stage = schedules.make(("part", first, 100, spec), steps)
        at = [0, 1, steps // 2, steps - 1]
        expected = [float(whole(first + step)) for step in at]
        assert [float(stage(step)) for step in at] == expected
    # Past the end the whole run's last value holds, as for every schedule.
    assert float(stage(60)) == float(whole(130))


def test_a_part_is_a_spec_and_its_own_length_does_not_matter():
    spec = ("part", 40, 100, ("cosine", 1.0, 0.0))
    assert schedules.is_spec(spec)
    assert values(spec, 1, [10]) == values(spec, 10_000, [10])
    assert values(spec, 1, [10]) == pytest.approx([0.5])


def test_callable_passes_through():
    assert float(schedules.make(lambda step: step * 2, 10)(jnp.int32(3))) == 6


def test_half_life():
    for decay in (0.9, 0.996, 0.9995):
        assert decay ** schedules.half_life(decay) == pytest.approx(0.5)
    assert schedules.half_life(0) == 0
    assert schedules.half_life(1.0) == float("inf")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (("cosin", 1, 0), ["'cosin'", "'cosine'"]),
        (("cosine", 1.0), ["('cosine', start, end)"]),
        (("cosine", 1.0, 0.0, 0.0), ["('cosine', start, end)"]),
        (("cosine", "a", 0.0), ["with numbers"]),
        (("warmup_cosine", 1.0, 0.1, 0.0), ["warmup is 0.1", "whole number of steps"]),
        (("exponential", 1.0, 0.0), ["end is 0.0", "positive"]),
        (("piecewise", 1.0, (5, 0.1), (5, 0.2)), ["(5, 5)", "increasing"]),
        (("piecewise", 1.0, 5, 0.1), ["(step, value)"]),
        (("infinite", 1.0, 0.5, 0.1, 0.5, 0.3, 0.8), ["0.5, 0.3, 0.8"]),
        (("part", 100, 100, 0.1), ["first is 100", "below total, 100"]),
        (("part", -1, 100, 0.1), ["first is -1"]),
        (("part", 0.5, 100, 0.1), ["first is 0.5", "whole number of steps"]),
        (("part", 0, 100), ["('part', first, total, spec)"]),
        (("part", "a", 100, 0.1), ["with numbers"]),
        (("part", 0, 100, ("cosin", 1, 0)), ["spec has the unknown", "'cosine'"]),
        (("part", 0, 100, ("warmup_cosine", 1, 0.5)), ["warmup is 0.5"]),
        (("part", 0, 100, (0.1, 0.2)), ["spec is (0.1, 0.2)"]),
        ((0.1, 0.2), ["expected a finite number or (kind, value, ...)"]),
        ("cosine", ["'cosine'", "expected a finite number"]),
        (float("nan"), ["nan"]),
        (None, ["None"]),
        (True, ["True"]),
    ],
)
def test_errors_are_one_line_and_name_the_field(spec, words):
    with pytest.raises(ConfigError) as caught:
        schedules.make(spec, 100, field="optimizer.learning_rate")
    text = str(caught.value)
    assert text.startswith("optimizer.learning_rate") and "\n" not in text
    for word in words:
        assert word in text
