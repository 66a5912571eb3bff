"""Whitening: published values, what it fixes and what it leaves, groups at random."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError

KEY = jax.random.key(0)
w_mse = jax.jit(losses.w_mse, static_argnames=("group_size", "iterations", "epsilon"))
whiten = jax.jit(losses.whiten, static_argnames="epsilon")


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("case", golden.CASES)
def test_golden(shared, case):
    inputs, value, grads, hyper = golden.load(shared, "whiten", case)
    out, found = golden.value_and_grads(losses.whiten, [inputs["z"]], **hyper)
    np.testing.assert_allclose(out, value, atol=2e-5 * np.abs(value).max())
    np.testing.assert_allclose(found[0], grads["z"], atol=1e-4 * np.abs(grads["z"]).max())


def test_whitened_samples_have_no_mean_and_the_identity_as_covariance():
    z = normal(0, 32, 4) @ normal(1, 4, 4) + 5
    y = np.asarray(whiten(z))
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(y.T), np.eye(4), atol=1e-5)
    np.testing.assert_allclose((y**2).sum(), 31 * 4, rtol=1e-5)


def test_a_linear_map_before_leaves_the_products_of_samples():
    z, map_ = normal(0, 32, 4), normal(1, 4, 4)
    a, b = whiten(z), whiten(z @ map_ + 1)
    np.testing.assert_allclose(a @ a.T, b @ b.T, atol=1e-4)


def test_shrinking_is_towards_the_identity():
    z = normal(0, 32, 4) @ normal(1, 4, 4)
    y = whiten(z, epsilon=0.3)
    factor = np.linalg.cholesky(0.7 * np.cov(z.T) + 0.3 * np.eye(4))
    expected = np.linalg.solve(factor, (z - z.mean(0)).T).T
    np.testing.assert_allclose(y, expected, atol=1e-4)
    np.testing.assert_allclose(whiten(z, epsilon=1.0), z - z.mean(0), atol=1e-5)
    constant = jnp.ones((8, 3))
    grad = jax.jit(jax.grad(lambda z: losses.whiten(z, epsilon=0.1).sum()))(constant)
    assert np.isfinite(grad).all()


def test_one_feature_is_standardised():
    z = normal(0, 8, 1)
    expected = (z - z.mean()) / z.std(ddof=1)
    np.testing.assert_allclose(whiten(z), expected, atol=1e-5)


def test_equal_views_cost_nothing_and_opposite_views_four():
    z = normal(0, 32, 4)
    assert float(w_mse(jnp.stack([z, z]), KEY)) == 0
    np.testing.assert_allclose(w_mse(jnp.stack([z, -z]), KEY), 4, rtol=1e-5)


def test_four_views_are_the_mean_of_six_pairs():
    z = normal(0, 4, 16, 3)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    each = [w_mse(z[list(pair)], KEY, group_size=8) for pair in pairs]
    value = w_mse(z, KEY, group_size=8)
    np.testing.assert_allclose(value, np.mean(each), rtol=1e-5)


def test_one_group_is_the_cosine_of_whitened_views_in_any_order():
    z = normal(0, 2, 16, 3)
    a, b = (np.asarray(whiten(view)) for view in z)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    value = w_mse(z, KEY, group_size=16)
    np.testing.assert_allclose(value, (2 - 2 * cosine).mean(), rtol=1e-4)
    again = w_mse(z[:, ::-1], jax.random.key(9), group_size=16)
    np.testing.assert_allclose(again, value, rtol=1e-4)


def test_groups_are_drawn_by_the_key_and_averaged_over_iterations():
    z = normal(0, 2, 16, 3)
    values = [float(w_mse(z, jax.random.key(i), group_size=8)) for i in range(3)]
    assert len(set(values)) == 3
    each = [float(w_mse(z, k, group_size=8, iterations=1)) for k in jax.random.split(KEY, 8)]
    many = float(w_mse(z, KEY, group_size=8, iterations=8))
    assert min(each) < many < max(each)


def test_a_group_is_twice_as_large_as_the_projection_is_wide_by_default():
    z = normal(0, 2, 32, 4)
    a, b = w_mse(z, KEY), w_mse(z, KEY, group_size=8)
    assert float(a) == float(b) != float(w_mse(z, KEY, group_size=16))


def test_eight_devices_are_one():
    fn = lambda z: losses.w_mse(z, KEY, group_size=16)
    golden.check_devices(fn, [normal(0, 2, 32, 4)], [1])


@pytest.mark.parametrize(
    "fields, text",
    [
        (dict(group_size=5), "group_size: found 5, expected a divisor of the batch of 16"),
        (dict(group_size=4), "group_size: found 4, expected more than the 4 features"),
        (dict(iterations=0), "iterations: found 0, expected at least 1"),
    ],
)
def test_bad_groups_are_refused(fields, text):
    with pytest.raises(ConfigError, match=text):
        losses.w_mse(jnp.zeros((2, 16, 4)), KEY, **fields)


def test_too_few_samples_or_views_are_refused():
    with pytest.raises(ConfigError, match="found 4 samples of 4 features"):
        losses.whiten(jnp.zeros((4, 4)))
    with pytest.raises(ConfigError, match="found 1 view, expected at least 2"):
        losses.w_mse(jnp.zeros((1, 16, 4)), KEY)
