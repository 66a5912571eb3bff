"""Log-mel spectrograms of waveforms: what the raw control, the report and the encoder share.

All is float32. The window and the filterbank are constants made with numpy.
"""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxssl.modalities.fourier import spectrum

TINY = 1e-10  # of the power under which nothing is told from silence


def hz_to_mel(hz: float | NDArray) -> NDArray:
    """Mels of a frequency by the formula of HTK: m = 2595 log10(1 + f / 700).

    Young et al. (2006), The HTK book, section 5.4, after O'Shaughnessy (1987).

    >>> float(hz_to_mel(1000.0).round(2))
    999.99
    """
    return 2595.0 * np.log10(1.0 + np.asarray(hz, np.float64) / 700.0)


def mel_to_hz(mel: float | NDArray) -> NDArray:
    """The inverse of `hz_to_mel`.

    >>> float(mel_to_hz(hz_to_mel(440.0)).round(6))
    440.0
    """
    return 700.0 * (10.0 ** (np.asarray(mel, np.float64) / 2595.0) - 1.0)


def filterbank(rate: float, fft: int, mels: int, low: float = 0.0, high: float = 0.0) -> NDArray:
    """Triangles of height 1 whose corners are equally spaced in mels, HTK's.

    Args:
      rate: samples a second.
      fft: points of the transform; it has fft // 2 + 1 bins.
      mels: number of bands M.
      low, high: where the first band begins and the last one ends, in Hz; high 0 is rate / 2.

    Returns:
      float32 [bins, M].

    >>> bank = filterbank(8000, 8, 2)  # bins at 0, 1, 2, 3 and 4 kHz; centres at 621 and 1,791 Hz
    >>> (100 * bank).round().astype(int).tolist()
    [[0, 0], [68, 32], [0, 91], [0, 45], [0, 0]]
    """
    edges = mel_to_hz(np.linspace(hz_to_mel(low), hz_to_mel(high or rate / 2), mels + 2))
    bins = np.arange(fft // 2 + 1)[:, None] * (rate / fft)
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rise, fall)).astype(np.float32)


def frames(x: jax.Array, window: int, hop: int) -> jax.Array:
    """Overlapping windows [B, F, window] of x [B, T], F = 1 + (T - window) // hop, at least 1.

    >>> frames(jnp.arange(7.0)[None], 4, 2)[0].astype(int).tolist()
    [[0, 1, 2, 3], [2, 3, 4, 5]]
    """
    count, blocks = 1 + max(0, x.shape[1] - window) // hop, -(-window // hop)
    length = (count + blocks - 1) * hop
    x = jnp.pad(x, ((0, 0), (0, max(0, length - x.shape[1]))))[:, :length]
    x = x.reshape(len(x), -1, hop)
    # Whole blocks side by side: a CPU is slow at picking samples one by one.
    return jnp.concatenate([x[:, i : i + count] for i in range(blocks)], -1)[..., :window]


def power(x: jax.Array, window: int, hop: int, fft: int = 0) -> jax.Array:
    """|STFT|^2 under a periodic Hann window, [B, T] -> float32 [B, F, fft // 2 + 1].

    Args:
      x: [B, T].
      window, hop: in samples.
      fft: points of the transform, at least `window`, which zeros fill up; 0 is `window`.

    >>> power(jnp.ones((2, 16)), 8, 4).shape
    (2, 3, 5)
    """
    hann = np.float32(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window))
    framed = frames(x.astype(jnp.float32), window, hop) * hann
    z = spectrum(jnp.pad(framed, ((0, 0), (0, 0), (0, max(0, fft - window)))))
    return jnp.square(z.real) + jnp.square(z.imag)


def decibels(x: jax.Array, span: float = 80.0) -> jax.Array:
    """10 log10 of the powers x [B, ...], of a sample at least its loudest less `span`.

    >>> decibels(jnp.array([[1.0, 10.0, 0.0]]), 30.0).tolist()
    [[0.0, 10.0, -20.0]]
    """
    peak = x.max(tuple(range(1, x.ndim)), keepdims=True)
    return 10.0 * jnp.log10(jnp.maximum(jnp.maximum(x, TINY), peak * 10.0 ** (-span / 10.0)))
