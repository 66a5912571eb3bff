"""Concentration, alignment and divergence: exact cases, orderings, and the run's own views."""

import types

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from ml_collections import ConfigDict

from jaxssl import data
from jaxssl.config.errors import ConfigError
from jaxssl.evals.diagnostics import augmentation_concentration as concentration
from jaxssl.evals.subject import Subject


def unit_rows(seed, *shape):
    return concentration.unit(np.random.default_rng(seed).normal(size=shape))


def test_the_distance_is_that_of_the_closest_views():
    signs = lambda *values: np.array([[[v], [-v]] for v in values])
    found = concentration.augmented_distance(signs(1.0, -1.2, 3.0))
    np.testing.assert_allclose(found[0], [0, 0.2, 2.0], atol=1e-12)
    x = np.random.default_rng(0).normal(size=(7, 5, 3))
    one, all_views = (concentration.augmented_distance(x[:, :v]) for v in (1, 5))
    euclidean = np.linalg.norm(x[:, None, 0] - x[None, :, 0], axis=-1)
    np.testing.assert_allclose(one, euclidean, atol=1e-12)
    assert (all_views <= one + 1e-12).all() and (all_views < one - 1e-3).any()
    np.testing.assert_array_equal(all_views, all_views.T)
    np.testing.assert_array_equal(np.diag(all_views), 0)
    brute = min(np.linalg.norm(x[2, v] - x[4, w]) for v in range(5) for w in range(5))
    assert all_views[2, 4] == pytest.approx(brute)


def test_a_main_part_is_a_clique_not_a_ball():
    # The middle of a line is near both ends, which are not near each other.
    line = np.abs(np.arange(3.0)[:, None] - np.arange(3.0))
    y = np.zeros(3)
    assert concentration.main_parts(line, y, (1.0,))[0, 0] == pytest.approx(2 / 3)


def test_sigma_grows_with_delta_within_its_bounds():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [12, 5])
    distance = concentration.within_classes(rng.normal(size=(17, 2, 4)), y)
    assert np.isinf(distance[0, 14]) and np.isfinite(distance[0, 3])
    deltas = np.linspace(0.01, 8, 25)
    sigma = concentration.main_parts(distance, y, deltas[::-1])  # in any order
    assert sigma.shape == (2, 25) and (np.diff(sigma, axis=1) >= 0).all()
    np.testing.assert_allclose(sigma[:, 0], [1 / 12, 1 / 5])
    np.testing.assert_allclose(sigma[:, -1], 1)
    assert len(np.unique(sigma[0])) > 4
    # A planted clique among samples that are far from all others is found.
    planted = np.full((20, 20), 9.0)
    planted[np.ix_(range(3, 11), range(3, 11))] = 0.5
    assert concentration.main_parts(planted, np.zeros(20), (1.0,))[0, 0] == pytest.approx(8 / 20)


def test_a_perfect_representation_meets_the_bound_with_no_error():
    found = concentration.bound(
        2 * np.eye(3), sigma=1, delta=0, epsilon=0, r_epsilon=0, rarest=1 / 3, slope=5, length=2
    )
    assert (found.rho, found.spread, found.error) == (0, 0, 0)
    assert found.threshold == 4 and found.divergence == 0
    worse = concentration.bound(
        0.9 * np.eye(2), sigma=0.9, delta=0.1, epsilon=0.05, r_epsilon=0.02, rarest=0.4, slope=2
    )
    rho = 2 * 0.1 + 0.02 / 0.4 + 0.9 * (0.2 + 0.1)
    assert worse.rho == pytest.approx(rho) and worse.spread == pytest.approx(1 - 0.81)
    assert worse.threshold == pytest.approx(1 - rho - np.sqrt(2 * rho) - 0.19 / 2)
    assert worse.error == pytest.approx(0.12)
    with pytest.raises(ConfigError, match="found 1 classes"):
        concentration.bound(np.eye(1), sigma=1, delta=0, epsilon=0, r_epsilon=0, rarest=1, slope=1)


def test_infonce_is_its_two_parts():
    e = np.eye(2)[:1]
    assert sum(concentration.infonce_parts(e, e, np.eye(2)[1:])) == pytest.approx(
        0.313262, abs=1e-6
    )
    assert sum(concentration.infonce_parts(e, e, e)) == pytest.approx(0.693147, abs=1e-6)
    f1, f2, negative = (unit_rows(seed, 50, 6) for seed in range(3))
    positive, broken = np.exp((f1 * f2).sum(1)), np.exp((f1 * negative).sum(1))
    loss = -np.log(positive / (positive + broken)).mean()
    align, apart = concentration.infonce_parts(f1, f2, negative)
    assert align + apart == pytest.approx(loss, abs=1e-6)
    views = np.stack([f1, f2], axis=1)
    assert align == pytest.approx(concentration.alignment(views) / 2 - 1)


