"""A method's own classifier on held-out samples: the numbers, the control, one line of error."""

import numpy as np
import pytest
import tiny
from scipy.special import softmax
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss

from jaxssl import data
from jaxssl.config.errors import ConfigError
from jaxssl.evals import protocol
from jaxssl.program import Program
from jaxssl.run.evaluator import Evaluator

CLASSIFIER = dict(name="classifier", width="num_classes", reads="pooled", output="logits")
LOSS = dict(
    fn="label_smoothing_cross_entropy",
    student="logits",
    pairs="single",
    labels=dict(batch="label"),
)


def _program(folder, **changes):
    """A classifier of digits, beside its projector."""
    config = tiny.load(folder)
    with config.unlocked():
        config.student.classifier = dict(CLASSIFIER)
        config.losses.classes = dict(LOSS)
        config.evals.knn = config.evals.pretext = None
        config.evals.accuracy = dict(changes)
    return Program(config)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """(program, evaluator, trained state, its results)."""
    program = _program(tmp_path_factory.mktemp("run"))
    evaluator, state = Evaluator(program), program.init()
    for _, batch in zip(range(60), program.batches(0)):
        state, _ = program.step(state, batch)
    return program, evaluator, state, evaluator(state)


def test_held_out_samples_are_judged_by_the_trained_head_and_by_the_untrained_one(judged):
    _, _, _, results = judged
    names = {f"accuracy/{name}" for name in ("top1", "balanced", "ece", "nll")}
    assert names == {name for name in results if name.startswith("accuracy/")}
    for name in names:
        assert {"trained", "random_init"} <= results[name].keys()
        assert "raw_input" not in results[name]  # which has no head
    assert results["accuracy/top1"]["trained"] > 0.3
    assert results["accuracy/top1"]["random_init"] < 0.25
    assert results["accuracy/nll"]["trained"] < results["accuracy/nll"]["random_init"]
    assert {n for n in names if results[n].get("better") == "lower"} == {
        "accuracy/ece",
        "accuracy/nll",
    }


def test_the_numbers_are_those_of_scikit_learn_on_the_logits_of_the_held_out_samples(judged):
    program, evaluator, state, results = judged
    test = data.load(program.config.data, "test")
    subject = evaluator.subject("trained", state)
    rows = subject.features(test, limit=program.config.evals.test, output="logits")
    assert rows.x.shape == (64, 10)
    np.testing.assert_array_equal(rows.y, test.rows(rows.index)["label"])
    said, likely = rows.x.argmax(1), softmax(rows.x.astype(np.float64), axis=1)
    of = lambda name: results[f"accuracy/{name}"]["trained"]
    assert of("top1") == pytest.approx(accuracy_score(rows.y, said))
    assert of("balanced") == pytest.approx(balanced_accuracy_score(rows.y, said))
    assert of("nll") == pytest.approx(log_loss(rows.y, likely, labels=range(10)))


def test_an_output_that_is_no_classifier_is_one_line_before_anything_is_compiled(tmp_path):
    with pytest.raises(ConfigError) as error:
        Evaluator(_program(tmp_path, output="logit"))
    assert str(error.value) == (
        "evals.accuracy.output: the encoder gives no 'logit'; did you mean 'logits'?"
    )
    with pytest.raises(ConfigError, match=r"'pooled' of shape \[32, 8\], expected \[B, 10\]"):
        Evaluator(_program(tmp_path, output="pooled"))
    config = tiny.load(tmp_path)  # a run without a classifier
    with config.unlocked():
        config.evals.accuracy = {}
    with pytest.raises(ConfigError, match=r"the encoder gives no 'logits'; known: .*pooled"):
        Evaluator(Program(config))


def test_a_run_without_labels_is_not_judged(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (64, 8, 8, 1)).astype(np.uint8)
    np.savez(tmp_path / "bare.npz", x_train=images, x_test=images)
    config = tiny.load(tmp_path, **{"data.source": "npz", "data.path": str(tmp_path)})
    with config.unlocked():
        config.evals.knn, config.evals.accuracy = None, {}
    assert not Evaluator(Program(config)).active


def test_labels_of_other_classes_are_one_line(judged):
    _, evaluator, state, _ = judged
    subject = evaluator.subject("trained", state)
    rows = subject.features(subject.test_source, limit=64, output="logits")
    rows.y[3] = 10
    subject.outputs = lambda *args, **more: rows
    with pytest.raises(ConfigError, match=r"found labels 0 \.\.\. 10 in .*, expected 0 \.\.\. 9"):
        protocol.evaluator("accuracy").examine(subject)
    rows.y[3], rows.x[5, 2] = 0, np.nan
    with pytest.raises(FloatingPointError, match="trained logits are not all finite"):
        protocol.evaluator("accuracy").examine(subject)
