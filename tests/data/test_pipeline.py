"""The batch is a pure function of the step, whatever reads it."""

import numpy as np
import pytest

from jaxssl.config.errors import ConfigError
from jaxssl.data import order, pipeline
from jaxssl.data.images import ArraySource, Options

N, B = 103, 20


@pytest.fixture(scope="module")
def source():
    images = np.arange(N * 4, dtype=np.uint32).astype(np.uint8).reshape(N, 2, 2)
    return ArraySource("toy", images, np.arange(N) % 3)


def take(source, steps, **how):
    stream = pipeline.batches(source, **{"seed": 1, "global_batch": B, "threads": 0, **how})
    return [next(stream) for _ in range(steps)]


def assert_equal(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right):
        assert a.keys() == b.keys() == {"index", "image", "label"}
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.smoke
@pytest.mark.parametrize("threads", [0, 1, 8])
def test_any_start_and_any_threads_give_the_same_batches(source, threads):
    whole = take(source, 12)
    assert_equal(whole[7:], take(source, 5, start=7, threads=threads))
    assert_equal(whole[3:4], [pipeline.batch_at(source, 3, seed=1, global_batch=B)])


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_hold_the_consecutive_parts_of_the_global_batch(source, processes):
    parts = [
        take(source, 6, start=4, process_index=p, process_count=processes) for p in range(processes)
    ]
    joined = [{k: np.concatenate([b[k] for b in step]) for k in step[0]} for step in zip(*parts)]
    assert_equal(take(source, 6, start=4), joined)


def test_rows_belong_to_their_index(source):
    batch = take(source, 1, start=9)[0]
    np.testing.assert_array_equal(batch["label"], batch["index"] % 3)
    np.testing.assert_array_equal(batch["image"], source.images[batch["index"]])
    assert (batch["index"].dtype, batch["image"].dtype, batch["label"].dtype) == (
        np.int32,
        np.uint8,
        np.int32,
    )


def test_no_sample_twice_in_an_epoch_and_each_epoch_in_another_order(source):
    per_epoch = N // B
    ids = [batch["index"] for batch in take(source, 3 * per_epoch)]
    epochs = [np.concatenate(ids[e * per_epoch : (e + 1) * per_epoch]) for e in range(3)]
    for epoch in epochs:
        assert len(set(epoch.tolist())) == per_epoch * B
    assert not np.array_equal(epochs[0], epochs[1])
    assert set(epochs[0].tolist()) != set(epochs[1].tolist())  # another remainder is left out


def test_another_seed_is_another_order_at_every_epoch(source):
    # Seeds that are added to the epoch give seed 1, epoch 1 the order of seed 2, epoch 0.
    orders = {
        tuple(order.permute(np.arange(N), N, seed, epoch).tolist())
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16


@pytest.mark.parametrize("n", [1, 2, 3, 8, 100, 1297, 5000])
def test_the_order_is_a_permutation(n):
    np.testing.assert_array_equal(np.sort(order.permute(np.arange(n), n, 3, 5)), np.arange(n))


@pytest.mark.smoke
def test_the_order_is_the_same_for_ever():
    found = order.permute(np.arange(8), 1_281_167, seed=0, epoch=0).tolist()
    assert found == [344983, 1208675, 963291, 297437, 712795, 695308, 863103, 263047], (
        "a changed order changes the data of every run that is resumed"
    )


def test_the_order_is_uniform():
    n, epochs = 12, 1000
    counts = np.zeros((n, n))
    for epoch in range(epochs):
        counts[np.arange(n), order.permute(np.arange(n), n, 0, epoch)] += 1
    chi2 = ((counts - epochs / n) ** 2).sum() / (epochs / n) / (n - 1) ** 2
    assert 0.6 < chi2 < 1.4  # mean 1, standard deviation sqrt(2) / 11 = .13
    orders = [order.permute(np.arange(5000), 5000, 0, epoch) for epoch in range(2)]
    long = orders[0]
    for pair in ((long, np.arange(5000)), (long[:-1], long[1:]), orders):
        assert abs(np.corrcoef(*pair)[0, 1]) < 0.07  # five standard deviations
    first = [order.permute(np.arange(1), 5000, 0, epoch)[0] // 500 for epoch in range(1000)]
    chi2 = ((np.bincount(first, minlength=10) - 100) ** 2 / 100).sum()
    assert 1 < chi2 < 28  # 9 degrees of freedom: the middle 99.9 %


def test_transform_maps_the_batch_of_this_process(source):
    double = lambda batch: {**batch, "label": 2 * batch["label"]}
    plain = take(source, 2, process_index=1, process_count=2)
    mapped = take(source, 2, process_index=1, process_count=2, transform=double)
    assert_equal([double(batch) for batch in plain], mapped)


def test_eval_batches_see_every_sample_once_and_pad_the_last(source):
    found = list(pipeline.eval_batches(source, 25))
    assert [batch["image"].shape for batch in found] == [(25, 2, 2, 1)] * 5
    ids = np.concatenate([batch["index"][batch["valid"]] for batch in found])
    np.testing.assert_array_equal(ids, np.arange(N))
    assert [int(batch["valid"].sum()) for batch in found] == [25, 25, 25, 25, 3]


def test_eval_limit_is_spread_over_the_set(source):
    (batch,) = pipeline.eval_batches(source, 10, limit=10)
    np.testing.assert_array_equal(batch["index"], np.arange(10) * N // 10)
    assert batch["valid"].all()
    assert sum(b["valid"].sum() for b in pipeline.eval_batches(source, 10, limit=10**6)) == N


def test_eval_parts_of_processes_join_to_the_whole(source):
    whole = list(pipeline.eval_batches(source, 24))
    parts = [list(pipeline.eval_batches(source, 24, None, p, 2)) for p in range(2)]
    for batch, left, right in zip(whole, *parts, strict=True):
        for key in batch:
            np.testing.assert_array_equal(batch[key], np.concatenate([left[key], right[key]]))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda s: pipeline.batches(s, seed=0, global_batch=200), ["200", "103", "global_batch"]),
        (lambda s: pipeline.batches(s, seed=0, global_batch=0), ["global_batch"]),
        (
            lambda s: pipeline.batches(s, seed=0, global_batch=20, process_count=3),
            ["20", "3 processes"],
        ),
        (lambda s: next(pipeline.eval_batches(s, 5, None, 0, 2)), ["5", "2 processes"]),
    ],
)
def test_errors_are_one_line_and_name_the_field(source, call, words):
    with pytest.raises(ConfigError) as error:
        call(source)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_an_error_while_reading_ahead_reaches_the_loop_as_it_is():
    class Ragged(ArraySource):
        def read(self, i):
            image, label = super().read(i)
            return (image if i == 0 else image[:1]), label

        def gather(self, index):
            return super(ArraySource, self).gather(index)

    ragged = Ragged("ragged", np.zeros((40, 2, 2), np.uint8), None, opts=Options(cache="none"))
    with pytest.raises(ConfigError, match=r"data\.size.*\(1, 2, 1\).*\(2, 2, 1\)"):
        next(pipeline.batches(ragged, seed=0, global_batch=20, threads=2))
