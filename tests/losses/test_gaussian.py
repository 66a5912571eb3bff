"""SIGReg and the tests it can slice: published values, invariances, devices, memory."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy import stats

from jaxssl import losses
from jaxssl.config.errors import ConfigError
from jaxssl.losses.reference import sigreg_plain

TESTS = (
    losses.epps_pulley,
    losses.cramer_von_mises,
    losses.watson,
    losses.anderson_darling,
    losses.extended_jarque_bera,
    losses.vcreg,
)
PAPER_GRID = (np.linspace(-5, 5, 17), np.full(17, 10 / 16) * np.array([0.5] + [1] * 15 + [0.5]))

value_and_grad = jax.jit(jax.value_and_grad(losses.sigreg))
plain = jax.jit(sigreg_plain)


def data(n=64, p=16, s=32, seed=0):
    key_z, key_a = jax.random.split(jax.random.key(seed))
    z = jax.random.normal(key_z, (n, p)) * jnp.linspace(0.2, 2, p) + 0.3
    return z, losses.random_directions(key_a, p, s)


@pytest.mark.parametrize("case", range(3))
def test_golden(shared, case):
    with np.load(shared / "golden" / "sigreg.npz") as f:
        golden = {k: f[k] for k in f if k.startswith(f"{case}/")}
    hyper = json.loads(str(golden[f"{case}/meta"]))["hyper"]
    fn = jax.jit(jax.value_and_grad(functools.partial(losses.sigreg, **hyper), argnums=(0, 1)))
    value, (grad_z, grad_a) = fn(golden[f"{case}/in_z"], golden[f"{case}/in_directions"])
    expected = golden[f"{case}/grad_z"]
    np.testing.assert_allclose(value, golden[f"{case}/out"], rtol=2e-5)
    np.testing.assert_allclose(grad_z, expected, atol=1e-4 * np.abs(expected).max())
    assert not np.any(grad_a) and not np.any(golden[f"{case}/grad_directions"])


@pytest.mark.parametrize(
    ("u", "half_line", "paper"),
    [
        ((0,), 0.402048, 0.408921),
        ((0, 0, 0, 0), 1.608190, 1.635683),
        ((1,), 1.186006, 1.193052),
        ((-1, 1), 0.205659, 0.218714),
        ((-1, 0, 1), 0.032947, 0.035058),
        ((2,), 2.642852, 2.649729),
    ],
)
def test_known_values_on_both_published_grids(u, half_line, paper):
    z = jnp.array(u, jnp.float32)[:, None]
    assert float(value_and_grad(z, jnp.eye(1))[0]) == pytest.approx(half_line, abs=2e-6)
    assert float(plain(z, jnp.eye(1), *losses.half_line_knots())) == pytest.approx(
        half_line, abs=2e-6
    )
    assert float(plain(z, jnp.eye(1), *PAPER_GRID)) == pytest.approx(paper, abs=2e-6)


@pytest.mark.smoke
def test_known_gradient():
    value, grad = value_and_grad(jnp.array([[0.3], [-1.2], [2.0]]), jnp.eye(1))
    assert float(value) == pytest.approx(0.542828, abs=2e-6)
    np.testing.assert_allclose(grad[:, 0], [0.370969, -0.616198, 0.584952], atol=2e-6)


def test_knots_integrate_the_window():
    knots, weights = losses.half_line_knots()
    assert knots[0] == 0 and knots[-1] == 3 and len(knots) == 17
    assert weights @ np.exp(-(knots**2) / 2) == pytest.approx(2.499666, abs=1e-6)
    paper = PAPER_GRID[1] * np.exp(-(PAPER_GRID[0] ** 2) / 2)
    assert paper.sum() == pytest.approx(np.sqrt(2 * np.pi), rel=1e-5)


@pytest.mark.parametrize("n", [1, 3, 32])
def test_expectation_under_the_null_does_not_depend_on_the_batch(n):
    u = jax.random.normal(jax.random.key(n), (n, 80_000))
    mean = jax.jit(lambda u: losses.epps_pulley(u).mean())(u)
    assert float(mean) == pytest.approx(1.0525, abs=0.015)


def test_expectation_on_the_paper_grid():
    # Embeddings of width S projected on the axes are S independent slices.
    u = jax.random.normal(jax.random.key(0), (64, 2000))
    value = plain(u, jnp.eye(2000), *PAPER_GRID)
    assert float(value) == pytest.approx(1.0594, abs=0.06)


def test_two_dimensional_cross():
    z = jnp.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    assert float(losses.sigreg(z, jnp.eye(2))) == pytest.approx(0.147614, abs=2e-6)


def test_invariances():
    z, a = data()
    value, grad = value_and_grad(z, a)
    rotation = jnp.linalg.qr(jax.random.normal(jax.random.key(3), (16, 16)))[0]
    order = jax.random.permutation(jax.random.key(4), 64)
    assert float(value) > 1
    np.testing.assert_allclose(value_and_grad(z @ rotation, rotation.T @ a)[0], value, rtol=1e-5)
    np.testing.assert_allclose(value_and_grad(-z, a)[0], value, rtol=1e-5)
    permuted = value_and_grad(z[order], a)
    np.testing.assert_allclose(permuted[0], value, rtol=1e-5)
    np.testing.assert_allclose(permuted[1], grad[order], atol=1e-5 * np.abs(grad).max())


def test_collapse_at_the_origin_is_a_saddle():
    n = 8
    value, grad = value_and_grad(jnp.zeros((n, 1)), jnp.eye(1))
    assert float(value) == pytest.approx(0.402048 * n, rel=1e-5)
    assert not np.any(grad)
    eps = 1e-3 * jnp.array([1.0, -1, 2, -2, 0.5, -0.5, 1, -1])
    grad = value_and_grad(eps[:, None], jnp.eye(1))[1]
    np.testing.assert_allclose(grad[:, 0], -3.0921 * eps, rtol=1e-3)


def test_gradient_is_bounded_for_any_input():
    u = jnp.concatenate([jnp.linspace(-50, 50, 63), jnp.array([1e3])])
    for x in (u, jnp.full(64, 0.9), jnp.ones(1)):
        grad = value_and_grad(x[:, None], jnp.eye(1))[1]
        assert 0.01 < float(jnp.abs(grad).max()) <= 7.886


@pytest.mark.smoke
@pytest.mark.parametrize(("n", "s"), [(63, 7), (96, 24)])
@pytest.mark.parametrize("hyper", [{}, {"num_knots": 31, "t_max": 6.0}])
def test_equals_the_plain_form(n, s, hyper):
    z, a = data(n, 8, s)
    fast = jax.jit(jax.value_and_grad(functools.partial(losses.sigreg, **hyper)))(z, a)
    slow = jax.jit(jax.value_and_grad(sigreg_plain))(z, a, *losses.half_line_knots(**hyper))
    np.testing.assert_allclose(fast[0], slow[0], rtol=1e-5)
    np.testing.assert_allclose(fast[1], slow[1], atol=2e-5 * np.abs(slow[1]).max())


def test_sigreg_is_the_sliced_epps_pulley():
    z, a = data()
    by_slice = jax.jit(losses.epps_pulley)(jnp.matmul(z, a, precision="highest"))
    assert by_slice.shape == (32,)
    sliced = jax.jit(losses.sliced(losses.epps_pulley))(z, a)
    np.testing.assert_allclose(sliced, by_slice.mean(), rtol=1e-6)
    np.testing.assert_allclose(value_and_grad(z, a)[0], by_slice.mean(), rtol=1e-6)


@pytest.mark.smoke
def test_one_device_equals_eight_and_they_meet_once():
    fn = jax.value_and_grad(losses.over_views(losses.sigreg))
    z = jnp.stack([data(256)[0], 2 * data(256)[0]])
    a = data()[1]
    expected = jax.jit(fn)(z, a)
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        split = NamedSharding(mesh, PartitionSpec(None, ("data", "fsdp")))
        z = jax.device_put(z, split)
        compiled = jax.jit(fn).lower(z, a).compile()
        value, grad = compiled(z, a)
    assert grad.sharding.is_equivalent_to(split, 3)
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)
    np.testing.assert_allclose(grad, expected[1], atol=1e-6 * np.abs(expected[1]).max())
    program = compiled.as_text()
    # The means over the batch cross devices in one message, not one per knot, slice or view.
    assert program.count(" all-reduce(") == 1
    assert not any(f" {name}(" in program for name in ("all-gather", "all-to-all"))


def sizes(jaxpr):
    for eqn in jaxpr.eqns:
        yield from (v.aval.size for v in eqn.outvars)
        for param in eqn.params.values():
            inner = getattr(param, "jaxpr", param)
            if hasattr(inner, "eqns"):
                yield from sizes(inner)


def test_never_larger_than_samples_by_slices():
    n, p, s = 2048, 128, 1024
    z, a = jax.ShapeDtypeStruct((n, p), jnp.float32), jax.ShapeDtypeStruct((p, s), jnp.float32)
    fn = jax.value_and_grad(losses.sigreg)
    assert max(sizes(jax.make_jaxpr(fn)(z, a).jaxpr)) == n * s
    compiled = jax.jit(fn).lower(z, a).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 3 * n * s * 4


def test_float32_under_bfloat16():
    z, a = data()
    half = z.astype(jnp.bfloat16)
    value, grad = value_and_grad(half, a)
    wide_value, wide_grad = value_and_grad(half.astype(jnp.float32), a)
    assert value.dtype == jnp.float32 and grad.dtype == jnp.bfloat16
    np.testing.assert_allclose(value, wide_value, rtol=1e-6)
    np.testing.assert_array_equal(grad, wide_grad.astype(jnp.bfloat16))


def test_directions_are_unit_columns_spread_evenly():
    a = np.asarray(losses.random_directions(jax.random.key(0), 6, 20_000))
    np.testing.assert_allclose((a**2).sum(0), 1, rtol=1e-5)
    np.testing.assert_allclose(a @ a.T / 20_000, np.eye(6) / 6, atol=5e-3)
    np.testing.assert_allclose(a.mean(1), 0, atol=0.015)


def test_edf_tests_against_scipy():
    u = np.random.default_rng(0).normal(0.4, 1.3, 50)
    n = len(u)
    cvm = stats.cramervonmises(u, "norm").statistic
    ours = float(losses.cramer_von_mises(jnp.array(u)))
    assert n * ours + 1 / (12 * n) == pytest.approx(cvm, rel=1e-5)
    shift = stats.norm.cdf(u).mean() - 0.5
    assert float(losses.watson(jnp.array(u))) == pytest.approx(ours - shift**2, rel=1e-4)
    null = {"loc": 0, "scale": 1}
    ad = stats.goodness_of_fit(
        stats.norm, u, known_params=null, statistic="ad", n_mc_samples=2, rng=0
    ).statistic
    assert float(losses.anderson_darling(jnp.array(u))) == pytest.approx(ad, rel=1e-4)


def test_moment_tests_against_their_formulas():
    u = np.random.default_rng(1).gamma(3.0, 0.7, (40, 3))
    n, m, v = len(u), u.mean(0), u.var(0, ddof=1)
    two = n * m**2 / v + (n - 1) * (v - 1) ** 2 / 2
    standard = (u - m) / np.sqrt(v)
    skew, kurtosis = (standard**3).mean(0), (standard**4).mean(0)
    four = two + n * skew**2 / 6 + n * (kurtosis - 3) ** 2 / 24
    np.testing.assert_allclose(losses.vcreg(jnp.array(u)), two, rtol=1e-5)
    np.testing.assert_allclose(losses.extended_jarque_bera(jnp.array(u)), four, rtol=1e-4)


@pytest.mark.parametrize("test", TESTS, ids=lambda t: t.__name__)
def test_every_test_prefers_the_null_and_survives_collapse(test):
    fn = jax.jit(test)
    u = np.random.default_rng(0).normal(size=(128, 3)).astype(np.float32)
    null = fn(u)
    assert null.shape == (3,)
    np.testing.assert_allclose(fn(u[::-1]), null, rtol=1e-4)
    np.testing.assert_allclose(fn(u[:, 1]), null[1], rtol=1e-4)
    assert np.all(fn(2.5 * u) > 1.5 * null) and np.all(fn(0.2 * u) > 1.5 * null)
    loss = jax.jit(jax.value_and_grad(losses.sliced(test)))
    value, grad = loss(np.zeros((16, 4), np.float32), np.eye(4, dtype=np.float32))
    assert np.isfinite(value) and np.all(np.isfinite(grad))


def test_bad_input_is_named():
    z, a = data()
    with pytest.raises(ConfigError, match="num_knots: found 1"):
        losses.sigreg(z, a, num_knots=1)
    with pytest.raises(ConfigError, match="t_max: found -3"):
        losses.sigreg(z, a, t_max=-3)
    with pytest.raises(ConfigError, match="num_slices: found 0"):
        losses.random_directions(jax.random.key(0), 4, 0)
    with pytest.raises(ConfigError, match="found 1 sample"):
        losses.vcreg(jnp.ones((1, 2)))
    with pytest.raises(AssertionError):
        losses.sigreg(z, a.T)
