"""Spectrograms against scipy, and the filterbank against values computed by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from jaxssl.modalities import fourier, mel


@pytest.mark.parametrize(("window", "hop", "fft"), [(64, 32, 64), (100, 30, 128), (64, 80, 64)])
def test_power_by_its_definition(window, hop, fft):
    x = np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32)
    got = np.asarray(mel.power(jnp.asarray(x), window, hop, fft))
    assert got.shape == (3, 1 + (1000 - window) // hop, fft // 2 + 1)
    hann = scipy.signal.windows.hann(window, sym=False)
    starts = np.arange(got.shape[1]) * hop
    framed = np.stack([x[:, s : s + window] * hann for s in starts], 1)
    np.testing.assert_allclose(got, np.abs(np.fft.rfft(framed, fft)) ** 2, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("n", [1, 7, 64, 81, 512, 1031, 4096])
def test_the_transform_by_products_is_numpys(n):
    x = np.random.default_rng(0).normal(size=(3, n)).astype(np.float32)
    scale = np.sqrt(n)
    np.testing.assert_allclose(fourier.dft(jnp.asarray(x)), np.fft.fft(x), atol=1e-5 * scale)
    z = x + 1j * x[::-1]
    np.testing.assert_allclose(fourier.dft(jnp.asarray(z)), np.fft.fft(z), atol=2e-5 * scale)


@pytest.mark.parametrize("n", [64, 75, 512])
def test_filters_and_spectra_of_several_devices_are_those_of_one(n, monkeypatch):
    rng = np.random.default_rng(0)
    x, response = rng.normal(size=(2, n)), rng.uniform(size=(2, n // 2 + 1))
    want = np.fft.irfft(np.fft.rfft(x) * response, n), np.fft.rfft(x)
    x, response = (jnp.asarray(a, jnp.float32) for a in (x, response))
    for alone in (True, False):
        monkeypatch.setattr(fourier, "on_one_device", lambda alone=alone: alone)
        np.testing.assert_allclose(fourier.filtered(x, response), want[0], atol=1e-5)
        np.testing.assert_allclose(fourier.spectrum(x), want[1], atol=2e-4)


def test_energy_is_that_of_scipy_stft():
    x = np.random.default_rng(0).normal(size=(2, 2048)).astype(np.float32)
    options = dict(window="hann", nperseg=256, noverlap=128, boundary=None, padded=False)
    _, _, z = scipy.signal.stft(x, scaling="spectrum", **options)
    want = np.square(np.abs(z) * scipy.signal.get_window("hann", 256).sum()).transpose(0, 2, 1)
    got = np.asarray(mel.power(jnp.asarray(x), 256, 128))
    np.testing.assert_allclose(got, want, rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(got.sum(), want.sum(), rtol=1e-5)


def test_what_is_shorter_than_a_window_is_one_frame():
    assert mel.power(jnp.ones((1, 10)), 64, 32).shape == (1, 1, 33)


def test_the_filterbank_by_hand():
    """HTK's formula: 2,146 mels at 4 kHz; thirds of it are 715 and 1,431, 621 and 1,791 Hz."""
    top = 2595 * np.log10(1 + 4000 / 700)
    corners = [700 * (10 ** (top * k / 3 / 2595) - 1) for k in range(4)]
    bank = mel.filterbank(8000, 8, 2)
    assert bank.shape == (5, 2) and bank.dtype == np.float32
    want = np.zeros((5, 2))
    want[1] = (
        (corners[2] - 1000) / (corners[2] - corners[1]),
        (1000 - corners[1]) / (corners[2] - corners[1]),
    )
    want[2:4, 1] = [(corners[3] - f) / (corners[3] - corners[2]) for f in (2000, 3000)]
    np.testing.assert_allclose(bank, want, atol=1e-6)


def test_bands_sum_to_one_between_the_first_and_the_last_centre():
    bank = mel.filterbank(16_000, 1024, 40, 100.0, 7000.0)
    hz = np.arange(513) * 16_000 / 1024
    centres = mel.mel_to_hz(np.linspace(mel.hz_to_mel(100.0), mel.hz_to_mel(7000.0), 42))
    inside = (hz >= centres[1]) & (hz <= centres[-2])
    np.testing.assert_allclose(bank[inside].sum(1), 1, atol=1e-5)
    assert not bank[hz < 100].any() and not bank[hz > 7000].any()
