import itertools

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from sklearn.metrics import average_precision_score

from jaxssl.config.errors import ConfigError
from jaxssl.evals.features import Features
from jaxssl.evals.probes import retrieval

K = 4


def _bank(seed, count, width=6):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, count).astype(np.int32)
    x = np.eye(K, width)[y] + rng.normal(size=(count, width))
    return Features(x.astype(np.float32), y, np.arange(count))


@pytest.fixture(scope="module")
def banks():
    return _bank(0, 70), _bank(1, 21)


def _cosines(train, test):
    long = lambda x: x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True)
    return long(test.x) @ long(train.x).T


@pytest.mark.parametrize("chunk", [8, 256])
def test_every_query_has_the_average_precision_of_scikit_learn(banks, chunk):
    train, test = banks
    cosines = _cosines(train, test)
    relevant = test.y[:, None] == train.y
    found = retrieval.per_query(train, test, k=7, chunk=chunk)
    expected = [average_precision_score(r, c) for r, c in zip(relevant, cosines, strict=True)]
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-6)
    order = np.argsort(-cosines, axis=1)
    ranked = np.take_along_axis(relevant, order, axis=1)
    np.testing.assert_allclose(found[:, 1], ranked[:, :7].mean(axis=1), atol=1e-6)
    np.testing.assert_array_equal(found[:, 2], ranked[:, 0])
    means = retrieval.evaluate(train, test, num_classes=K, k=7, chunk=chunk)
    names = ("mean_average_precision", "precision_at_7", "recall_at_1")
    assert means == pytest.approx(dict(zip(names, found.mean(axis=0), strict=True)))


def test_equal_similarities_have_no_order():
    # The similarities 1, 0, 0, 0, 0, -1 and, of the four between, one relevant sample.
    x = np.asarray([[1, 0], [0, 1], [0, 2], [0, 3], [0, 4], [-1, 0]], np.float32)
    query = Features(np.asarray([[5, 0]], np.float32), np.asarray([1], np.int32), np.arange(1))
    for y in ([1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 1, 0]):
        bank = Features(x, np.asarray(y, np.int32), np.arange(6))
        found = retrieval.per_query(bank, query, k=3, chunk=4)[0]
        assert found[0] == pytest.approx(average_precision_score(y, [1, 0, 0, 0, 0, -1]))
        assert found[0] == pytest.approx((1 + 2 / 5) / 2)
        orders = itertools.permutations([1, 0, 0, 0])
        assert found[1] == pytest.approx(np.mean([(1 + sum(o[:2])) / 3 for o in orders]))


def test_a_collapsed_encoder_scores_the_class_frequencies_however_the_bank_is_sorted(banks):
    train, test = banks
    order = np.argsort(train.y)
    flat = Features(np.ones_like(train.x), train.y[order], train.index)
    found = retrieval.evaluate(
        flat, Features(np.ones_like(test.x), test.y, test.index), num_classes=K
    )
    share = np.bincount(train.y, minlength=K)[test.y].mean() / len(train.x)
    assert list(found.values()) == pytest.approx([share] * 3)


def test_queries_of_a_class_that_the_bank_lacks_do_not_count(banks):
    train, test = banks
    kept = train.y != 2
    bank = Features(train.x[kept], train.y[kept], train.index[kept])
    seen = test.y != 2
    rest = Features(test.x[seen], test.y[seen], test.index[seen])
    found = retrieval.evaluate(bank, test, num_classes=K, chunk=8)
    assert found == pytest.approx(retrieval.evaluate(bank, rest, num_classes=K, chunk=8))
    only = Features(test.x[~seen], test.y[~seen], test.index[~seen])
    with pytest.raises(ConfigError, match="no sample of any query's class"):
        retrieval.evaluate(bank, only, num_classes=K)
    with pytest.raises(ConfigError, match=r"retrieval\.k: found 99, expected at most the bank's"):
        retrieval.evaluate(bank, test, num_classes=K, k=99)


def test_eight_devices_give_the_numbers_of_one(banks):
    expected = retrieval.per_query(*banks, k=7, chunk=8)
    mesh = jax.make_mesh((2, 4, 1), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        for chunk in (8, 5):  # also one that the devices do not divide
            found = retrieval.per_query(*banks, k=7, chunk=chunk)
            np.testing.assert_allclose(found, expected, atol=1e-6)
