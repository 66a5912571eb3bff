"""A log-mel spectrogram, and a plain convolutional network on it, for waveforms."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.encoders import convnet
from jaxssl.modalities import mel


class Spectrogram(nn.Module):
    """Log-mel front end without parameters, then `network`; `build` describes the fields."""

    network: convnet.ConvNet
    rate: float
    window: int
    hop: int
    fft: int
    mels: int
    low: float
    high: float
    span: float

    drop_depth = 0
    captures = ("stages",)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool,
        keep: jax.Array | None = None,
        capture: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """x [B, T] -> pooled [B, D], tokens [B, h*w, D], h along frequency and w along time."""
        picture = self.picture(x)
        return self.network(picture, train=train, keep=keep, capture=capture)

    def picture(self, x: jax.Array) -> jax.Array:
        """The spectrogram [B, M, F, 1] in [0, 1]: 1 is a sample's loudest, 0 is `span` dB below.

        The highest band comes first and time runs to the right, as a spectrogram is drawn; F is cut
        to what the network can fold. A factor of x changes nothing.
        """
        if x.ndim != 2:
            raise ConfigError(f"encoder: found waves of shape {x.shape}, expected [B, T]")
        powers = mel.power(x, self.window, self.hop, self.fft)
        bank = mel.filterbank(self.rate, self.fft, self.mels, self.low, self.high)
        bands = jnp.dot(powers, bank[:, ::-1], precision="highest")
        decibels = mel.decibels(bands, self.span)
        scaled = 1 + (decibels - decibels.max((1, 2), keepdims=True)) / self.span
        fold = self.network.space_to_depth
        kept = scaled.shape[1] // fold * fold
        return scaled[:, :kept].transpose(0, 2, 1)[..., None]


def build(
    *,
    rate: float,
    window: int = 400,
    hop: int = 160,
    fft: int = 512,
    mels: int = 64,
    low: float = 0.0,
    high: float = 0.0,
    span: float = 80.0,
    widths: tuple[int, ...] = (32, 32, 64, 64, 128),
    strides: tuple[int, ...] = (1, 1, 2, 1, 1),
    space_to_depth: int = 4,
    norm: str = "batch",
    dtype: Any = jnp.float32,
) -> Spectrogram:
    """A plain convolutional network on a log-mel spectrogram, which is float32 in any `dtype`.

    Args:
      rate: samples a second.
      window, hop, fft: of the Fourier transform, in samples (`mel.power`).
      mels: bands M, a multiple of `space_to_depth`.
      low, high: range of the bands in Hz; high 0 is half the rate.
      span: dB below the loudest of a sample that count as silence.
      widths, strides, space_to_depth, norm: as of `convnet`.
      dtype: what the network computes in; parameters are float32.

    >>> net, x = build(rate=8000, widths=(8, 16), strides=(1, 2)), jnp.zeros((3, 4000))
    >>> init = lambda key: net.init_with_output(key, x, train=False)
    >>> out, variables = jax.eval_shape(init, jax.random.key(0))
    >>> out["pooled"].shape, out["tokens"].shape
    ((3, 16), (3, 24, 16))
    """
    network = convnet.build(
        widths=widths, strides=strides, space_to_depth=space_to_depth, norm=norm, dtype=dtype
    )
    check_positive("hop", (hop,))
    check_positive("window", (window,))
    top = high or rate / 2
    if fft < window:
        raise ConfigError(f"fft: found {fft}, expected >= {window}, the window")
    if mels < 1 or mels % space_to_depth:
        raise ConfigError(f"mels: found {mels}, expected a multiple of {space_to_depth}")
    if not 0 <= low < top <= rate / 2:
        raise ConfigError(f"high: found {low} to {top}, expected a range in 0 to {rate / 2} Hz")
    if span <= 0:
        raise ConfigError(f"span: found {span}, expected decibels above zero")
    if not mel.filterbank(rate, fft, mels, low, high).any(0).all():
        raise ConfigError(f"mels: found {mels}, expected fewer: a band holds none of fft = {fft}")
    return Spectrogram(network, rate, window, hop, fft, mels, low, high, span)
