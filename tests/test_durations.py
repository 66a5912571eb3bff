import pytest
from ml_collections import ConfigDict

from jaxssl.config import durations
from jaxssl.config.errors import ConfigError


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({"steps": 70}, 70),
        ({"steps": None, "epochs": 2, "examples": 0}, 14),  # 7 whole batches in an epoch
        ({"epochs": 0.5}, 4),
        ({"epochs": 0.001}, 1),
        ({"examples": 1000}, 7),
        ({"examples": 5}, 1),
    ],
)
def test_resolve(train, expected):
    assert durations.resolve(ConfigDict(train), num_samples=1000, global_batch=128) == expected


def test_an_epoch_of_less_than_a_batch_is_one_step():
    assert durations.resolve({"epochs": 3}, num_samples=10, global_batch=128) == 3


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"steps": 10, "epochs": 2}, ["train.steps=10 and train.epochs=2", "exactly one"]),
        ({"steps": 0, "epochs": None}, ["none given", "train.examples"]),
        ({"steps": -3}, ["-3"]),
        ({"steps": 1.5}, ["1.5", "whole number"]),
        ({"epochs": "ten"}, ["'ten'"]),
    ],
)
def test_resolve_errors(train, words):
    with pytest.raises(ConfigError) as caught:
        durations.resolve(train, num_samples=1000, global_batch=128)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("every", "expected"),
    [(0, 0), (25, 25), ({"epochs": 1}, 7), ({"percent": 10}, 20), ({"percent": 0.01}, 1)],
)
def test_to_steps(every, expected):
    for form in (every, ConfigDict(every) if isinstance(every, dict) else every):
        got = durations.to_steps(form, num_samples=1000, global_batch=128, steps=200)
        assert got == expected


@pytest.mark.parametrize(
    ("every", "words"),
    [
        ({"epoch": 1}, ["'epoch'", "'epochs'"]),
        ({"epochs": 1, "steps": 2}, ["expected steps or one of"]),
        ({"percent": 10}, ["percent", "expected steps, epochs, examples"]),
        ("often", ["'often'"]),
        (True, ["True"]),
    ],
)
def test_to_steps_errors(every, words):
    with pytest.raises(ConfigError) as caught:
        durations.to_steps(every, num_samples=1000, global_batch=128, field="evals.every")
    assert str(caught.value).startswith("evals.every")
    for word in words:
        assert word in str(caught.value)
