import types

import ml_collections
import numpy as np
import pytest

from jaxssl import evals
from jaxssl.config.errors import ConfigError
from jaxssl.evals import protocol
from jaxssl.evals.features import Features


def test_the_id_names_all_settings_and_nothing_else():
    assert protocol.protocol_id("knn", {}).startswith("knn-")
    assert protocol.protocol_id("fewshot", {"shots": [1, 5]}) == protocol.protocol_id("fewshot", {})
    assert protocol.protocol_id("linear", {"c": 1}) == protocol.protocol_id("linear", {})
    assert protocol.protocol_id("linear", {"c": 2.0}) != protocol.protocol_id("linear", {})


@pytest.mark.parametrize(
    "config, message",
    [
        ({"kn": {}}, "evals.kn: found 'kn', expected an evaluator; did you mean 'knn'?"),
        ({"logistic": {}}, "evals.logistic: found 'logistic', expected an evaluator"),
        ({"knn": {"temprature": 0.1}}, "did you mean 'temperature'?"),
        ({"knn": {"k": 0}}, "evals.knn.k: found 0, expected a whole number of at least 1"),
        ({"knn": {"k": True}}, "evals.knn.k: found True"),
        ({"linear": {"c": "big"}}, "evals.linear.c: found 'big', expected a number above zero"),
        ({"fewshot": {"shots": ()}}, "evals.fewshot.shots: found ()"),
        ({"bank": -1}, "evals.bank: found -1"),
        ({"bach_size": 3}, "evals.bach_size: unknown field; did you mean 'batch_size'?"),
        ({"batch_size": 0}, "evals.batch_size: found 0"),
    ],
)
def test_a_bad_config_is_one_clear_line(config, message):
    with pytest.raises(ConfigError) as error:
        evals.validate(ml_collections.ConfigDict(config))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_only_nested_mappings_that_are_on_are_evaluators():
    config = ml_collections.ConfigDict({"every_steps": 5, "bank": 0, "knn": {"k": 3}})
    config.linear = None
    evals.validate(config)
    assert list(evals.settings(config)) == ["knn"]


def _bank(x, y):
    return Features(np.asarray(x, np.float32), np.asarray(y, np.int32), np.arange(len(y)))


def _subject(train, test, num_classes=2):
    return types.SimpleNamespace(train=train, test=test, num_classes=num_classes)


def test_run_reports_every_metric_for_every_feature_set():
    rng = np.random.default_rng(0)
    y = np.arange(12) % 2
    apart = rng.normal(size=(12, 4)) * 0.1 + np.where(y[:, None], 1.0, -1.0)
    swapped = _bank(apart, 1 - y)
    subjects = {
        "trained": _subject(_bank(apart, y), _bank(apart, y)),
        "raw_input": _subject(_bank(apart, y), swapped),
    }
    config = {"every_steps": 1, "knn": {"k": 3}, "linear": None}
    assert evals.run(config, subjects) == {"knn/accuracy": {"trained": 1.0, "raw_input": 0.0}}


def test_run_refuses_labels_and_features_that_mean_nothing():
    x = np.ones((4, 2))
    unlabelled = _bank(x, [-1, -1, -1, -1])
    with pytest.raises(ConfigError, match="found labels -1"):
        evals.run({"knn": {}}, {"trained": _subject(unlabelled, unlabelled, 0)})
    broken = _bank(x * np.nan, [0, 1, 0, 1])
    with pytest.raises(FloatingPointError, match="trained features"):
        evals.run({"knn": {}}, {"trained": _subject(broken, broken)})


def test_an_evaluator_of_images_is_refused_for_other_kinds():
    module = protocol.evaluator("corruptions")
    protocol.check_kind("corruptions", module, "image")
    protocol.check_kind("knn", protocol.evaluator("knn"), "audio")
    with pytest.raises(ConfigError) as error:
        protocol.check_kind("corruptions", module, "audio")
    assert str(error.value) == "evals.corruptions: is for data of kind 'image', found 'audio'"
