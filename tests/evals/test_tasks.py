"""What a method's own head says, judged: the numbers, the controls, one line of error."""

import types

import jax
import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict
from sklearn.metrics import f1_score, jaccard_score, ndcg_score

from jaxssl.config.errors import ConfigError
from jaxssl.data.source import Arrays
from jaxssl.evals import protocol
from jaxssl.evals.features import Features
from jaxssl.method import Field, Info
from jaxssl.report.writers import read_metrics
from jaxssl.run import train

N = 12
RNG = np.random.default_rng(0)
VOCABULARY = ("", " ", "a", "b", "c")
FIELDS = {
    "mask": (Field("mask", (4, 4), "int32"), RNG.integers(-1, 3, (N, 4, 4)).astype(np.int32)),
    "target": (Field("target", (2,), "float32"), RNG.normal(size=(N, 2)).astype(np.float32)),
    "series": (Field("series", (9, 2), "float32"), RNG.normal(size=(N, 9, 2)).astype(np.float32)),
    "future": (Field("series", (3, 2), "float32"), RNG.normal(size=(N, 3, 2)).astype(np.float32)),
    "tokens": (
        Field("tokens", (4,), "int32", {"vocabulary": VOCABULARY}),
        np.tile(np.int32([2, 3, 1, 4]), (N, 1)),
    ),
    "tokens_length": (Field("target", (), "int32"), np.int32([4, 3, 2] * 4)),
}
SOURCE = Arrays("all kinds test", FIELDS)
INFO = Info(SOURCE.fields, N, 0, 10, 1, 4)


def judge(name, said, state=True, **fields):
    """The metrics of an evaluator, of a head that says what it is given."""
    evaluator = protocol.evaluator(name)
    shapes = {key: jax.ShapeDtypeStruct((4, *x.shape[1:]), "float32") for key, x in said.items()}
    evaluator.check_outputs(shapes, INFO, **fields)
    index = np.arange(N)[::-1]  # features come in any order, with the positions of their samples
    subject = types.SimpleNamespace(
        kind="trained",
        state=types.SimpleNamespace(step=7) if state else None,
        program=types.SimpleNamespace(config=ConfigDict({"evals": {"test": 0}})),
        test_source=SOURCE,
        features=lambda source, limit: Features(np.zeros((N, 1)), index, index),
        outputs=lambda source, output, limit: Features(said[output][index], index, index),
    )
    return evaluator.examine(subject, **fields)


def test_pixels_are_judged_over_the_whole_set_without_those_of_no_class():
    scores = RNG.normal(size=(N, 4, 4, 3))
    found = judge("segmentation", {"maps": scores})
    meant = FIELDS["mask"][1]
    kept = meant >= 0
    a, b = meant[kept], scores.argmax(-1)[kept]
    assert found["mean_iou"] == pytest.approx(jaccard_score(a, b, average="macro"))
    assert found["dice"] == pytest.approx(f1_score(a, b, average="macro"))
    assert found["pixel_accuracy"] == pytest.approx((a == b).mean())
    assert judge("segmentation", {"maps": scores}, state=False) == {}


def test_numbers_are_judged_as_the_field_has_them():
    meant = FIELDS["target"][1]
    found = judge("regression", {"prediction": 2 * meant + 1})
    assert found["mse"] == pytest.approx(np.square(meant + 1).mean(), rel=1e-6)
    assert found["pearson"] == pytest.approx(1) and found["spearman"] == pytest.approx(1)
    assert found["r2"] < 0 < found["mae"]
    with pytest.raises(FloatingPointError, match="the trained prediction are not all finite"):
        judge("regression", {"prediction": np.full((N, 2), np.nan)})


def test_forecasts_stand_beside_the_last_season_again():
    past, future = FIELDS["series"][1], FIELDS["future"][1]
    said = {"forecast": future + 0.5}
    found = judge("forecasting", said)
    assert found["mae"] == pytest.approx(0.5, rel=1e-5)
    scale = np.abs(np.diff(past, axis=1)).mean(1)
    assert found["mase"] == pytest.approx((0.5 / scale).mean(), rel=1e-5)
    naive = judge("forecasting", said, state=False, season=2)
    assert naive["mae"] == pytest.approx(np.abs(past[:, [7, 8, 7]] - future).mean(), rel=1e-5)


def test_transcripts_are_judged_by_token_and_by_word():
    path = [2, 2, 0, 3, 1, 4]  # "ab c"
    scores = np.tile(np.eye(5)[path], (N, 1, 1))
    found = judge("ctc", {"frames": scores}, space=" ")
    # Of "ab c", "ab " and "ab", the last with two tokens too many, or with one.
    assert found["token_error_rate"] == pytest.approx((0 + 1 + 2) / (4 + 3 + 2))
    assert found["word_error_rate"] == pytest.approx((0 + 1 + 1) / (2 + 1 + 1))


