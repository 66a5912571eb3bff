"""Fourier transforms of a batch that may be split over devices, without a word between these.

XLA's partitioner knows no FFT of a batch that is split: it gathers the whole of it on each device.
Matrix products stay where their samples are. On two CPU cores they take three to six times as long,
so a single device has the FFT.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxssl.devices.sharding import on_one_device

DIRECT = 64  # points that one product transforms


def spectrum(x: jax.Array) -> jax.Array:
    """X[k], k <= N / 2, of real x [..., N]: complex64 [..., N // 2 + 1].

    >>> spectrum(jnp.ones(8)).real.round(3).tolist()
    [8.0, 0.0, 0.0, 0.0, 0.0]
    """
    return jnp.fft.rfft(x) if on_one_device() else dft(x)[..., : x.shape[-1] // 2 + 1]


def filtered(x: jax.Array, response: jax.Array) -> jax.Array:
    """Real x [..., N] with its spectrum multiplied by a real response [..., N // 2 + 1].

    >>> filtered(jnp.array([1.0, 3.0, 5.0, 3.0]), jnp.array([1.0, 0.0, 0.0])).tolist()
    [3.0, 3.0, 3.0, 3.0]
    """
    n = x.shape[-1]
    if on_one_device():
        return jnp.fft.irfft(jnp.fft.rfft(x) * response, n)
    whole = response[..., np.minimum(np.arange(n), n - np.arange(n))]
    return dft(jnp.conj(dft(x) * whole)).real / n  # of a real signal


def dft(x: jax.Array) -> jax.Array:
    """X[k] = sum_n x[n] exp(-2 pi i n k / N) over the last axis, complex64 [..., N].

    With N = P Q, n = Q p + q and k = r + P s, the sums over p and over q are transforms of P and of
    Q points, with the factors exp(-2 pi i q r / N) between them. Cooley, Tukey (1965), An algorithm
    for the machine calculation of complex Fourier series. A large prime is one large product.

    >>> dft(jnp.array([1.0, 0.0, -1.0, 0.0])).real.round(3).tolist()
    [0.0, 2.0, 0.0, 2.0]
    """
    n = x.shape[-1]
    p = next(d for d in range(math.isqrt(n), 0, -1) if n % d == 0)
    if n <= DIRECT or p == 1:
        real, imaginary = _circle(np.outer(np.arange(n), np.arange(n)), n)
        times = lambda part, matrix: jnp.dot(part, matrix, precision="highest")
        if not jnp.iscomplexobj(x):
            return jax.lax.complex(times(x, real), times(x, imaginary))
        both = jnp.concatenate([x.real, x.imag], -1)
        return jax.lax.complex(
            times(both, np.concatenate([real, -imaginary])),
            times(both, np.concatenate([imaginary, real])),
        )
    q = n // p
    over_p = jnp.swapaxes(dft(jnp.swapaxes(x.reshape(*x.shape[:-1], p, q), -1, -2)), -1, -2)
    turns = jax.lax.complex(*map(jnp.asarray, _circle(np.outer(np.arange(p), np.arange(q)), n)))
    return jnp.swapaxes(dft(over_p * turns), -1, -2).reshape(*x.shape[:-1], n)


def _circle(steps: NDArray, n: int) -> tuple[NDArray, NDArray]:
    """exp(-2 pi i steps / n): its real and its imaginary part."""
    angles = -2 * np.pi * (steps % n) / n
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
