"""How far a batch of embeddings is from an isotropic standard Gaussian, by one-dimensional slices.

A univariate test takes projections u [N, S] (N samples of S slices) to one statistic per slice [S]
and is small when each column looks like a draw from N(0, 1). `sliced(test)` makes it a loss on
embeddings; `sigreg` is `sliced(epps_pulley)`. Everything is written on the global batch: under
`jax.jit` over a mesh the value and the gradient are those of one device.
"""

import functools
import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, ndtr

from jaxssl.config.errors import ConfigError

UnivariateTest = Callable[[jax.Array], jax.Array]


def random_directions(key: jax.Array, dim: int, num_slices: int) -> jax.Array:
    """Directions drawn uniformly on the unit sphere, one per column.

    a_s = g_s / |g_s| with g_s ~ N(0, I). Balestriero and LeCun, 2025, "LeJEPA", arXiv 2511.08544.
    Draw anew at every step from the step's key, the same for all views of that step.

    Args:
      key: a PRNG key, equal on all devices.
      dim: P, the projection width.
      num_slices: S.

    Returns:
      [P, S], float32.

    >>> random_directions(jax.random.key(0), 8, 3).shape
    (8, 3)
    """
    for name, size in (("dim", dim), ("num_slices", num_slices)):
        if size < 1:
            raise ConfigError(f"{name}: found {size}, expected at least 1")
    directions = jax.random.normal(key, (dim, num_slices), jnp.float32)
    return directions / jnp.linalg.norm(directions, axis=0, keepdims=True)


