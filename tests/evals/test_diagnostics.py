import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from jaxssl.config.errors import ConfigError
from jaxssl.evals.diagnostics import rank as diagnostics
from jaxssl.evals.diagnostics import spectrum


def _gaussian(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def _rotation(seed, d):
    return np.linalg.qr(_gaussian(seed, d, d))[0]


def _with_variances(variances):
    """Rows whose covariance is diagonal with exactly these proportions, about a far mean."""
    half = np.diag(np.sqrt(variances))
    return np.concatenate([half, -half]) + 3.0


def _entropy_rank(weights):
    p = weights / weights.sum()
    return np.exp(-(p * np.log(p)).sum())


def test_rankme_is_the_entropy_of_the_singular_values():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 12)).astype(np.float32)
    sigma = np.linalg.svd(x.astype(np.float64), compute_uv=False)
    p = sigma / sigma.sum()
    expected = np.exp(-(p * np.log(p)).sum())
    assert diagnostics.rankme(x) == pytest.approx(expected, rel=1e-9)
    assert diagnostics.rankme(x.T) == pytest.approx(expected, rel=1e-9)
    assert diagnostics.rankme(7 * x) == pytest.approx(expected, rel=1e-6)


def test_rankme_counts_used_directions_and_not_rounding_noise():
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(64, 5)))[0]
    circle = np.linalg.qr(rng.normal(size=(200, 5)))[0]
    assert diagnostics.rankme(circle @ basis.T) == pytest.approx(5, rel=1e-6)
    assert diagnostics.rankme(np.zeros((10, 4), np.float32)) == 0.0


def test_collapsed_features_have_rank_one_and_no_spread():
    x = np.tile(np.arange(1.0, 9.0, dtype=np.float32), (50, 1))
    found = diagnostics.rank(x)
    assert found["rankme"] == pytest.approx(1)
    assert found["std"] == pytest.approx(0, abs=1e-6)


def test_collapsed_features_use_no_direction_once_their_mean_is_off():
    x = np.tile(_gaussian(0, 9).astype(np.float32), (49, 1))
    assert diagnostics.effective_rank(x) == diagnostics.nesum(x) == 0
    assert diagnostics.effective_dimension(x) == 0
    assert np.isnan(diagnostics.alpha_req(x))


def test_a_large_bank_is_read_evenly(monkeypatch):
    x = np.random.default_rng(2).normal(size=(101, 6))
    monkeypatch.setattr(spectrum, "MAX_ROWS", 20)
    assert diagnostics.rankme(x) == diagnostics.rankme(x[::6])
    assert diagnostics.nesum(x) == diagnostics.nesum(x[::6])


def test_effective_rank_is_of_singular_values_and_does_not_see_the_mean():
    x = _with_variances(np.array([9.0, 4.0, 1.0]))
    expected = _entropy_rank(np.array([3.0, 2.0, 1.0]))
    assert diagnostics.effective_rank(x) == pytest.approx(expected, rel=1e-9)
    assert diagnostics.rankme(x) != pytest.approx(expected, rel=1e-2)
    assert diagnostics.effective_rank(x + 50) == pytest.approx(expected, rel=1e-9)
    assert diagnostics.effective_rank(x @ _rotation(0, 3)) == pytest.approx(expected, rel=1e-9)


def test_nesum_is_the_dimension_of_white_features_and_one_of_a_line():
    assert diagnostics.nesum(_with_variances(np.ones(7))) == pytest.approx(7, rel=1e-9)
    line = np.outer(np.arange(5.0), [1.0, -2.0, 3.0])
    assert diagnostics.nesum(line) == pytest.approx(1, rel=1e-9)
    x = _gaussian(0, 30, 6)
    values = np.linalg.eigvalsh(np.cov(x.T))
    assert diagnostics.nesum(x) == pytest.approx(values.sum() / values[-1], rel=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.5])
def test_alpha_req_finds_the_exponent_of_a_power_law(alpha):
    x = _with_variances(np.arange(1.0, 21) ** -alpha) @ _rotation(0, 20)
    for ranks in ({}, {"first": 3, "last": 9}):
        assert diagnostics.alpha_req(x, **ranks) == pytest.approx(alpha, abs=1e-6)


