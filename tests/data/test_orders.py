"""Mixtures and tasks: which samples a step has is a function of the seed and the step alone."""

import ml_collections
import numpy as np
import pytest
import tiny

from jaxssl import data
from jaxssl.config.errors import ConfigError
from jaxssl.data import labelled, pipeline
from jaxssl.data.mixture import BLOCK
from jaxssl.program import Program

SETS = (dict(weight=3.0, source="digits"), dict(weight=1.0, source="digits", ranges=((0, 100),)))
DIGITS = 1297


def opened(**fields):
    config = ml_collections.ConfigDict(dict(source="digits", size=8, **fields))
    return labelled.training(config, data.load(config, "train"))


def mixture(sets):
    config = ml_collections.ConfigDict(dict(source="mixture", size=8, mixture=sets))
    return labelled.training(config, data.load(config, "train"))


def ids(source, steps, batch=64, seed=0, **how):
    stream = pipeline.batches(source, seed=seed, global_batch=batch, threads=0, **how)
    return np.stack([next(stream)["index"] for _ in range(steps)])


@pytest.mark.smoke
def test_every_block_of_a_mixture_has_exactly_the_shares():
    found = ids(mixture(SETS), 2 * BLOCK // 64).reshape(2, BLOCK)
    assert ((found >= DIGITS).sum(1) == BLOCK // 4).all()
    first = (found[0] >= DIGITS).reshape(8, -1).sum(1)
    assert first.min() > 30 and first.max() < 100  # of 64 each: shuffled within the block


def test_a_mixture_reads_every_set_epoch_after_epoch():
    found = ids(mixture(SETS), 6 * BLOCK // 64).ravel()
    large, small = found[found < DIGITS], found[found >= DIGITS] - DIGITS
    # The order within a block is shuffled once more: whole blocks are compared.
    assert np.bincount(large, minlength=DIGITS).min() >= 6 * BLOCK * 3 // 4 // DIGITS - 1
    counts = np.bincount(small, minlength=100)
    assert counts.min() >= 6 * BLOCK // 4 // 100 and counts.max() - counts.min() <= 1


def test_the_sequence_of_a_mixture_does_not_depend_on_batches_processes_or_starts():
    source = mixture(SETS)
    whole = ids(source, 40)
    np.testing.assert_array_equal(whole.ravel(), ids(source, 80, batch=32).ravel())
    np.testing.assert_array_equal(whole[33:], ids(source, 7, start=33))
    parts = [ids(source, 40, process_index=p, process_count=2) for p in range(2)]
    np.testing.assert_array_equal(whole, np.concatenate(parts, axis=1))
    assert np.any(whole != ids(source, 40, seed=1))


def test_rows_of_a_mixture_are_those_of_its_sets():
    source, whole = mixture(SETS), opened()
    picked = np.array([3, DIGITS + 7, 1200, DIGITS])
    found, expected = source.rows(picked), whole.rows(np.array([3, 7, 1200, 0]))
    np.testing.assert_array_equal(found["image"], expected["image"])
    np.testing.assert_array_equal(found["label"], expected["label"])
    np.testing.assert_array_equal(found["index"], picked)


TASKS = dict(count=5, steps=10, replay=0.25)


def classes(source, steps, **how):
    found = ids(source, steps, **how)
    return source.rows(found.ravel())["label"].reshape(found.shape)


@pytest.mark.smoke
def test_classes_come_one_task_after_another_with_their_past():
    labels = classes(opened(tasks=TASKS), 70)
    for step, batch in enumerate(labels):
        task = min(step // 10, 4)
        own = (batch // 2 == task).sum()
        assert own == (48 if task else 64), step
        assert ((batch // 2) <= task).all()
    past = labels[40:, :16] // 2
    assert set(past.ravel().tolist()) == {0, 1, 2, 3}  # of all earlier tasks


def test_without_replay_the_past_is_gone_and_an_epoch_of_a_task_is_each_sample_once():
    source = opened(tasks=dict(count=2, steps=40))
    found = ids(source, 45)
    of_first = source.members[0]
    epoch = len(of_first) // 64
    first = found[:epoch].ravel()
    assert len(set(first.tolist())) == epoch * 64 and set(first.tolist()) <= set(of_first.tolist())
    assert set(found[40:].ravel().tolist()) <= set(source.members[1].tolist())


def test_what_is_replayed_is_a_function_of_the_seed_and_the_step():
    source = opened(tasks=TASKS)
    whole = ids(source, 30)
    np.testing.assert_array_equal(whole[23:], ids(source, 7, start=23))
    parts = [ids(source, 30, process_index=p, process_count=4) for p in range(4)]
    np.testing.assert_array_equal(whole, np.concatenate(parts, axis=1))
    assert np.any(whole[20:, :16] != ids(source, 10, start=20, seed=1)[:, :16])
    assert all(len(set(batch.tolist())) == 64 for batch in whole)
    assert not np.array_equal(np.sort(whole[20, :16]), np.sort(whole[21, :16]))


def test_tasks_are_of_the_true_classes_of_the_labels_that_are_left():
    source = opened(
        tasks=dict(count=2, steps=5),
        labels=dict(per_class=20),
        noise=dict(rate=1.0, kind="pairs"),
    )
    assert len(source) == 200
    assert set(classes(source, 5, batch=32).ravel().tolist()) == {1, 2, 3, 4, 5}


def test_a_run_in_tasks_and_one_of_a_mixture_build(tmp_path):
    for changes in (
        {"data.tasks": dict(count=5, steps=4, replay=0.5)},
        {"data.source": "mixture", "data.mixture": SETS},
    ):
        program = Program(tiny.load(tmp_path, **changes))
        _, metrics = program.step(program.init(), next(program.batches(5)))
        assert np.isfinite(float(metrics["loss"]))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"data.tasks": dict(count=5)}, "data.tasks.steps: found 0"),
        ({"data.tasks": dict(cuont=5)}, "did you mean 'count'"),
        ({"data.tasks": dict(count=11, steps=4)}, "task 10 has no samples"),
        ({"data.tasks": dict(count=10, steps=4), "train.global_batch": 512}, "at least 512 and 0"),
        ({"data.source": "mixture"}, "data.mixture: found ()"),
        ({"data.source": "mixture", "data.mixture": (dict(weight=1.0),)}, "data.mixture[0]: found"),
        (
            {"data.source": "mixture", "data.mixture": (dict(SETS[0], weight=0.0),)},
            "data.mixture[0].weight: found 0.0",
        ),
        (
            {"data.source": "mixture", "data.mixture": (SETS[0], dict(SETS[1], weight=1e-5))},
            "at least 1 in 2048",
        ),
        (
            {"data.source": "mixture", "data.mixture": (SETS[0], dict(SETS[1], size=16))},
            "differ in fields",
        ),
        (
            {"data.source": "mixture", "data.mixture": SETS, "data.noise.rate": 0.5},
            "labels, noise or tasks of a mixture",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, changes, words):
    with pytest.raises(ConfigError) as error:
        Program(tiny.load(tmp_path, **changes))
    assert words in str(error.value) and "\n" not in str(error.value), str(error.value)
