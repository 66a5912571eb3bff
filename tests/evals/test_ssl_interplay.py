"""The closed-form optimum: exact spectra, the loss that it reaches, what descent finds."""

import functools
import types

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.optimize import minimize
from sklearn.datasets import make_moons

from jaxssl.config.errors import ConfigError
from jaxssl.evals import of_views
from jaxssl.evals.features import Features
from jaxssl.evals.theory import ssl_interplay
from jaxssl.evals.theory.conditional_independence import least_squares

# Two samples of two views each; one indicator for each view.
FOUR = np.eye(4).reshape(2, 2, 4)


def drawn(seed=0, samples=40, views=3, width=6, noise=0.7):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(samples, 1, width))
    return centres + noise * rng.normal(size=(samples, views, width)) * np.arange(1, width + 1)


def test_two_samples_of_two_views():
    found = ssl_interplay.moments(FOUR, all_views=True)
    np.testing.assert_allclose(ssl_interplay.operator_spectrum(found), [1, 1, 0, 0], atol=1e-12)
    operator = np.linalg.inv(found.whole) @ found.shared
    np.testing.assert_allclose(operator, np.kron(np.eye(2), np.full((2, 2), 0.5)), atol=1e-12)
    for k, least in ((1, 0), (2, 0), (3, 1)):
        best = ssl_interplay.solve(found, k=k, beta=1)
        assert best.loss == pytest.approx(least, abs=1e-10)
        assert ssl_interplay.loss(best.theta, found, beta=1) == pytest.approx(least, abs=1e-10)
        psi = FOUR @ best.theta.T
        np.testing.assert_allclose(psi[:, 0], psi[:, 1], atol=1e-6)  # constant on each sample
    assert best.eigenvalues[2] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_the_least_loss_is_that_of_the_spectrum(beta):
    phi = drawn()
    found = ssl_interplay.moments(phi, all_views=True)
    spectrum = ssl_interplay.operator_spectrum(found)
    assert (spectrum > -1e-12).all() and (spectrum < 1 + 1e-12).all()
    nu = (1 - beta) + beta * spectrum
    for k in (1, 3, 6):
        best = ssl_interplay.solve(found, k=k, beta=beta)
        np.testing.assert_allclose(best.eigenvalues, nu[:k], atol=1e-10)
        assert best.loss == pytest.approx(k - (np.maximum(nu[:k], 0) ** 2).sum())
        assert ssl_interplay.loss(best.theta, found, beta=beta) == pytest.approx(best.loss)
        rng = np.random.default_rng(k)
        near = best.theta + 1e-2 * rng.normal(size=best.theta.shape)
        assert ssl_interplay.loss(near, found, beta=beta) > best.loss


def test_the_loss_is_that_of_the_views():
    phi, theta = drawn(views=2), np.random.default_rng(1).normal(size=(2, 6))
    psi = phi @ theta.T
    rows = psi.reshape(-1, 2)
    covariance = rows.T @ rows / len(rows)
    expected = 0.3 * ((psi[:, 0] - psi[:, 1]) ** 2).sum(-1).mean()
    expected += ((covariance - np.eye(2)) ** 2).sum() + 2 * 0.05 * (theta**2).sum()
    found = ssl_interplay.moments(phi)  # pairs of two different views
    value = ssl_interplay.loss(theta, found, beta=0.3, penalty=0.05)
    assert value == pytest.approx(expected)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(2, 2)))[0]
    turned = ssl_interplay.loss(turn @ theta, found, beta=0.3, penalty=0.05)
    assert turned == pytest.approx(value)


def test_the_constant_is_invariant_and_identity_augmentation_is_the_identity():
    phi = np.concatenate([drawn(), np.ones((40, 3, 1))], axis=-1)
    for all_views in (True, False):
        found = ssl_interplay.moments(phi, all_views=all_views)
        constant = np.eye(7)[6]
        np.testing.assert_allclose(found.shared @ constant, found.whole @ constant, atol=1e-12)
    same = ssl_interplay.moments(np.repeat(drawn(views=1), 3, axis=1))
    np.testing.assert_allclose(ssl_interplay.operator_spectrum(same), 1, atol=1e-10)
    first, second = (ssl_interplay.solve(same, k=3, beta=b, penalty=0.1) for b in (0.0, 1.0))
    np.testing.assert_allclose(first.eigenvalues, second.eigenvalues)


def test_without_invariance_the_order_is_that_of_the_kernel():
    phi = drawn()
    found = ssl_interplay.moments(phi, all_views=True)
    best = ssl_interplay.solve(found, k=6, beta=0, penalty=0.1)
    kernel = np.linalg.eigvalsh(found.whole)[::-1]
    np.testing.assert_allclose(best.eigenvalues, 1 - 0.1 / kernel, rtol=1e-8)


def test_a_view_is_not_paired_with_itself():
    """Pure noise has no operator; with itself it would seem to have 1 / V."""
    noise = np.random.default_rng(0).normal(size=(20_000, 4, 2))
    unbiased, biased = (
        ssl_interplay.operator_spectrum(ssl_interplay.moments(noise, all_views=a))
        for a in (False, True)
    )
    np.testing.assert_allclose(unbiased, 0, atol=0.02)
    np.testing.assert_allclose(biased, 0.25, atol=0.02)


