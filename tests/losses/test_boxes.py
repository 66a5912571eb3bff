"""Boxes: published values, cases by hand, assignments against every other, devices, shapes."""

import itertools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError


def boxes(seed, *shape):
    """Centre-size boxes within the unit square."""
    rng = np.random.default_rng(seed)
    centre, size = rng.uniform(0.3, 0.7, (*shape, 2)), rng.uniform(0.1, 0.5, (*shape, 2))
    return np.float32(np.concatenate([centre, size], -1))


def corners(x):
    return np.concatenate([x[..., :2] - x[..., 2:] / 2, x[..., :2] + x[..., 2:] / 2], -1)


LOGITS = np.float32(np.random.default_rng(0).normal(size=(8, 5, 4)))
LABELS = np.arange(24).reshape(8, 3) % 4
VALID = np.arange(24).reshape(8, 3) % 5 > 0
CALL = (LOGITS, boxes(1, 8, 5), LABELS, boxes(2, 8, 3), VALID)


@pytest.mark.parametrize("name", ["giou", "box_matching"])
def test_values_are_the_published_ones(shared, name):
    golden.check_outputs(shared, name, getattr(losses, name))


def test_one_device_equals_eight():
    golden.check_devices(losses.giou, (corners(boxes(1, 8)), corners(boxes(2, 16))), (0, 0))
    fn = lambda l, x: losses.box_matching(l, x, *CALL[2:]).cost
    golden.check_devices(fn, CALL[:2], (0, 0))
    query = lambda l: losses.box_matching(l, *CALL[1:]).query.astype(jnp.float32)
    golden.check_devices(query, CALL[:1], (0,))


def test_overlaps_by_hand():
    a = np.float32([[0, 0, 2, 2]])
    others = np.float32([[0, 0, 2, 2], [1, 0, 3, 2], [2, 2, 4, 4], [0, 0, 1, 1]])
    found = losses.giou(a, others)[0]
    # I 2, U 6, H 6; I 0, U 8, H 16; I 1, U 4, H 4.
    np.testing.assert_allclose(found, [1, 1 / 3, -0.5, 0.25], rtol=1e-6)
    np.testing.assert_allclose(losses.giou(others, a)[:, 0], found)
    np.testing.assert_allclose(losses.giou(7 * a - 3, 7 * others - 3)[0], found, rtol=1e-5)
    empty = np.zeros((1, 4), np.float32)
    value, grad = jax.value_and_grad(lambda x: losses.giou(x, empty).sum())(empty)
    assert value == 0 and np.all(np.isfinite(grad))


def test_the_assignment_costs_least_of_all():
    found = losses.box_matching(*CALL)
    for n in range(8):
        objects = np.flatnonzero(VALID[n])
        total = lambda queries, n=n, objects=objects: found.cost[n][list(queries), objects].sum()
        best = min(total(q) for q in itertools.permutations(range(5), len(objects)))
        mine = np.asarray(found.query[n])
        assert len(set(mine[objects])) == len(objects) and np.all(mine[~VALID[n]] == -1)
        assert float(total(mine[objects])) == pytest.approx(float(best), abs=1e-5)
        assert not np.any(np.asarray(found.cost[n])[:, ~VALID[n]])


def test_what_is_no_object_takes_no_query_away_and_the_order_of_queries_goes_along():
    found = np.asarray(losses.box_matching(*CALL).query)
    garbage = CALL[3].copy()
    garbage[~VALID] = 0.9
    np.testing.assert_array_equal(losses.box_matching(*CALL[:3], garbage, VALID).query, found)
    turned = losses.box_matching(LOGITS[:, ::-1], CALL[1][:, ::-1], *CALL[2:]).query
    np.testing.assert_array_equal(np.where(VALID, 4 - turned, -1), found)
    assert not np.any(jax.grad(lambda l: losses.box_matching(l, *CALL[1:]).cost.sum())(LOGITS))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="found 5 objects, expected at most 3 queries"):
        many = np.zeros((8, 5), int), boxes(2, 8, 5), np.ones((8, 5), bool)
        losses.box_matching(LOGITS[:, :3], boxes(1, 8, 3), *many)
    for call in (
        lambda: losses.giou(boxes(0, 3), boxes(0, 3)[:, :3]),
        lambda: losses.box_matching(*CALL[:4], VALID[:4]),
    ):
        with pytest.raises(AssertionError):
            call()
