"""Classic pretext tasks: chance, whose number is whose, rebalanced colours, errors."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError


def normal(seed, *shape):
    return np.float32(np.random.default_rng(seed).normal(size=shape))


def test_chance_is_the_logarithm_of_the_number_of_classes():
    np.testing.assert_allclose(losses.view_index(jnp.ones((4, 3, 4))), 1.386294, rtol=1e-6)
    np.testing.assert_allclose(losses.relative_location(jnp.ones((3, 8, 8))), np.log(8), rtol=1e-6)


def test_the_class_of_a_view_is_its_number():
    right = 100 * jnp.broadcast_to(jnp.eye(4)[:, None], (4, 3, 4))
    assert losses.view_index(right) == 0
    np.testing.assert_allclose(losses.view_index(jnp.roll(right, 1, axis=0)), 100)
    np.testing.assert_allclose(losses.view_index(right.at[2].set(0)), np.log(4) / 4, rtol=1e-6)


def test_the_class_of_a_neighbour_is_its_place():
    right = 100 * jnp.broadcast_to(jnp.eye(8), (3, 8, 8))
    assert losses.relative_location(right) == 0
    np.testing.assert_allclose(losses.relative_location(jnp.roll(right, 1, axis=1)), 100)


def test_rare_classes_weigh_more_and_the_mean_weight_is_one():
    p = jnp.array([0.7, 0.3])
    np.testing.assert_allclose(losses.rebalancing_weights(p), [0.869565, 1.304348], rtol=1e-5)
    np.testing.assert_allclose(losses.rebalancing_weights(p, mix=1.0), [1, 1], rtol=1e-6)
    p = jax.nn.softmax(normal(0, 50))
    np.testing.assert_allclose((p * losses.rebalancing_weights(p)).sum(), 1, rtol=1e-5)
    assert np.isfinite(losses.rebalancing_weights(jnp.array([1.0, 0.0]), mix=0.0)).all()


def test_a_target_weighs_what_its_likeliest_class_weighs():
    logits, weights = normal(0, 2, 3, 4), jnp.array([1.0, 2.0, 5.0, 7.0])
    targets = np.full((2, 3, 4), 0.1, np.float32)
    targets[..., 2] = 0.7
    plain = losses.weighted_cross_entropy(logits, targets, jnp.ones(4))
    np.testing.assert_allclose(
        losses.weighted_cross_entropy(logits, targets, weights), 5 * plain, rtol=1e-5
    )
    expected = -(targets * np.asarray(jax.nn.log_softmax(logits))).sum(-1).mean()
    np.testing.assert_allclose(plain, expected, rtol=1e-5)


def test_colorization_rebalances_by_the_batch():
    logits = normal(0, 8, 3, 4)
    targets = np.eye(4, dtype=np.float32)[np.arange(24).reshape(8, 3) % 3]
    targets[:4] = targets[0, 0]
    weights = losses.rebalancing_weights(targets.mean((0, 1)))
    expected = losses.weighted_cross_entropy(logits, targets, weights)
    np.testing.assert_allclose(losses.colorization(logits, targets), expected, rtol=1e-6)
    without = losses.weighted_cross_entropy(logits, targets, jnp.ones(4))
    np.testing.assert_allclose(losses.colorization(logits, targets, mix=1.0), without, rtol=1e-5)
    assert abs(expected - without) > 1e-3
    assert not np.any(jax.grad(losses.colorization, argnums=1)(logits, targets))


def test_devices():
    golden.check_devices(losses.view_index, [normal(0, 4, 8, 4)], [1])
    golden.check_devices(losses.relative_location, [normal(0, 8, 3, 3)], [0])
    targets = np.asarray(jax.nn.softmax(3 * normal(1, 8, 3, 4)))
    golden.check_devices(losses.colorization, [normal(0, 8, 3, 4), targets], [0, 0])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: losses.view_index(jnp.ones((4, 2, 3))), "found 3 classes, expected 4, .* views"),
        (lambda: losses.relative_location(jnp.ones((2, 8, 9))), "found 9 classes, expected 8"),
    ],
)
def test_errors_name_the_argument(call, text):
    with pytest.raises(ConfigError, match=text) as error:
        call()
    assert "\n" not in str(error.value)
