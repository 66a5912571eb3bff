"""Transposed convolutions as plain ones whose channels are then laid out as places.

XLA's transposed convolution multiplies with the zeros between the places of the spread map, and on
a CPU its gradients leave the fast code: they took several times as long as those of the plain
convolution below.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError
from jaxssl.encoders.convolution import Plain, convolution


class ConvTranspose(nn.Module):
    """`flax.linen.ConvTranspose` with padding "SAME": its parameters, values and gradients.

    kernel_size: sides of the kernel, each a multiple of the stride.
    strides: how many times longer each side becomes.
    """

    features: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    use_bias: bool = True
    kernel_init: Any = nn.initializers.lecun_normal()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """From a map [B, *spatial, I] to one of longer sides, [B, *spatial', features].

        Errors: ConfigError for a kernel that is no multiple of the stride.
        """
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        y = conv_transpose(x.astype(self.dtype), kernel.astype(self.dtype), self.strides)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias.astype(self.dtype)
        return y


def conv_transpose(x: jax.Array, kernel: jax.Array, strides: Sequence[int]) -> jax.Array:
    """`jax.lax.conv_transpose` with padding "SAME" and kernels that are multiples of the strides.

    Along one axis, with stride s, k taps and p places of padding before,

      y[s i + a] = sum_t x[i + (a + t - p) / s] W[t], over the t with s | a + t - p,

    so each of the s phases a is a plain convolution of x with k / s of the taps. One convolution
    makes all of them as channels. Shi et al., 2016, "Real-time single image and video
    super-resolution using an efficient sub-pixel convolutional neural network", arXiv 1609.05158.

    Args:
      x: [B, *spatial, I].
      kernel: W [*window, I, O].
      strides: of each axis.

    Returns:
      [B, *spatial', O], each side `strides` times as long.

    Raises:
      ConfigError: for a kernel that is no multiple of the strides.

    >>> conv_transpose(jnp.array([[[1.0], [2.0]]]), jnp.array([[[3.0]], [[5.0]]]), (2,))[0, :, 0]
    Array([ 5.,  3., 10.,  6.], dtype=float32)
    """
    window, width = kernel.shape[:-2], kernel.shape[-1]
    if len(window) != len(strides) or any(k % s for k, s in zip(window, strides)):
        raise ConfigError(
            f"conv_transpose: found a kernel {window} and strides {tuple(strides)}, expected "
            "kernels that are multiples of the strides"
        )
    axes = [_phases(k, s) for k, s in zip(window, strides)]
    before = [-min(first for first, _ in axis) for axis in axes]
    after = [
        max(first for first, _ in axis) + k // s - 1 for axis, k, s in zip(axes, window, strides)
    ]
    phases = list(itertools.product(*axes))
    taps = [kernel[tuple(slice(t, None, s) for (_, t), s in zip(p, strides))] for p in phases]
    # Padded beforehand: a convolution whose result is the larger map has a slow gradient on a CPU.
    padded = jnp.pad(x, [(0, 0), *zip(before, after), (0, 0)])
    plain = Plain((1,) * len(window), ((0, 0),) * len(window))
    y = convolution(padded, jnp.concatenate(taps, axis=-1), plain)
    parts = []
    for i, phase in enumerate(phases):
        places = (
            slice(pad + first, pad + first + n)
            for pad, (first, _), n in zip(before, phase, x.shape[1:-1])
        )
        parts.append(y[(slice(None), *places, slice(i * width, (i + 1) * width))])
    return _interleaved(jnp.stack(parts, axis=-2), strides)


def _phases(taps: int, stride: int) -> list[tuple[int, int]]:
    """For each phase a: the offset of the first place it reads, and the first tap it reads with.

    >>> _phases(4, 2), _phases(2, 2)
    ([(-1, 0), (0, 1)], [(0, 1), (0, 0)])
    """
    pad = taps - 1 if stride > taps - 1 else (taps + stride - 1) // 2  # as `jax.lax`
    first = [(pad - a) % stride for a in range(stride)]
    return [((a + t - pad) // stride, t) for a, t in enumerate(first)]


def _interleaved(y: jax.Array, strides: Sequence[int]) -> jax.Array:
    """[B, *spatial, prod(strides), O] to [B, *spatial', O], phases between the places."""
    batch, *spatial, _, width = y.shape
    d = len(spatial)
    y = y.reshape(batch, *spatial, *strides, width)
    order = [0, *itertools.chain(*((1 + i, 1 + d + i) for i in range(d))), 2 * d + 1]
    sides = [n * s for n, s in zip(spatial, strides)]
    return y.transpose(order).reshape(batch, *sides, width)
