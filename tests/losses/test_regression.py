"""The prediction term: published values, and where its gradient goes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError


@pytest.mark.parametrize("case", range(2))
def test_golden(shared, case):
    with np.load(shared / "golden" / "lejepa_prediction.npz") as f:
        golden = {k: f[k] for k in f if k.startswith(f"{case}/")}
    hyper = json.loads(str(golden[f"{case}/meta"]))["hyper"]
    fn = jax.jit(jax.value_and_grad(lambda z: losses.lejepa_prediction(z, **hyper)))
    value, grad = fn(golden[f"{case}/in_projections"])
    expected = golden[f"{case}/grad_projections"]
    np.testing.assert_allclose(value, golden[f"{case}/out"], rtol=2e-5)
    np.testing.assert_allclose(grad, expected, atol=1e-4 * np.abs(expected).max())


def views(*values):
    return jnp.array(values, jnp.float32)[:, None, None]


def test_known_values():
    assert float(losses.lejepa_prediction(views(1, 3), num_global=2)) == 1
    assert float(losses.lejepa_prediction(views(1, 3, 6), num_global=2)) == 6


def test_two_global_views_are_a_quarter_of_their_squared_distance():
    z = jax.random.normal(jax.random.key(0), (2, 8, 4))
    value = losses.lejepa_prediction(z, num_global=2)
    np.testing.assert_allclose(value, ((z[0] - z[1]) ** 2).mean() / 4, rtol=1e-5)


def test_gradient_through_the_mean():
    z = jax.random.normal(jax.random.key(0), (4, 8, 4))
    grad = jax.grad(lambda z: losses.lejepa_prediction(z, num_global=4))
    # Distances from one's own mean: the part of the gradient through the mean cancels.
    through = jax.grad(lambda z, mu: ((mu - z) ** 2).mean())(z, z.mean(0))
    np.testing.assert_allclose(grad(z), through, atol=1e-7)
    # With local views it does not: it pulls the global views towards the local ones.
    both = jax.grad(lambda z: losses.lejepa_prediction(z, num_global=2))(z)
    stopped = jax.grad(lambda z, mu: ((mu - z) ** 2).mean())(z, z[:2].mean(0))
    assert np.abs(both[:2] - stopped[:2]).max() > 1e-3
    np.testing.assert_allclose(both[2:], stopped[2:], atol=1e-7)


def test_a_teachers_mean_gets_no_gradient():
    key_z, key_t = jax.random.split(jax.random.key(0))
    z, t = jax.random.normal(key_z, (3, 8, 4)), jax.random.normal(key_t, (2, 8, 4))
    value, (to_student, to_teacher) = jax.value_and_grad(losses.view_mean_prediction, (0, 1))(z, t)
    np.testing.assert_allclose(value, ((np.mean(t, 0) - z) ** 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(to_student, 2 * (z - np.mean(t, 0)) / z.size, atol=1e-6)
    assert not np.any(to_teacher)


def test_float32_under_bfloat16():
    z = jax.random.normal(jax.random.key(0), (4, 64, 8)).astype(jnp.bfloat16)
    fn = jax.jit(jax.value_and_grad(lambda z: losses.lejepa_prediction(z, num_global=2)))
    value, grad = fn(z)
    assert value.dtype == jnp.float32 and grad.dtype == jnp.bfloat16
    assert float(value) == pytest.approx(float(fn(z.astype(jnp.float32))[0]), rel=1e-6)


@pytest.mark.parametrize("num_global", [0, 3])
def test_bad_number_of_global_views_is_named(num_global):
    with pytest.raises(ConfigError, match=f"num_global: found {num_global}, expected 1 to 2"):
        losses.lejepa_prediction(views(1, 2), num_global=num_global)
