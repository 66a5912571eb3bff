"""Variational terms: a student's diagonal Gaussian against that of a teacher, the prior.

An embedding [B, 2 D] is a mean and a log-variance s of D numbers each, s kept within [-8, 8]. The
objective is a divergence, weighted by beta, plus a denoising term: a draw of the student must be
likely under the teacher. Both come in a Gaussian form, sums over D, and in a cosine form, which
puts 1 - cos in place of squared distances. Gaussian: L = R + beta KL, with R - KL the entropy of
the student. Yavuz and Yanikoglu, 2025, "Variational self-supervised learning", arXiv 2504.04318. No
public implementation confirms the constants of the cosine form; here both its terms weigh 1.
"""

import math

import chex
import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError
from jaxssl.losses.regression import simsiam

LIMIT = 8.0
LOG_2PI = math.log(2 * math.pi)


def gaussian_kl(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Kullback-Leibler divergence of a student's Gaussian from a teacher's, in closed form.

    L = mean_n 1/2 sum_d [s_t - s_s + (exp(s_s) + (mu_s - mu_t)^2) / exp(s_t) - 1]. No gradient to
    the teacher.

    Args:
      student: [B, 2 D], means and log-variances; computed in float32.
      teacher: [B, 2 D].

    Returns:
      Scalar, float32, at least 0.

    Raises:
      ConfigError: an odd width.

    >>> float(gaussian_kl(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 0.0]])))
    0.5
    """
    (mu, s), (mu_t, s_t) = _pair(student, teacher)
    per_dimension = s_t - s + jnp.exp(s - s_t) + jnp.square(mu - mu_t) * jnp.exp(-s_t) - 1
    return 0.5 * per_dimension.sum(-1).mean()


def gaussian_denoising(student: jax.Array, teacher: jax.Array, *, key: jax.Array) -> jax.Array:
    """Negative log-likelihood under a teacher's Gaussian of one draw of the student's.

    L = -mean_n log N(z_n; mu_t, exp(s_t)), z = mu_s + exp(s_s / 2) e, e ~ N(0, 1). Its mean over e
    is `gaussian_kl` plus the entropy of the student. No gradient to the teacher.

    Args:
      student: [B, 2 D], means and log-variances; computed in float32.
      teacher: [B, 2 D].
      key: of the draw.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: an odd width.
    """
    (mu, s), (mu_t, s_t) = _pair(student, teacher)
    distance = jnp.square(_draw(mu, s, key) - mu_t) * jnp.exp(-s_t)
    return 0.5 * (LOG_2PI + s_t + distance).sum(-1).mean()


def cosine_divergence(
    student: jax.Array, teacher: jax.Array, *, spread_weight: float = 1.0
) -> jax.Array:
    """The cosine form of `gaussian_kl`: directions of means, and of standard deviations.

    L = mean_n [1 - cos(mu_s, mu_t) + g (1 - cos(sigma_s, sigma_t))], sigma = exp(s / 2). No
    gradient to the teacher.

    Args:
      student: [B, 2 D], means and log-variances; computed in float32.
      teacher: [B, 2 D].
      spread_weight: g.

    Returns:
      Scalar, float32, at least 0.

    Raises:
      ConfigError: an odd width.
    """
    (mu, s), (mu_t, s_t) = _pair(student, teacher)
    of_spreads = 1 + simsiam(jnp.exp(0.5 * s), jnp.exp(0.5 * s_t))
    return 1 + simsiam(mu, mu_t) + spread_weight * of_spreads


def cosine_denoising(student: jax.Array, teacher: jax.Array, *, key: jax.Array) -> jax.Array:
    """The cosine form of `gaussian_denoising`: a draw of the student against the teacher's mean.

    L = mean_n [1 - cos(z_n, mu_t)], z = mu_s + exp(s_s / 2) e, e ~ N(0, 1). No gradient to the
    teacher.

    Args:
      student: [B, 2 D], means and log-variances; computed in float32.
      teacher: [B, 2 D].
      key: of the draw.

    Returns:
      Scalar, float32, from 0 to 2.

    Raises:
      ConfigError: an odd width.
    """
    (mu, s), (mu_t, _) = _pair(student, teacher)
    return 1 + simsiam(_draw(mu, s, key), mu_t)


def _pair(student: jax.Array, teacher: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """(mean, log-variance) of the student and of the teacher, which gets no gradient."""
    chex.assert_rank((student, teacher), 2)
    chex.assert_equal_shape((student, teacher))
    width = student.shape[-1]
    if width % 2:
        raise ConfigError(
            f"student: found width {width}, expected an even one: means and log-variances"
        )
    both = []
    for x in (student, jax.lax.stop_gradient(teacher)):
        mu, s = jnp.split(x.astype(jnp.float32), 2, axis=-1)
        both.append((mu, jnp.clip(s, -LIMIT, LIMIT)))
    return both


def _draw(mu: jax.Array, s: jax.Array, key: jax.Array) -> jax.Array:
    return mu + jnp.exp(0.5 * s) * jax.random.normal(key, mu.shape)
