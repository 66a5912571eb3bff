"""Few and wrong labels: what is trained on, the same everywhere; evaluation sees neither."""

import jax
import ml_collections
import numpy as np
import pytest
import tiny

from jaxssl import data
from jaxssl.config.errors import ConfigError
from jaxssl.data import labelled, pipeline
from jaxssl.program import Program
from jaxssl.run.evaluator import Evaluator


def config(**fields):
    return ml_collections.ConfigDict(dict(source="digits", size=8, **fields))


def training(**fields):
    fields = config(**fields)
    return labelled.training(fields, data.load(fields, "train"))


def rows(source):
    return source.rows(np.arange(len(source)))


@pytest.mark.smoke
def test_the_same_samples_of_every_class_on_every_machine():
    few = training(labels=dict(per_class=4))
    assert np.bincount(rows(few)["label"]).tolist() == [4] * 10
    expected = [124, 133, 155, 165, 203, 235, 238, 298]
    assert few.stored(np.arange(8)).tolist() == expected, "other samples are another run"
    assert few.fingerprint == training(labels=dict(per_class=4)).fingerprint
    whole = data.load(config(), "train")
    np.testing.assert_array_equal(
        rows(few)["image"], whole.rows(few.stored(np.arange(40)))["image"]
    )
    np.testing.assert_array_equal(rows(few)["index"], np.arange(40))


def test_seeds_draw_others_and_more_labels_keep_the_few():
    stored = lambda **labels: set(
        training(labels=labels).stored(np.arange(len(training(labels=labels)))).tolist()
    )
    few, more, other = stored(per_class=4), stored(per_class=25), stored(per_class=4, seed=1)
    assert few < more and len(few & other) < 8
    tenth = training(labels=dict(fraction=0.1))
    whole = np.bincount(rows(training())["label"])
    np.testing.assert_array_equal(
        np.bincount(rows(tenth)["label"]), np.round(0.1 * whole).astype(int)
    )


def test_a_part_of_the_set_keeps_the_draw_of_its_samples():
    noise = dict(rate=0.5)
    whole, part = training(noise=noise), training(noise=noise, ranges=((100, 400),))
    np.testing.assert_array_equal(rows(part)["label"], rows(whole)["label"][100:400])


@pytest.mark.parametrize("kind", ["symmetric", "pairs"])
def test_wrong_labels_are_a_function_of_the_sample(kind):
    clean, noisy = rows(training())["label"], training(noise=dict(rate=0.3, kind=kind))
    found = rows(noisy)["label"]
    wrong = found != clean
    assert abs(wrong.mean() - 0.3) < 0.04  # three standard deviations of 1,297 samples
    shift = (found - clean)[wrong] % 10
    counts = np.bincount(shift, minlength=10)
    if kind == "pairs":
        assert counts[1] == wrong.sum()
    else:
        assert counts[0] == 0 and counts[1:].min() > 20  # about 43 each
    some = np.array([7, 3, 1200])
    np.testing.assert_array_equal(noisy.rows(some)["label"], found[some])
    assert np.any(rows(training(noise=dict(rate=0.3, kind=kind, seed=1)))["label"] != found)


def test_few_labels_are_drawn_by_class_before_some_are_wrong():
    fields = dict(labels=dict(per_class=20), noise=dict(rate=0.4))
    few, clean = training(**fields), training(labels=dict(per_class=20))
    np.testing.assert_array_equal(few.stored(np.arange(200)), clean.stored(np.arange(200)))
    assert 0.25 < (rows(few)["label"] != rows(clean)["label"]).mean() < 0.55


def test_no_label_noise_and_all_labels_are_the_source_itself():
    fields = config(labels=dict(seed=3), noise=dict(kind="pairs"))
    whole = data.load(fields, "train")
    assert labelled.training(fields, whole) is whole


def test_evaluation_sees_the_whole_split_and_its_own_labels(tmp_path):
    changes = {"data.labels.per_class": 8, "data.noise.rate": 0.9, "evals.bank": 0}
    plain, noisy = tiny.load(tmp_path, **{"evals.bank": 0}), tiny.load(tmp_path, **changes)
    clean, program = Program(plain), Program(noisy)
    assert program.info.num_samples == 80 and clean.info.num_samples == 1297
    assert program.info.steps_per_epoch == 80 // 32
    found, expected = (Evaluator(p).subject("trained", p.init()) for p in (program, clean))
    assert len(found.train.y) == 1297
    np.testing.assert_array_equal(found.train.y, expected.train.y)
    np.testing.assert_array_equal(found.test.y, expected.test.y)
    batch = jax.device_get(next(program.batches(0)))
    own = training(labels=dict(per_class=8)).rows(batch["index"])
    np.testing.assert_array_equal(batch["image"], own["image"])
    assert (batch["label"] != own["label"]).mean() > 0.6


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_batch_of_few_and_wrong_labels(processes):
    few = training(labels=dict(per_class=4), noise=dict(rate=0.5))
    whole = pipeline.batch_at(few, 5, seed=0, global_batch=16)
    parts = [
        pipeline.batch_at(few, 5, seed=0, global_batch=16, process_index=p, process_count=processes)
        for p in range(processes)
    ]
    for name in whole:
        np.testing.assert_array_equal(whole[name], np.concatenate([part[name] for part in parts]))


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(labels=dict(per_clas=4)), "data.labels.per_clas: no such field; did you mean"),
        (dict(labels=dict(per_class=4, fraction=0.1)), "per_class and fraction"),
        (dict(labels=dict(per_class=1000)), "data.labels: found 128 samples of class '0'"),
        (dict(labels=dict(fraction=1.5)), "data.labels.fraction: found 1.5"),
        (dict(noise=dict(rate=2.0)), "data.noise.rate: found 2.0"),
        (dict(noise=dict(rate=0.1, kind="symetric")), "did you mean 'symmetric'"),
    ],
)
def test_what_does_not_fit_is_one_line(fields, words):
    with pytest.raises(ConfigError) as error:
        training(**fields)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_set_without_labels_has_none_to_draw_or_to_corrupt(tmp_path):
    np.savez(tmp_path / "set.npz", x_train=np.zeros((9, 4, 4), np.uint8))
    fields = dict(source="npz", path=str(tmp_path / "set.npz"))
    whole = data.load(ml_collections.ConfigDict(fields), "train")
    for section, value in dict(labels=dict(fraction=0.5), noise=dict(rate=0.5)).items():
        with pytest.raises(ConfigError, match=f"^data.{section}: found no"):
            labelled.training({**fields, section: value}, whole)