def test_descent_on_theta_finds_the_same_span_and_loss():
    found = ssl_interplay.moments(drawn(samples=200, noise=0.2), all_views=True)
    fields = dict(beta=0.8, penalty=0.02)
    best = ssl_interplay.solve(found, k=2, **fields)
    assert best.eigenvalues.min() > 0.05

    def value(flat):
        return ssl_interplay.loss(flat.reshape(2, 6), found, **fields)

    start = np.random.default_rng(0).normal(size=12)
    reached = minimize(value, start, method="L-BFGS-B", tol=1e-14)
    assert reached.fun == pytest.approx(best.loss, abs=1e-4)
    root = np.linalg.cholesky(found.whole)
    spans = [(theta @ root).T for theta in (reached.x.reshape(2, 6), best.theta)]
    assert subspace_angles(*spans).max() < 0.01


def test_the_penalty_is_a_threshold_and_empty_directions_do_no_harm():
    phi = np.pad(drawn(), [(0, 0), (0, 0), (0, 2)])  # two features that are always zero
    found = ssl_interplay.moments(phi, all_views=True)
    assert len(ssl_interplay.operator_spectrum(found)) == 6
    best = ssl_interplay.solve(found, k=8, beta=0.5, penalty=0.01)
    assert np.isfinite(best.theta).all() and best.theta.shape == (8, 8)
    np.testing.assert_array_equal(best.theta[6:], 0)
    none = ssl_interplay.solve(found, k=3, beta=0.5, penalty=1e4)
    np.testing.assert_array_equal(none.theta, 0)
    assert none.loss == 3 == ssl_interplay.loss(none.theta, found, beta=0.5, penalty=1e4)


def test_bad_input_is_one_line():
    found = ssl_interplay.moments(FOUR, all_views=True)
    with pytest.raises(ConfigError, match=r"found beta 1\.5"):
        ssl_interplay.solve(found, k=1, beta=1.5)
    with pytest.raises(ConfigError, match="V at least 2"):
        ssl_interplay.moments(FOUR[:, :1])
    with pytest.raises(ConfigError, match=r"ssl_interplay\.beta: found 2"):
        ssl_interplay.examine(None, beta=2.0)


def test_the_optimum_keeps_what_views_share_and_drops_what_they_do_not(monkeypatch):
    """Loud features that augmentation redraws hide the class from few dimensions of raw ones."""
    rng = np.random.default_rng(0)
    y = np.arange(300) % 2
    signal = lambda: (2.0 * y - 1)[:, None] * np.ones((1, 1)) + 0.1 * rng.normal(size=(300, 1))
    plain = lambda: np.concatenate([signal(), 5 * rng.normal(size=(300, 6))], axis=1)
    bank = lambda: Features(plain().astype(np.float32), y.astype(np.int32), np.arange(300))
    views = np.stack([plain() for _ in range(4)], axis=1)
    monkeypatch.setattr(of_views, "features", lambda *_, **__: (views, y))
    subject = types.SimpleNamespace(
        program=types.SimpleNamespace(source=None), train=bank(), test=bank(), num_classes=2
    )
    found = ssl_interplay.examine(subject, dimensions=2, penalty=1e-4)
    assert found["eigenvalue_1"] == pytest.approx(1, abs=1e-6)
    assert found["eigenvalue_2"] > 0.9 > 0.2 > found["eigenvalue_3"]
    assert found["accuracy"] > 0.95 and found["kept"] == 2
    blind = ssl_interplay.examine(subject, dimensions=1, penalty=1e-4)
    assert blind["accuracy"] < 0.7  # the constant alone


def test_two_moons_are_told_with_ten_labels_where_the_noise_is_neither_small_nor_large():
    """Of random Fourier features; the mean over twenty choices of the labels."""
    moons = functools.partial(make_moons, 400, noise=0.05)
    (x, y), (test, truth) = moons(random_state=0), moons(random_state=1)
    rng = np.random.default_rng(0)
    waves, shift = 2 * rng.normal(size=(2, 200)), rng.uniform(0, 2 * np.pi, 200)
    phi = lambda x: np.sqrt(2 / 200) * np.cos(x @ waves + shift)

    def error(see):
        wrong = []
        for seed in range(20):
            chosen = np.random.default_rng(seed)
            picked = [chosen.choice(np.flatnonzero(y == c), 5, replace=False) for c in (0, 1)]
            rows = np.concatenate(picked)
            readout = least_squares(see(x[rows]), 2.0 * y[rows, None] - 1, ridge=1e-2)
            wrong.append(((readout(see(test))[:, 0] > 0) != (truth == 1)).mean())
        return np.mean(wrong)

    def after(noise):
        views = x[:, None] + noise * rng.normal(size=(400, 8, 2))
        found = ssl_interplay.moments(phi(views))
        best = ssl_interplay.solve(found, k=4, beta=1, penalty=1e-4)
        return error(lambda x: phi(x) @ best.theta.T)

    small, middle, large = (after(noise) for noise in (0.01, 0.07, 2.0))
    assert middle < 0.75 * min(small, large, error(phi), error(lambda x: x))
