"""A convolutional decoder: the places of a small map see each other, then it grows to an image."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.encoders.convolution import Conv
from jaxssl.heads.upsampling import ConvTranspose


class ImageDecoder(nn.Module):
    """Channel-wise connection of all places, then doublings; `build` describes the fields."""

    widths: tuple[int, ...]
    channels: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Draw an image.

        Args:
          x: [B, T, D], a square map row by row.
          train: changes nothing here; every head takes it.

        Returns: [B, s, s, C], s = sqrt(T) 2^n for n widths.

        Errors: ConfigError for tokens that are no square.
        """
        del train
        places, width = x.shape[1:]
        side = math.isqrt(places)
        if side**2 != places:
            raise ConfigError(f"image_decoder: found {places} tokens, expected those of a square")
        kernel = self.param(
            "channelwise",
            nn.initializers.variance_scaling(2.0, "fan_in", "normal", 1, 2, batch_axis=0),
            (width, places, places),
        )
        bias = self.param("channelwise_bias", nn.initializers.zeros, (width,))
        mixed = jnp.einsum("btd,dts->bsd", x.astype(self.dtype), kernel.astype(self.dtype))
        y = nn.relu(mixed + bias.astype(self.dtype)).reshape(len(x), side, side, width)
        for i, width in enumerate(self.widths):
            y = ConvTranspose(
                width,
                (4, 4),
                strides=(2, 2),
                use_bias=False,
                kernel_init=nn.initializers.he_normal(),
                dtype=self.dtype,
                name=f"up{i}",
            )(y)
            y = nn.GroupNorm(math.gcd(32, width), dtype=self.dtype, name=f"norm{i}")(y)
            y = nn.relu(y)
        return Conv(self.channels, (3, 3), dtype=self.dtype, name="image")(y)


def build(*, widths: tuple[int, ...], channels: int, dtype: Any = jnp.float32) -> ImageDecoder:
    """The decoder of a context encoder: one linear layer over the places of each channel alone,
    then transposed convolutions.

    y[s, d] = relu(sum_t W[d, t, s] x[t, d] + b[d]), D T^2 weights where a layer between all numbers
    of a map would have (D T)^2; then 4 x 4 transposed convolutions, each of which doubles the side
    and is followed by a group norm and a ReLU; then a 3 x 3 convolution to the channels. Pathak,
    Krähenbühl, Donahue, Darrell, Efros, 2016, "Context encoders: feature learning by inpainting",
    arXiv 1604.07379, with batch norm.

    Args:
      widths: channels after each doubling.
      channels: C of the image.
      dtype: what it computes in and returns; parameters are float32.

    >>> head = build(widths=(8, 4), channels=1)
    >>> init = lambda key: head.init_with_output(key, jnp.zeros((3, 4, 16)), train=False)
    >>> jax.eval_shape(init, jax.random.key(0))[0].shape
    (3, 8, 8, 1)
    """
    check_positive("widths", widths)
    check_positive("channels", (channels,))
    return ImageDecoder(tuple(widths), channels, dtype)