def half_line_knots(num_knots: int = 17, t_max: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Knots and weights that integrate an even function over [-t_max, t_max] by the trapezoid rule.

    t_j = j dt for j = 0..T-1 with dt = t_max / (T - 1); w_j = 2 dt, and dt at both ends, since only
    the half line is visited.

    Returns:
      (knots [T], weights [T]), float64.

    Raises:
      ConfigError: fewer than 2 knots, or t_max not positive.
    """
    if num_knots < 2:
        raise ConfigError(f"num_knots: found {num_knots}, expected at least 2")
    if not t_max > 0:
        raise ConfigError(f"t_max: found {t_max}, expected a number above 0")
    knots = np.linspace(0.0, t_max, num_knots)
    weights = np.full(num_knots, 2.0 * knots[1])
    weights[[0, -1]] = knots[1]
    return knots, weights


def _characteristic(u: jax.Array, dt: float, count: int) -> jax.Array:
    """Means over samples of cos(j dt u) and sin(j dt u) for j = 1..count: [count, 2, S].

    One cosine and one sine per entry; the other knots follow by angle addition. Two choices bound
    the cost. Slices go in blocks, so that the recurrence lives on a fraction of [N, S]. Samples are
    first summed inside `groups` equal runs of neighbours, and only afterwards over the groups: a
    batch sharded over devices is then reduced across them once, not once per knot.
    """
    n, s = u.shape
    blocks = math.gcd(s, 8)
    width = s // blocks
    groups = math.gcd(n, max(32, 1 << max(n // 32, 1).bit_length() - 1))

    def sums(x: jax.Array) -> jax.Array:
        return x.reshape(groups, n // groups, width).sum(1)

    def block(i: jax.Array) -> jax.Array:
        angle = dt * jax.lax.dynamic_slice_in_dim(u, i * width, width, axis=1)
        cos1, sin1 = jnp.cos(angle), jnp.sin(angle)

        def knot(
            carry: tuple[jax.Array, jax.Array], _: None
        ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            cos, sin = carry
            following = (cos * cos1 - sin * sin1, sin * cos1 + cos * sin1)
            return following, jnp.stack((sums(cos), sums(sin)))

        return jax.lax.scan(knot, (cos1, sin1), None, length=count)[1]

    parts = jax.lax.map(block, jnp.arange(blocks))  # [blocks, count, 2, groups, width]
    means = parts.sum(3) / n
    return jnp.moveaxis(means, 0, 2).reshape(count, 2, s)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _epps_pulley(u: jax.Array, num_knots: int, t_max: float) -> jax.Array:
    return _epps_pulley_fwd(u, num_knots, t_max)[0]


def _epps_pulley_fwd(
    u: jax.Array, num_knots: int, t_max: float
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    knots, weights = half_line_knots(num_knots, t_max)
    window = np.exp(-0.5 * knots**2)
    # The knot at 0 is left out: there the empirical function is 1, as its target.
    means = _characteristic(u, float(knots[1]), num_knots - 1)
    gaps = means - jnp.asarray(np.stack((window, 0 * window), -1)[1:, :, None], jnp.float32)
    density = jnp.asarray((weights * window)[1:, None, None], jnp.float32)
    return u.shape[0] * (density * gaps**2).sum((0, 1)), (u, gaps)


def _epps_pulley_bwd(
    num_knots: int, t_max: float, residuals: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array]:
    u, gaps = residuals
    knots, weights = half_line_knots(num_knots, t_max)
    slopes = 2.0 * weights * np.exp(-0.5 * knots**2) * knots
    angle = float(knots[1]) * u
    cos1, sin1 = jnp.cos(angle), jnp.sin(angle)
    cos, sin, grad = cos1, sin1, jnp.zeros_like(u)
    # Unrolled, so that it compiles to one pass over [N, S] without arrays in between.
    for slope, (cos_gap, sin_gap) in zip(slopes[1:].tolist(), gaps):
        grad += (slope * g * sin_gap) * cos - (slope * g * cos_gap) * sin
        cos, sin = cos * cos1 - sin * sin1, sin * cos1 + cos * sin1
    return (grad,)


_epps_pulley.defvjp(_epps_pulley_fwd, _epps_pulley_bwd)


def epps_pulley(u: jax.Array, *, num_knots: int = 17, t_max: float = 3.0) -> jax.Array:
    """Weighted distance between the empirical characteristic function and the Gaussian's.

    EP = N sum_j w_j phi_j [(C_j - phi_j)^2 + S_j^2], where C_j = mean_n cos(t_j u_n),
    S_j = mean_n sin(t_j u_n), phi_j = exp(-t_j^2 / 2), and (t_j, w_j) are `half_line_knots`.
    Epps and Pulley, 1983, "A test for normality based on the empirical characteristic function",
    as in Balestriero and LeCun, 2025, arXiv 2511.08544 (its listing integrates over [-5, 5]
    instead, which is 1 to 2 % more).

    The gradient has a closed form and is computed by it, from u and the 2 (T - 1) means per slice;
    no array is larger than [N, S]. The expectation under N(0, 1) is 1.0525 for every N, not 0.

    Args:
      u: [N, S] or [N]; computed in float32.
      num_knots: T, at least 2.
      t_max: the largest knot.

    Returns:
      [S] or a scalar.

    >>> round(float(epps_pulley(jnp.array([-1.0, 1.0]))), 4)
    0.2057
    """
    half_line_knots(num_knots, t_max)
    return _columns(lambda x: _epps_pulley(x, num_knots, float(t_max)), u)


def cramer_von_mises(u: jax.Array) -> jax.Array:
    """Mean squared gap between the Gaussian distribution function and the empirical one.

    T = mean_i [F(u_(i)) - (2i - 1) / (2N)]^2. Cramer, 1928; von Mises, 1931. The classical
    statistic is N T + 1 / (12 N); LeJEPA's library omits both, as does this function.

    Args:
      u: [N, S] or [N]; computed in float32.

    Returns:
      [S] or a scalar, O(1 / N) under N(0, 1).
    """
    return _columns(lambda x: ((ndtr(jnp.sort(x, 0)) - _midranks(x)) ** 2).mean(0), u)


def watson(u: jax.Array) -> jax.Array:
    """Cramer-von Mises without the part that a shift explains.

    U^2 = T - (mean_n F(u_n) - 1/2)^2, with T of `cramer_von_mises`. Watson, 1961, "Goodness-of-fit
    tests on a circle". Unscaled by N, as there.

    Args:
      u: [N, S] or [N]; computed in float32.

    Returns:
      [S] or a scalar.
    """

    def statistic(x: jax.Array) -> jax.Array:
        gap = ndtr(jnp.sort(x, 0)) - _midranks(x)
        # The ranks average to 1/2, so that this is the variance of the gaps.
        return jnp.var(gap, 0)

    return _columns(statistic, u)


def anderson_darling(u: jax.Array) -> jax.Array:
    """Squared gap between distribution functions, weighted towards the tails.

    A^2 = -N - (1/N) sum_i (2i - 1) [log F(u_(i)) + log F(-u_(N+1-i))].
    Anderson and Darling, 1952. The null has mean 0 and variance 1, nothing estimated.

    Args:
      u: [N, S] or [N]; computed in float32.

    Returns:
      [S] or a scalar, of mean 1 under N(0, 1).
    """

    def statistic(x: jax.Array) -> jax.Array:
        n = x.shape[0]
        x = jnp.sort(x, 0)
        # (2i - 1) / N is twice the midrank.
        return -n * (1.0 + 2.0 * (_midranks(x) * (log_ndtr(x) + log_ndtr(-x[::-1]))).mean(0))

    return _columns(statistic, u)


def vcreg(u: jax.Array) -> jax.Array:
    """The mean against 0 and the variance against 1: VICReg's terms as a test.

    N m^2 / v + (N - 1) (v - 1)^2 / 2, with m the mean and v the unbiased variance. Balestriero and
    LeCun, 2025, arXiv 2511.08544, where it makes LeJEPA equal VICReg up to constants.

    Args:
      u: [N, S] or [N], N at least 2; computed in float32.

    Returns:
      [S] or a scalar, about chi-squared with 2 degrees of freedom under N(0, 1).
    """
    return _columns(lambda x: _two_moments(x)[0], u)


def extended_jarque_bera(u: jax.Array) -> jax.Array:
    """The first four moments against those of N(0, 1).

    `vcreg` + N skew^2 / 6 + N (kurt - 3)^2 / 24, with moments standardised by the unbiased
    variance. Jarque and Bera, 1980, extended as in Balestriero and LeCun, 2025, arXiv 2511.08544.

    Args:
      u: [N, S] or [N], N at least 2; computed in float32.

    Returns:
      [S] or a scalar, about chi-squared with 4 degrees of freedom under N(0, 1).
    """

    def statistic(x: jax.Array) -> jax.Array:
        value, standard = _two_moments(x)
        skew, kurtosis = (standard**3).mean(0), (standard**4).mean(0)
        return value + x.shape[0] * (skew**2 / 6.0 + (kurtosis - 3.0) ** 2 / 24.0)

    return _columns(statistic, u)


def sliced(test: UnivariateTest) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """A loss on embeddings: the mean over slices of a univariate test of their projections.

    loss(z, A) = mean_s test(z A)_s. Balestriero and LeCun, 2025, "LeJEPA", arXiv 2511.08544.
    The directions get no gradient. Give it ONE view: all views pooled in one test is another loss.

    Args:
      test: [N, S] -> [S].

    Returns:
      (z [N, P], directions [P, S]) -> scalar.

    >>> loss = sliced(cramer_von_mises)
    >>> loss(jnp.ones((4, 2)), random_directions(jax.random.key(0), 2, 8)).shape
    ()
    """

    def loss(z: jax.Array, directions: jax.Array) -> jax.Array:
        chex.assert_rank((z, directions), 2)
        chex.assert_equal(z.shape[1], directions.shape[0])
        directions = jax.lax.stop_gradient(directions).astype(jnp.float32)
        # Accelerators round float32 products by default, more than a collapsed batch is wide.
        u = jnp.matmul(z.astype(jnp.float32), directions, precision=jax.lax.Precision.HIGHEST)
        return test(u).mean()

    return loss


def sigreg(
    z: jax.Array, directions: jax.Array, *, num_knots: int = 17, t_max: float = 3.0
) -> jax.Array:
    """Sketched isotropic Gaussian regularisation: the Epps-Pulley test along random directions.

    mean_s EP(z a_s), with EP of `epps_pulley`. Balestriero and LeCun, 2025, "LeJEPA",
    arXiv 2511.08544. O(N S T) time; value and gradient keep u and its gradient, both [N, S].

    Args:
      z: [N, P], one view of the global batch, any float type; computed in float32.
      directions: [P, S] with unit columns (`random_directions`), redrawn every step. No gradient.
      num_knots: T, at least 2; published values are odd.
      t_max: the largest knot.

    Returns:
      Scalar, float32. N(0, I) gives 1.0525 on average, all embeddings at the origin .40205 N.

    Raises:
      ConfigError: fewer than 2 knots, or t_max not positive.

    >>> z = jnp.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    >>> round(float(sigreg(z, jnp.eye(2))), 4)
    0.1476
    """
    test = functools.partial(epps_pulley, num_knots=num_knots, t_max=t_max)
    return sliced(test)(z, directions)


def _columns(statistic: UnivariateTest, u: jax.Array) -> jax.Array:
    """Applies a statistic of [N, S] in float32, taking [N] as one slice."""
    chex.assert_rank(u, {1, 2})
    columns = u.astype(jnp.float32).reshape(u.shape[0], -1)
    return statistic(columns).reshape(u.shape[1:])


def _midranks(u: jax.Array) -> jax.Array:
    """(2i - 1) / (2N) for i = 1..N: [N, 1]."""
    n = u.shape[0]
    return jnp.asarray((2.0 * np.arange(1, n + 1)[:, None] - 1.0) / (2 * n), jnp.float32)


def _two_moments(u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The statistic of `vcreg` [S], and u standardised [N, S]."""
    n = u.shape[0]
    if n < 2:
        raise ConfigError(f"u: found {n} sample, expected at least 2 for a variance")
    mean, variance = u.mean(0), u.var(0, ddof=1)
    # A collapsed batch has no variance; the floor keeps the loss and its gradient finite.
    floored = jnp.maximum(variance, 1e-12)
    value = n * mean**2 / floored + (n - 1) * (variance - 1.0) ** 2 / 2.0
    return value, (u - mean) / jnp.sqrt(floored)


# The other tests as losses, by the names that a config's terms use.
sliced_cramer_von_mises = sliced(cramer_von_mises)
sliced_watson = sliced(watson)
sliced_anderson_darling = sliced(anderson_darling)
sliced_jarque_bera = sliced(extended_jarque_bera)
sliced_vcreg = sliced(vcreg)
