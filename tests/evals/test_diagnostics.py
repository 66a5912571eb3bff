import numpy as np
import pytest

from jaxssl.evals import diagnostics


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


def test_a_large_bank_is_read_evenly(monkeypatch):
    x = np.random.default_rng(2).normal(size=(101, 6))
    monkeypatch.setattr(diagnostics, "MAX_ROWS", 20)
    assert diagnostics.rankme(x) == diagnostics.rankme(x[::6])
