"""The parts of the risk: that they add up, and what each is where the answer is known."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from jaxssl import evals
from jaxssl.config.errors import ConfigError
from jaxssl.evals import protocol
from jaxssl.evals.features import Features
from jaxssl.evals.theory.risk_decomposition import evaluate, stratified

K = 4
PARTS = ("approximation", "usability", "probe_generalisation", "encoder_generalisation")


def bank(x, y):
    return Features(np.asarray(x, np.float32), np.asarray(y, np.int32), np.arange(len(y)))


def labels(n):
    return np.arange(n) % K


def noise(n, width, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width))


@pytest.fixture(scope="module")
def clouds():
    """Overlapping clouds, so that no error is 0."""
    means = 0.8 * noise(K, 8, seed=1)
    make = lambda n, seed: bank(means[labels(n)] + noise(n, 8, seed), labels(n))
    return make(240, 2), make(80, 3)


@pytest.mark.smoke
def test_the_parts_add_up_to_the_usual_probe_error(clouds):
    found = evaluate(*clouds, num_classes=K)
    assert set(found) == {*PARTS, "aggregate"}
    assert sum(found[part] for part in PARTS) == pytest.approx(found["aggregate"], abs=1e-12)
    assert 0.05 < found["usability"] < found["aggregate"] < 0.6 and found["approximation"] == 0
    split = evaluate(*clouds, num_classes=K, supervised_accuracy=0.97)
    assert split["approximation"] == pytest.approx(0.03)
    assert split["usability"] == pytest.approx(found["usability"] - 0.03)
    assert {n: split[n] for n in PARTS[2:]} == {n: found[n] for n in PARTS[2:]}
    assert sum(split[part] for part in PARTS) == pytest.approx(split["aggregate"], abs=1e-12)


def test_each_error_is_of_its_own_probe(clouds):
    """Against scikit-learn, nearly without a penalty, on the same sets."""
    from sklearn.linear_model import LogisticRegression

    train, test = clouds
    found = evaluate(train, test, num_classes=K, seed=3)
    inside = stratified(train.y, len(test.y), seed=3)

    def err(fit, x, y):
        probe = LogisticRegression(C=1e3, tol=1e-8, max_iter=5000)
        probe.fit(train.x[fit].astype(np.float64), train.y[fit])
        return np.mean(probe.predict(x) != y)

    all_of_it = np.ones(len(train.y), bool)
    fitted, held = err(all_of_it, train.x, train.y), err(~inside, train.x[inside], train.y[inside])
    usual = err(all_of_it, test.x, test.y)
    expected = (0.0, fitted, held - fitted, usual - held)
    # Rounding may move a sample that lies on a boundary.
    assert [found[part] for part in PARTS] == pytest.approx(expected, abs=0.013)


def test_labels_as_features_leave_no_error_and_constants_none_but_usability():
    train, test = labels(160), labels(80)
    hot = evaluate(bank(np.eye(K)[train], train), bank(np.eye(K)[test], test), num_classes=K)
    assert set(hot.values()) == {0.0}
    flat = evaluate(bank(np.ones((160, 3)), train), bank(np.ones((80, 3)), test), num_classes=K)
    assert flat["usability"] == flat["aggregate"] == 1 - 1 / K
    assert flat["probe_generalisation"] == flat["encoder_generalisation"] == 0


def test_random_labels_in_a_wide_space_are_an_error_of_the_probe():
    rng = np.random.default_rng(0)
    train, test = rng.integers(0, K, 160), rng.integers(0, K, 400)
    found = evaluate(
        bank(noise(160, 200), train), bank(noise(400, 200, 1), test), num_classes=K, subset=60
    )
    assert found["usability"] == 0
    assert found["probe_generalisation"] == pytest.approx(1 - 1 / K, abs=0.17)


def test_an_encoder_that_has_seen_neither_set_generalises_as_well_to_both():
    """Twenty resplits of one set: the mean is within two standard errors of zero."""
    rng = np.random.default_rng(0)
    means, y = 0.8 * noise(K, 8, seed=1), labels(320)
    x = means[y] + noise(320, 8)
    gaps = []
    for draw in range(20):
        order = rng.permutation(320)
        train, test = order[:240], order[240:]
        found = evaluate(bank(x[train], y[train]), bank(x[test], y[test]), num_classes=K, seed=draw)
        gaps.append(found["encoder_generalisation"])
    assert np.std(gaps) > 0
    assert abs(np.mean(gaps)) < 2 * np.std(gaps, ddof=1) / np.sqrt(20)


def test_features_of_noise_do_not_make_a_fitted_probe_worse(clouds):
    wide = [
        dataclasses.replace(b, x=np.concatenate([b.x, noise(len(b.x), 24, 9)], 1, dtype=np.float32))
        for b in clouds
    ]
    found, before = (evaluate(*banks, num_classes=K) for banks in (wide, clouds))
    assert found["usability"] <= before["usability"]
    assert found["probe_generalisation"] > before["probe_generalisation"]


def test_the_part_is_stratified_seeded_and_never_all_of_a_bank():
    y = np.repeat(np.arange(3), [50, 30, 20])
    picked = stratified(y, 10, seed=0)
    assert np.bincount(y[picked]).tolist() == [5, 3, 2]
    for size in (7, 33, 50):
        found = stratified(y, size, seed=1)
        assert found.sum() == size
        assert np.abs(np.bincount(y[found]) - size * np.array([0.5, 0.3, 0.2])).max() <= 1
    np.testing.assert_array_equal(picked, stratified(y, 10, seed=0))
    assert (picked != stratified(y, 10, seed=1)).any()
    shares = np.mean([stratified(y, 50, seed) for seed in range(400)], 0)
    assert np.abs(shares - 0.5).max() < 0.12  # no sample is left out, or always in
    small = bank(noise(8, 2), labels(8))
    evaluate(small, bank(noise(40, 2), labels(40)), num_classes=K)  # a test set larger than it


def test_its_fields_are_checked(clouds):
    with pytest.raises(ConfigError, match="supervised_accuracy: found 97"):
        evaluate(*clouds, num_classes=K, supervised_accuracy=97)
    assert protocol.resolve("risk_decomposition", protocol.resolve("risk_decomposition", {}))
    one = bank(noise(1, 2), labels(1))
    with pytest.raises(ConfigError, match=r"evals\.bank: found 1 samples"):
        evaluate(one, one, num_classes=K)


def test_it_runs_beside_the_others_and_on_eight_devices(clouds):
    class Subject:
        num_classes, train, test = K, *clouds

    results = evals.run({"risk_decomposition": {}}, {"trained": Subject, "raw_input": Subject})
    assert {values["better"] for values in results.values()} == {"lower"}
    mesh = jax.make_mesh((2, 4, 1), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        found = evaluate(*clouds, num_classes=K)
    for name, value in found.items():
        expected = results[f"risk_decomposition/{name}"]["trained"]
        assert value == pytest.approx(expected, abs=0.013), name