def test_cross_correlation_is_its_parts_and_bounds_the_alignment():
    rng = np.random.default_rng(0)
    z1 = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5))
    for noise in (0.1, 1.0, 5.0):
        z2 = z1 + noise * rng.normal(size=z1.shape)
        loss, first, whole = concentration.correlation_parts(z1, z2, 0.3)
        a, b = ((z - z.mean(0)) / z.std(0) for z in (z1, z2))
        f = a.T @ b / 200
        direct = sum((1 - f[i, i]) ** 2 for i in range(5))
        direct += 0.3 * sum(f[i, j] ** 2 for i in range(5) for j in range(5) if i != j)
        assert loss == pytest.approx(direct) == pytest.approx(0.7 * first + 0.3 * whole)
        align = ((a - b) ** 2).sum(1).mean()
        assert 0 < align <= 2 * np.sqrt(5 * first)
    assert concentration.correlation_parts(z1, z1, 0.3)[1] == pytest.approx(0, abs=1e-20)


def test_the_nearest_centre_is_a_linear_classifier():
    f, y = unit_rows(0, 60, 2, 4), np.arange(60) % 5
    labels, centres = concentration.class_centres(f, y)
    np.testing.assert_allclose(centres[2], f[y == 2].reshape(-1, 4).mean(0))
    x = unit_rows(1, 300, 4)
    linear = (x @ centres.T - (centres**2).sum(1) / 2).argmax(1)
    np.testing.assert_array_equal(concentration.nearest_centre(x, centres), linear)
    assert labels.tolist() == [0, 1, 2, 3, 4] and len(np.unique(linear)) == 5


def test_alignment_and_its_tail_are_over_different_views():
    f = np.array([[[1.0, 0], [0, 1]], [[1, 0], [1, 0]]])
    assert concentration.alignment(f) == pytest.approx(1.0)  # 2 and 0
    assert concentration.r_epsilon(f, 1.4) == 0.5 and concentration.r_epsilon(f, 1.5) == 0
    assert concentration.lipschitz(0.5 * f, f) == pytest.approx(2)


def raw_subject(tmp_path, views):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = rng.integers(0, 10, (60, 8, 8, 1))
    x[np.arange(60), 2 * y] += 200  # a row for each class
    # Every other sample of a class is brighter on the left, the others on the right.
    side = (np.arange(60) // 3 % 2)[:, None, None, None]
    x += 40 * ((np.arange(8) < 4)[:, None] == side)
    x = x.astype(np.uint8)
    parts = dict(x_train=x, y_train=y, x_test=x[:30], y_test=y[:30])
    np.savez(tmp_path / "set.npz", **parts)
    config = ConfigDict(
        {
            "data": {
                "source": "npz",
                "path": str(tmp_path / "set.npz"),
                "size": 0,
                "channels": 0,
                "train_split": "",
                "test_split": "",
            },
            "evals": {"bank": 0, "test": 0, "batch_size": 16, "output": "pooled"},
            "views": {"global": {"count": 2, "size": 6, **views}},
        }
    )
    train, test = data.load(config.data, "train"), data.load(config.data, "test")
    info = types.SimpleNamespace(num_classes=3, fields=dict(train.fields))
    axes = ("data", "fsdp", "model")
    mesh = jax.make_mesh((2, 4, 1), axes, axis_types=(AxisType.Auto,) * 3)
    program = types.SimpleNamespace(config=config, source=train, info=info, mesh=mesh)
    return Subject("raw_input", program, None, test, lambda *_: None)


def test_richer_views_bring_samples_of_a_class_closer(tmp_path):
    """Of raw pixels, whose views are of another size than the samples."""
    fields = dict(samples=0, views=4, deltas=(0.001, 0.08, 0.9), epsilon=0.1)
    plain, rich = (
        concentration.examine(raw_subject(tmp_path, views), **fields)
        for views in ({}, {"flip": 0.5})
    )
    assert rich["nearest_distance"] < plain["nearest_distance"]
    assert plain["sigma_0.001"] == pytest.approx(1 / 20) and plain["sigma_0.9"] == 1
    assert plain["sigma_0.08"] == pytest.approx(0.5)  # the halves of a class are apart
    assert rich["sigma_0.08"] > 0.7  # unless all four views are of one side
    assert plain["alignment"] == plain["r_epsilon"] == plain["lipschitz"] == 0
    assert rich["alignment"] > 0.005 and rich["r_epsilon"] > 0.5 and rich["lipschitz"] > 0
    assert plain["accuracy"] == 1
    assert plain.keys() == rich.keys() and np.isfinite(list(rich.values())).all()


def test_views_that_are_no_draws_are_refused(tmp_path):
    subject = raw_subject(tmp_path, {"count": 4, "tiles": {"side": 2}})
    with pytest.raises(ConfigError, match=r"views\.global\.tiles: found views that are parts"):
        concentration.examine(subject)
    with pytest.raises(ConfigError, match=r"concentration\.views: found 1"):
        concentration.examine(subject, views=1)
