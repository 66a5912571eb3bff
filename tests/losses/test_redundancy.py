"""Redundancy reduction: published values, closed forms, invariances, mixed samples."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses

SQUARE = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("case", golden.CASES)
@pytest.mark.parametrize("name", ["barlow_twins", "vicreg", "mmcr"])
def test_golden(shared, name, case):
    golden.check(shared, name, case, getattr(losses, name))


@pytest.mark.parametrize("case", golden.CASES)
def test_golden_tico(shared, case):
    golden.check(shared, "tico", case, losses.tico, drop=("stop_target",))


@pytest.mark.parametrize("name", ["barlow_twins", "vicreg", "squared_distance", "tico", "mmcr"])
def test_eight_devices_are_one(name):
    arrays, axes = [normal(0, 16, 4), normal(1, 16, 4)], [0, 0]
    fn = getattr(losses, name)
    if name == "tico":
        arrays, axes = [*arrays, np.eye(4, dtype=np.float32)], [0, 0, None]
    if name == "mmcr":
        arrays = [normal(0, 16, 2, 4), normal(1, 16, 2, 4)]
        fn = lambda a, b: losses.mmcr(a, b, local_weight=0.5, normalize=True)
    golden.check_devices(fn, arrays, axes)


def test_mixed_samples_on_eight_devices_are_those_on_one():
    order = jnp.array(np.random.default_rng(3).permutation(16))
    fn = lambda a, b, m: losses.mixed_cross_correlation(a, b, m, 0.3, order)
    golden.check_devices(fn, [normal(i, 16, 4) for i in range(3)], [0, 0, 0])


def test_barlow_twins_known_values():
    barlow = losses.barlow_twins
    np.testing.assert_allclose(barlow(SQUARE, SQUARE), 0, atol=1e-8)
    np.testing.assert_allclose(barlow(SQUARE, -SQUARE), 8, rtol=1e-4)
    twice = jnp.repeat(SQUARE[:, :1], 2, axis=1)
    np.testing.assert_allclose(barlow(twice, twice, off_diagonal_weight=5.1e-3), 0.0102, rtol=1e-3)


def test_constant_embeddings_cost_their_width_and_give_no_gradient():
    z = jnp.ones((8, 3))
    value, grad = jax.jit(jax.value_and_grad(losses.barlow_twins))(z, z)
    assert float(value) == 3 and not np.any(grad)


def test_barlow_twins_does_not_see_scale_shift_or_order():
    z1, z2 = normal(0, 32, 6), normal(1, 32, 6) + normal(0, 32, 6)
    value = losses.barlow_twins(z1, z2)
    scale, shift = np.abs(normal(2, 6)) + 0.5, 3 * normal(3, 6)
    np.testing.assert_allclose(losses.barlow_twins(z1 * scale + shift, z2), value, rtol=1e-3)
    order = np.random.default_rng(4).permutation(32)
    np.testing.assert_allclose(losses.barlow_twins(z1[order], z2[order]), value, rtol=1e-5)
    np.testing.assert_allclose(losses.barlow_twins(z2, z1), value, rtol=1e-5)


def test_vicreg_known_values():
    ones = jnp.ones((4, 2))
    np.testing.assert_allclose(losses.vicreg(ones, ones), 25 * 0.99, rtol=1e-5)
    np.testing.assert_allclose(losses.vicreg(SQUARE, SQUARE), 0, atol=1e-6)
    twice = jnp.repeat(SQUARE[:, :1], 2, axis=1)
    np.testing.assert_allclose(losses.vicreg(twice, twice), 3.555556, rtol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_unmixed_samples_cost_nothing(weight):
    z1, z2, order = normal(0, 16, 4), normal(1, 16, 4), jnp.array([*range(8, 16), *range(8)])
    mixed = z1 if weight == 1 else z2[order]
    value = losses.mixed_cross_correlation(z1, z2, mixed, weight, order)
    np.testing.assert_allclose(value, 0, atol=1e-6)


def test_embeddings_that_mix_as_samples_do_cost_nothing():
    value = losses.mixed_cross_correlation(SQUARE, SQUARE, SQUARE, 0.3, jnp.arange(4))
    np.testing.assert_allclose(value, 0, atol=1e-8)


def test_mixed_samples_by_their_definition():
    z1, z2, m = normal(0, 16, 4), normal(1, 16, 4), normal(2, 16, 4)
    order, a = np.random.default_rng(3).permutation(16), 0.3
    u1, u2, um = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in (z1, z2, m))
    expected = 0
    for u in (u1, u2):
        target = (a * u1.T @ u + (1 - a) * u2[order].T @ u) / 16
        expected += ((um.T @ u / 16 - target) ** 2).sum()
    value = losses.mixed_cross_correlation(z1, z2, m, a, jnp.array(order))
    np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_tico_by_its_definition_and_its_memory():
    z1, z2, old = normal(0, 16, 4), normal(1, 16, 4), np.diag([0.4, 0.3, 0.2, 0.1])
    u1, u2 = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z1, z2))
    new = 0.7 * old + 0.3 * u1.T @ u1 / 16
    expected = 1 - (u1 * u2).sum(1).mean() + 5 * np.einsum("np,pq,nq->n", u1, new, u1).mean()
    value = losses.tico(z1, z2, jnp.array(old), beta=0.7, rho=5.0)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_a_zero_vector_has_a_finite_gradient():
    zeros = jnp.zeros((4, 2))
    grads = jax.jit(jax.grad(losses.tico, (0, 1)))(zeros, zeros, jnp.eye(2))
    assert all(np.isfinite(g).all() for g in grads)


def test_mmcr_is_least_where_views_agree_and_samples_differ():
    z = jnp.eye(4)[:, None].repeat(3, 1)
    value = lambda a, b: float(losses.mmcr(a, b, normalize=True, local_weight=0.1))
    # The 6 equal unit vectors of a sample have the nuclear norm sqrt(6).
    np.testing.assert_allclose(value(5 * z, z), -4 + 0.1 * 6**0.5, rtol=1e-5)
    collapsed = jnp.ones((4, 3, 4))
    np.testing.assert_allclose(value(collapsed, collapsed), -2 + 0.1 * 6**0.5, rtol=1e-5)
    one, other = normal(0, 4, 3, 4), normal(1, 4, 3, 4)
    assert value(one, other) > -4


def test_mmcr_has_a_finite_gradient_where_centroids_coincide():
    z = jnp.ones((4, 2, 3))
    grad = jax.jit(jax.grad(lambda z: losses.mmcr(z, z, normalize=True, local_weight=0.1)))(z)
    assert np.isfinite(grad).all()


def test_squared_distance_sums_over_features():
    z1, z2 = normal(0, 8, 5), normal(1, 8, 5)
    value, grad = jax.value_and_grad(losses.squared_distance)(z1, z2)
    np.testing.assert_allclose(value, ((z1 - z2) ** 2).sum() / 8, rtol=1e-5)
    np.testing.assert_allclose(grad, (z1 - z2) / 4, rtol=1e-5)


def test_float32_under_bfloat16():
    z1, z2 = (jnp.array(normal(i, 64, 8), jnp.bfloat16) for i in range(2))
    for fn in (losses.barlow_twins, losses.vicreg):
        value = fn(z1, z2)
        assert value.dtype == jnp.float32
        exact = fn(z1.astype(jnp.float32), z2.astype(jnp.float32))
        np.testing.assert_allclose(value, exact, rtol=1e-6)