def test_alpha_req_is_fitted_to_its_ranks_alone():
    variances = np.concatenate([np.full(5, 1e6), np.arange(6.0, 21) ** -1.5])
    x = _with_variances(variances)
    assert diagnostics.alpha_req(x, first=6, last=20) == pytest.approx(1.5, abs=1e-6)
    assert diagnostics.alpha_req(x, first=1, last=5) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ConfigError, match="last: found 3, expected a rank above first = 3"):
        diagnostics.alpha_req(x, first=3, last=3)
    with pytest.raises(ConfigError, match="first: found 0"):
        diagnostics.alpha_req(x, first=0)


def test_effective_dimension_counts_what_is_not_a_copy_whatever_its_scale():
    x = _with_variances(np.ones(4))
    assert diagnostics.effective_dimension(x * [1, 1e3, 1e-3, 1]) == 4
    assert diagnostics.effective_dimension(np.repeat(x, 3, axis=1)) == 4
    assert diagnostics.effective_dimension(np.pad(x, [(0, 0), (0, 2)], constant_values=7)) == 4
    # corr = [[1, r], [r, 1]]: the small eigenvalue 1 - r counts from a hundredth of 1 + r on.
    for share, expected in ((0.02, 2), (0.005, 1)):
        r = (1 - share) / (1 + share)
        pair = _with_variances(np.ones(2)) @ np.array([[1, r], [0, np.sqrt(1 - r**2)]])
        assert diagnostics.effective_dimension(pair) == expected


def test_lidar_is_the_entropy_of_what_tells_samples_apart():
    """Means ±a_i e_i and the same isotropic scatter around each: eigenvalues are as a_i^2."""
    a = np.array([3.0, 2.0, 1.0])
    means = np.concatenate([np.diag(a), -np.diag(a)])
    views = 0.1 * np.concatenate([np.eye(3), -np.eye(3)])
    x = means[:, None] + views
    expected = _entropy_rank(a**2)
    assert diagnostics.lidar(x) == pytest.approx(expected, rel=1e-9)
    assert diagnostics.lidar(x @ _rotation(0, 3) + 5) == pytest.approx(expected, rel=1e-9)
    # A direction in which views scatter more tells samples less apart.
    x = means[:, None] + views * [1, 2, 3]
    expected = _entropy_rank((a / [1, 2, 3]) ** 2)
    assert diagnostics.lidar(x, delta=1e-12) == pytest.approx(expected, rel=1e-6)


def test_lidar_is_that_of_the_matrix_of_the_paper_and_is_bounded():
    for n, q, d in ((5, 4, 12), (30, 3, 6)):
        x = _gaussian(n, n, 1, d) + 0.3 * _gaussian(q, n, q, d)
        means = x.mean(1)
        between = np.cov(means.T, bias=True)
        within = sum(np.cov(sample.T, bias=True) for sample in x) / n + 1e-4 * np.eye(d)
        values = np.linalg.eigvals(np.linalg.solve(within, between)).real
        values = values[values > 1e-9 * values.max()]
        assert diagnostics.lidar(x) == pytest.approx(_entropy_rank(values), rel=1e-6)
        assert 1 <= diagnostics.lidar(x) <= min(n - 1, d)
    assert diagnostics.lidar(np.ones((4, 3, 2))) == 0
    with pytest.raises(ConfigError, match=r"found \(4, 1, 2\), expected \[N, q, D\]"):
        diagnostics.lidar(np.ones((4, 1, 2)))


def test_alignment_is_zero_of_equal_and_two_of_opposite_views():
    x = _gaussian(0, 6, 1, 5)
    assert diagnostics.alignment(np.repeat(x, 3, axis=1)) == pytest.approx(0, abs=1e-12)
    assert diagnostics.alignment(np.concatenate([x, -4 * x], axis=1)) == pytest.approx(2)
    with pytest.raises(ConfigError, match="q at least 2"):
        diagnostics.alignment(x)


