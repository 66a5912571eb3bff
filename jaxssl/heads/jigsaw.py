"""Which permutation were the tiles of an image put in: [B, V, D] to logits [B, K]."""

import functools
import itertools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.config.by_name import check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.heads import mlp

# 9! orders are 362,880; of 10 tiles there are ten times as many.
MOST_TILES = 9


@functools.cache
def permutation_set(tiles: int, count: int, seed: int = 0) -> np.ndarray:
    """`count` permutations far apart, [count, tiles] int32, read-only; the first is the identity.

    Each is the one with the largest mean Hamming distance to those before it, among equals the
    one with the largest smallest distance, among those a seeded choice. So the first `tiles` of
    them differ in every place. Noroozi and Favaro, 2016, "Unsupervised learning of visual
    representations by solving jigsaw puzzles", arXiv 1603.09246.

    Args:
      tiles: 2 to 9.
      count: at most tiles!.
      seed: of the choice among equals.

    Errors: ConfigError for numbers out of range.

    >>> permutation_set(3, 3).sum(0).tolist()
    [3, 3, 3]
    """
    if not 2 <= tiles <= MOST_TILES:
        raise ConfigError(f"tiles: found {tiles}, expected 2 to {MOST_TILES}")
    if not 1 <= count <= math.factorial(tiles):
        raise ConfigError(
            f"permutations: found {count}, expected 1 to {math.factorial(tiles)} for {tiles} tiles"
        )
    flat = itertools.chain.from_iterable(itertools.permutations(range(tiles)))
    # One row per place: comparing along the long axis is several times faster.
    every = np.fromiter(flat, np.int8).reshape(-1, tiles).T.copy()
    # A fixed random value per permutation, below the integer steps of the scores, breaks ties.
    tie = np.random.default_rng(seed).random(every.shape[1]) * 0.5
    total = np.zeros(every.shape[1])
    nearest = np.full(every.shape[1], tiles, np.int8)
    chosen = [0]
    while len(chosen) < count:
        distance = (every != every[:, chosen[-1:]]).sum(0, dtype=np.int8)
        total += distance
        nearest = np.minimum(nearest, distance)
        # Zero to itself alone: what was chosen is out.
        score = np.where(nearest == 0, -1.0, total * (tiles + 1) + nearest + tie)
        chosen.append(int(score.argmax()))
    found = every[:, chosen].T.astype(np.int32)
    found.flags.writeable = False
    return found


class Jigsaw(nn.Module):
    """One shared layer per tile, then a perceptron on all; `build` describes the fields."""

    tile: mlp.MLP
    classify: mlp.MLP
    orders: tuple[tuple[int, ...], ...]
    dtype: Any = jnp.float32

    joins_views = True  # it sees all views of a sample at once: they are its tiles

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, order: jax.Array | None = None) -> jax.Array:
        """Logits of the permutations, once the tiles are put in permutation number `order`.

        Args:
          x: [B, V, D], the tiles of each image in reading order.
          train: batch statistics from the batch, or the running ones.
          order: [B] int, the label; None for the identity.

        Returns: [B, K].

        Errors: ConfigError for another number of tiles.
        """
        tiles = len(self.orders[0])
        if x.ndim != 3 or x.shape[1] != tiles:
            raise ConfigError(f"jigsaw: found views {x.shape}, expected [B, {tiles}, D]: the tiles")
        if order is not None:
            # Place j of the puzzle shows tile orders[order, j].
            places = jnp.asarray(self.orders, jnp.int32)[order]
            x = jnp.take_along_axis(x, places[..., None], axis=1)
        x = nn.relu(self.tile(x, train=train))
        return self.classify(x.reshape(len(x), -1), train=train)


def build(
    *,
    tiles: int = 9,
    permutations: int = 100,
    width: int = 1000,
    hidden: tuple[int, ...] = (),
    norm: str = "batch",
    seed: int = 0,
    dtype: Any = jnp.float32,
) -> Jigsaw:
    """The head of the jigsaw puzzle.

    Each tile's features pass linear - norm - ReLU with shared weights; side by side, in the order
    of the puzzle, they pass a perceptron to one logit per permutation. Noroozi and Favaro, 2016,
    arXiv 1603.09246; layers as in Goyal et al., 2019, "Scaling and benchmarking self-supervised
    visual representation learning", arXiv 1905.01235.

    Args:
      tiles: V, the number of views.
      permutations: K, the size of `permutation_set`.
      width: features per tile.
      hidden: widths of hidden layers after the tiles are joined.
      norm: "batch", "layer" or "none".
      seed: of `permutation_set`.
      dtype: what it computes in and returns; parameters are float32.

    >>> head = build(tiles=4, permutations=24, width=8)
    >>> init = lambda key: head.init_with_output(key, jnp.zeros((3, 4, 16)), train=False)
    >>> jax.eval_shape(init, jax.random.key(0))[0].shape
    (3, 24)
    """
    check_positive("width", (width,))
    orders = tuple(
        tuple(int(place) for place in row) for row in permutation_set(tiles, permutations, seed)
    )
    tile = mlp.build(widths=(width,), norm=norm, last_norm=norm != "none", dtype=dtype)
    classify = mlp.build(widths=(*hidden, permutations), norm=norm, dtype=dtype)
    return Jigsaw(tile, classify, orders, dtype)
