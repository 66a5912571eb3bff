"""Gaussian posteriors against a teacher's: closed forms, sampling, the cosine forms."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError

KEY = jax.random.key(7)
TERMS = {
    "gaussian_kl": losses.gaussian_kl,
    "gaussian_denoising": lambda s, t: losses.gaussian_denoising(s, t, key=KEY),
    "cosine_divergence": losses.cosine_divergence,
    "cosine_denoising": lambda s, t: losses.cosine_denoising(s, t, key=KEY),
}


def pair(batch=16, width=8):
    return [jax.random.normal(jax.random.key(i), (batch, width)) for i in (0, 1)]


def gaussian(mu, sigma):
    return jnp.array([[mu, 2 * np.log(sigma)]])


@pytest.mark.parametrize("name", ["cosine_divergence", "gaussian_denoising"])
def test_eight_devices_give_the_numbers_of_one(name):
    golden.check_devices(TERMS[name], pair(), (0, 0))


@pytest.mark.parametrize("name", TERMS)
def test_the_teacher_gets_no_gradient(name):
    _, grads = golden.value_and_grads(TERMS[name], pair())
    assert np.any(grads[0]) and not np.any(grads[1])


def test_known_divergences():
    standard = gaussian(0.0, 1.0)
    assert float(losses.gaussian_kl(gaussian(1.0, 1.0), standard)) == pytest.approx(0.5)
    assert float(losses.gaussian_kl(gaussian(0.0, 2.0), standard)) == pytest.approx(0.806853)
    s, t = pair()
    assert float(losses.gaussian_kl(s, s)) == 0 < float(losses.gaussian_kl(s, t))


def test_gradient_of_the_divergence():
    s, t = pair()
    (mu, log_var), (mu_t, log_var_t) = jnp.split(s, 2, -1), jnp.split(t, 2, -1)
    expected = jnp.concatenate(
        [(mu - mu_t) * jnp.exp(-log_var_t), 0.5 * jnp.expm1(log_var - log_var_t)], -1
    )
    grad = jax.grad(losses.gaussian_kl)(s, t)
    np.testing.assert_allclose(grad, expected / 16, atol=1e-6)


def test_denoising_less_divergence_is_the_students_entropy():
    s, t = pair()
    keys = jax.random.split(KEY, 4000)
    draws = jax.vmap(lambda key: losses.gaussian_denoising(s, t, key=key))(keys)
    entropy = 0.5 * (np.log(2 * np.pi * np.e) + s[:, 4:]).sum(-1).mean()
    gap = draws.mean() - losses.gaussian_kl(s, t)
    assert float(gap) == pytest.approx(float(entropy), abs=5 * float(draws.std()) / 4000**0.5)


def test_log_variances_are_kept_within_limits():
    far, edge = jnp.array([[0.0, 100.0]]), jnp.array([[0.0, 8.0]])
    standard = gaussian(0.0, 1.0)
    assert float(losses.gaussian_kl(far, standard)) == float(losses.gaussian_kl(edge, standard))
    assert np.isfinite(losses.gaussian_kl(standard, -far))


def test_cosine_forms_see_directions_alone():
    s, t = pair()
    scale = jnp.concatenate([jnp.full(4, 3.0), jnp.ones(4)])
    value = losses.cosine_divergence(s, t)
    np.testing.assert_allclose(losses.cosine_divergence(s * scale, t * scale), value, rtol=1e-5)
    # Standard deviations that are parallel: their logarithms differ by a constant.
    shift = jnp.concatenate([jnp.zeros(4), jnp.ones(4)])
    assert float(losses.cosine_divergence(s, s + shift)) == pytest.approx(0, abs=1e-6)
    without = losses.cosine_divergence(s, t, spread_weight=0.0)
    np.testing.assert_allclose(without, losses.byol(s[:, :4], t[:, :4]) / 2, rtol=1e-5)


def test_denoising_without_spread_is_the_regression_of_byol():
    s, t = pair()
    still = s.at[:, 4:].set(-8.0).at[:, :4].multiply(100.0)
    value = losses.cosine_denoising(still, t, key=KEY)
    np.testing.assert_allclose(value, losses.byol(s[:, :4], t[:, :4]) / 2, atol=1e-3)


def test_odd_width_is_named():
    with pytest.raises(ConfigError, match="student: found width 3, expected an even one"):
        losses.gaussian_kl(*pair(width=3))