def test_alignment_is_the_expected_distance_of_two_views_drawn_independently():
    x = _gaussian(1, 6, 4, 5)
    u = x / np.linalg.norm(x, axis=-1, keepdims=True)
    squares = ((u[:, :, None] - u[:, None]) ** 2).sum(-1)
    assert diagnostics.alignment(x) == pytest.approx(squares.mean(), rel=1e-12)
    assert diagnostics.alignment(x * _gaussian(2, 6, 4, 1) ** 2) == pytest.approx(squares.mean())
    classes = diagnostics.class_variances(u.reshape(24, 5), np.repeat(np.arange(6), 4))
    assert diagnostics.alignment(x) == pytest.approx(2 * classes["intra_variance"], rel=1e-12)


def test_uniformity_is_the_log_of_the_mean_potential_of_pairs(monkeypatch):
    x = _gaussian(0, 21, 5)
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    squares = ((u[:, None] - u) ** 2).sum(-1)[np.triu_indices(21, 1)]
    for t in (2.0, 20.0):
        expected = np.log(np.exp(-t * squares).mean())
        assert diagnostics.uniformity(9 * x, t=t) == pytest.approx(expected, rel=1e-9)
        monkeypatch.setattr(diagnostics, "_CHUNK", 8)
    assert diagnostics.uniformity(np.ones((5, 3))) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ConfigError, match="found 1 rows"):
        diagnostics.uniformity(np.ones((1, 3)))


def test_sigreg_is_small_of_gaussians_of_any_mean_and_scale_and_large_of_a_line():
    x = _gaussian(0, 512, 8).astype(np.float32)
    small = diagnostics.sigreg(x, slices=64)
    assert 0.3 < small < 3
    assert diagnostics.sigreg(40 * x - 7, slices=64) == pytest.approx(small, rel=1e-2)
    line = np.outer(x[:, 0], np.ones(8, np.float32))
    assert diagnostics.sigreg(line, slices=64) > 10 * small
    # All at one point: every projection is 0, 0.40205 N.
    assert diagnostics.sigreg(np.ones((512, 8)), slices=64) == pytest.approx(0.40205 * 512, 1e-3)
    mesh = jax.make_mesh((2, 4, 1), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        assert diagnostics.sigreg(x, slices=64) == pytest.approx(small, rel=1e-5)


def test_class_variances_are_those_of_the_definitions():
    y = np.array([0] * 5 + [4] * 7 + [2] * 6)
    x = _gaussian(0, 18, 4) + 3 * np.eye(5, 4)[y]
    means = np.stack([x[y == c].mean(0) for c in (0, 2, 4)])
    within = sum(np.cov(x[y == c].T) for c in (0, 2, 4)) / 3
    found = diagnostics.class_variances(x, y)
    expected = np.trace(np.linalg.pinv(np.cov(means.T)) @ within)
    assert found["nc1"] == pytest.approx(expected, rel=1e-6)
    intra = [((x[y == c] - x[y == c].mean(0)) ** 2).sum(1).mean() for c in (0, 2, 4)]
    assert found["intra_variance"] == pytest.approx(np.mean(intra), rel=1e-12)
    inter = ((means - means.mean(0)) ** 2).sum(1).mean()
    assert found["inter_variance"] == pytest.approx(inter, rel=1e-12)
    alone = diagnostics.class_variances(np.concatenate([x, [[1e3] * 4]]), np.append(y, 1))
    assert alone == found  # a class of one sample says nothing


def test_class_variances_of_balanced_classes_sum_to_the_total_and_collapse_to_points():
    y = np.arange(24) % 3
    x = _gaussian(0, 24, 5)
    found = diagnostics.class_variances(x, y)
    total = ((x - x.mean(0)) ** 2).sum(1).mean()
    assert found["intra_variance"] + found["inter_variance"] == pytest.approx(total, rel=1e-12)
    points = diagnostics.class_variances(np.eye(3)[y], y)
    assert points["nc1"] == pytest.approx(0, abs=1e-12)
    assert points["inter_variance"] == pytest.approx(2 / 3)
    scaled = diagnostics.class_variances(5 * x @ _rotation(0, 5), y)
    assert scaled["nc1"] == pytest.approx(found["nc1"], rel=1e-9)
    assert np.isnan(diagnostics.class_variances(np.ones((6, 2)), np.arange(6) % 2)["nc1"])
    with pytest.raises(ConfigError, match="found 1 classes"):
        diagnostics.class_variances(x, np.zeros(24, int))