def test_the_item_of_the_same_sample_is_what_a_query_looks_for():
    query = RNG.normal(size=(N, 5))
    item = query + RNG.normal(size=(N, 5))
    found = judge("matching", {"a": query, "b": item}, query="a", item="b", k=(1, 3))
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    scores = unit(query) @ unit(item).T
    places = (scores > np.diag(scores)[:, None]).sum(1) + 1
    assert found["recall_at_1"] == pytest.approx((places == 1).mean())
    assert found["recall_at_3"] == pytest.approx((places <= 3).mean())
    assert found["mean_reciprocal_rank"] == pytest.approx((1 / places).mean())
    assert found["ndcg_at_3"] == pytest.approx(ndcg_score(np.eye(N), scores, k=3))


@pytest.mark.parametrize(
    "name, shape, fields, line",
    [
        ("segmentation", (4, 5, 3), {}, r"segmentation\.output: .*expected \[B, 4, 4, K\]"),
        ("segmentation", (4, 4, 3), {"of": "target"}, r"of: 'target' is of kind 'target', exp"),
        ("regression", (3,), {}, r"regression\.output: found 'x' of shape \[4, 3\], exp.*\[B, 2\]"),
        ("regression", (2,), {"of": "tarket"}, r"no field 'tarket'; did you mean 'target'"),
        ("forecasting", (2, 2), {}, r"forecasting\.output: .*expected \[B, 3, 2\]"),
        ("ctc", (6, 4), {}, r"ctc\.output: found 'x' of shape \[4, 6, 4\], expected \[B, T, 5\]"),
        ("ctc", (6, 5), {"space": "_"}, r"ctc\.space: found '_', expected a word of the vocab"),
    ],
)
def test_what_does_not_fit_is_one_line_before_anything_runs(name, shape, fields, line):
    with pytest.raises(ConfigError, match=line) as error:
        judge(name, {"x": np.zeros((N, *shape))}, output="x", **fields)
    assert "\n" not in str(error.value)


def test_two_outputs_of_unlike_widths_do_not_match():
    with pytest.raises(ConfigError, match=r"'a' of shape \[4, 3\] and 'b' of shape \[4, 2\]"):
        judge("matching", {"a": np.zeros((N, 3)), "b": np.zeros((N, 2))}, query="a", item="b")


@pytest.fixture(scope="module")
def in_tasks(tmp_path_factory):
    """A classifier of digits that learns two classes after another: (its config, the rows)."""
    folder = tmp_path_factory.mktemp("tasks")
    config = tiny.load(folder)
    with config.unlocked():
        config.student.classifier = dict(
            name="classifier", width="num_classes", reads="pooled", output="logits"
        )
        config.losses = dict(
            classes=dict(
                fn="label_smoothing_cross_entropy",
                student="logits",
                pairs="single",
                labels=dict(batch="label"),
            )
        )
        del config.student.projector
        config.evals.knn = config.evals.pretext = None
        config.evals.continual = {}
        config.evals.every_steps = 40
        config.data.tasks = dict(count=2, steps=40, replay=0.0)
        config.train.steps = 80
        config.checkpoint.every_steps = 80
    train.run(config, folder / "run")
    return config, [r for r in read_metrics(folder / "run" / "metrics.jsonl") if "eval" in str(r)]


def test_the_rows_of_a_run_are_the_matrix_of_accuracies(in_tasks):
    _, rows = in_tasks
    first, last = ({k.split("/")[-1]: v for k, v in row.items()} for row in rows)
    assert {k for k in first if k.startswith("task_")} == {"task_0"}
    assert first["task_0"] > 0.4 and last["task_1"] > 0.4  # five classes each
    assert last["average"] == pytest.approx((last["task_0"] + last["task_1"]) / 2)
    assert last["forgetting"] == pytest.approx(first["task_0"] - last["task_0"])
    assert last["forgetting"] > 0.2 and "forgetting" not in first
    assert last["backward_transfer"] == pytest.approx(-last["forgetting"])


def test_a_run_without_tasks_is_refused(in_tasks, tmp_path):
    config = in_tasks[0].copy_and_resolve_references()
    with config.unlocked():
        config.data.tasks = dict(count=0, steps=0, replay=0.0)
    with pytest.raises(ConfigError, match=r"evals\.continual: found data\.tasks\.count=0"):
        train.run(config, tmp_path / "run")
