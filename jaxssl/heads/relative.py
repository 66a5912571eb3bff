"""Where does each neighbour lie around the centre tile: [B, 9, D] to logits [B, 8, 8]."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError
from jaxssl.heads import mlp

TILES = 9
CENTRE = 4


class Relative(nn.Module):
    """A shared perceptron on (centre, neighbour); `build` describes the fields."""

    classify: mlp.MLP
    dtype: Any = jnp.float32

    joins_views = True  # it sees all views of a sample at once: they are its tiles

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Logits of the eight places for each of the eight neighbours.

        Args:
          x: [B, 9, D], the tiles of a 3 x 3 grid in reading order.
          train: batch statistics from the batch, or the running ones.

        Returns: [B, 8, 8]; neighbour k, in reading order without the centre, is of class k.

        Errors: ConfigError for another number of tiles.
        """
        if x.ndim != 3 or x.shape[1] != TILES:
            raise ConfigError(f"relative: found views {x.shape}, expected [B, {TILES}, D]: 3 x 3")
        around = jnp.delete(x, CENTRE, axis=1)
        centre = jnp.broadcast_to(x[:, CENTRE, None], around.shape)
        return self.classify(jnp.concatenate([centre, around], axis=-1), train=train)


def build(
    *, hidden: tuple[int, ...] = (512,), norm: str = "batch", dtype: Any = jnp.float32
) -> Relative:
    """The head of relative location.

    s_k = MLP([z_centre, z_k]) for the eight neighbours k, one of eight classes each. Doersch,
    Gupta, Efros, 2015, "Unsupervised visual representation learning by context prediction",
    arXiv 1505.05192.

    Args:
      hidden: widths of the hidden layers, with ReLU.
      norm: of the hidden layers: "batch", "layer" or "none".
      dtype: what it computes in and returns; parameters are float32.

    >>> init = lambda key: build().init_with_output(key, jnp.zeros((3, 9, 16)), train=False)
    >>> jax.eval_shape(init, jax.random.key(0))[0].shape
    (3, 8, 8)
    """
    return Relative(mlp.build(widths=(*hidden, TILES - 1), norm=norm, dtype=dtype), dtype)
