"""Pairs of views, and the loss of telling which pairs are of one sample."""

import functools
import math

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError


def instances(views, batch):
    """Features that say their sample and their view."""
    sample, view = jnp.arange(batch), jnp.arange(views)[:, None]
    return jnp.stack(jnp.broadcast_arrays(sample, view), -1).astype(jnp.float32)


@pytest.mark.parametrize("views, batch, positives", [(4, 64, 384), (2, 3, 3)])
def test_as_many_negatives_as_positives(views, batch, positives):
    pairs, targets = losses.relation_pairs(instances(views, batch))
    each = np.broadcast_to(targets, pairs.shape[:2])
    assert (each == 1).sum() == (each == 0).sum() == positives
    same = pairs[..., 0] == pairs[..., 2]
    np.testing.assert_array_equal(same, each == 1)  # so that no negative is of one sample
    assert (pairs[..., 1] < pairs[..., 3]).all()  # two views, in their order


def test_the_turns_begin_anew_at_the_batch():
    pairs, targets = losses.relation_pairs(instances(4, 3))
    negatives = np.asarray(pairs)[:, np.asarray(targets) == 0]
    turns = (negatives[..., 0] - negatives[..., 2]) % 3
    assert turns.tolist() == [[1, 2, 1, 2, 1, 2]] * 3


@pytest.mark.parametrize("aggregation", ["cat", "sum", "mean", "max"])
def test_only_concatenation_tells_first_from_second(aggregation):
    z = jax.random.normal(jax.random.key(0), (2, 4, 3))
    turned = jnp.stack([z[1], z[0]])
    pairs, backward = (losses.relation_pairs(x, aggregation=aggregation)[0] for x in (z, turned))
    assert bool(jnp.allclose(pairs[:, 0], backward[:, 0])) == (aggregation != "cat")
    joined = {"cat": jnp.concatenate([z[0], z[1]], -1), "sum": z[0] + z[1]}
    joined |= {"mean": z.mean(0), "max": z.max(0)}
    np.testing.assert_allclose(pairs[:, 0], joined[aggregation], rtol=1e-6)


@pytest.mark.parametrize(
    "shape, aggregation, text",
    [
        ((1, 4, 2), "cat", "found 1 view, expected at least 2"),
        ((2, 1, 2), "cat", "found a batch of 1"),
        ((2, 4, 2), "cta", "did you mean 'cat'"),
    ],
)
def test_what_cannot_be_paired_is_named(shape, aggregation, text):
    with pytest.raises(ConfigError, match=text):
        losses.relation_pairs(jnp.zeros(shape), aggregation=aggregation)


def test_known_values():
    x, targets = jnp.zeros((3, 4)), jnp.array([1, 1, 0, 0])
    focal = functools.partial(losses.sigmoid_focal, alpha=0.5)
    assert float(focal(x, targets)) == pytest.approx(0.5 * 0.25 * math.log(2))
    assert float(focal(x, targets, gamma=0)) == pytest.approx(math.log(2) / 2)
    sure = jnp.broadcast_to(jnp.array([20.0, 20.0, -20.0, -20.0]), (3, 4))
    assert 0 <= float(focal(sure, targets)) < 1e-8
    assert float(focal(x, targets, gamma=0, alpha=1.0)) == pytest.approx(math.log(2) / 2)


def test_without_gamma_it_is_half_the_cross_entropy():
    x = jax.random.normal(jax.random.key(0), (64,))
    targets = jnp.arange(64) % 2
    p = jax.nn.sigmoid(x)
    plain = -jnp.where(targets == 1, jnp.log(p), jnp.log(1 - p)).mean()
    value = losses.sigmoid_focal(x, targets, alpha=0.5, gamma=0)
    np.testing.assert_allclose(value, plain / 2, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_gradient_is_finite_and_points_home_where_all_is_wrong(gamma):
    x, targets = jnp.array([-200.0, 200.0, 200.0]), jnp.array([1, 0, 1])
    loss = functools.partial(losses.sigmoid_focal, targets=targets, gamma=gamma)
    grad = jax.grad(loss)(x)
    assert np.isfinite(grad).all() and grad[0] < 0 < grad[1]
    np.testing.assert_allclose(grad[2], 0, atol=1e-6)


def test_one_device_is_eight():
    def loss(z, weights):
        pairs, targets = losses.relation_pairs(z)
        logits = jnp.einsum("brd,d->br", pairs, weights, precision=jax.lax.Precision.HIGHEST)
        return losses.sigmoid_focal(jnp.sin(logits), targets)

    rng = np.random.default_rng(0)
    z, weights = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 16, 2), (4,)))
    golden.check_devices(loss, [z, weights], [1, None])
