"""Scores of embeddings against learned prototypes, [..., D] to [..., K]."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl.config.by_name import check_positive
from jaxssl.losses.vectors import unit


class Prototypes(nn.Module):
    """s = x C^T, with the prototypes C as the rows of "vectors"; `build` describes the fields."""

    count: int
    normalize_input: bool
    weight_norm: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """x [..., D] -> scores [..., K], float32; `train` changes nothing."""
        del train
        # Rows of length about 1. Exact lengths would be sums, which shardings order differently.
        start = nn.initializers.normal(x.shape[-1] ** -0.5)
        vectors = self.param("vectors", start, (self.count, x.shape[-1]))
        x = unit(x) if self.normalize_input else x
        rows = unit(vectors) if self.weight_norm else vectors
        # Temperatures of some hundredths follow: the sums are float32 whatever the factors are.
        return jnp.einsum(
            "...d,kd->...k",
            x.astype(self.dtype),
            rows.astype(self.dtype),
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )


def build(
    *,
    count: int,
    normalize_input: bool = True,
    weight_norm: bool = False,
    dtype: Any = jnp.float32,
) -> Prototypes:
    """Prototypes, and the scores of embeddings against them.

    SwAV's head (Caron et al., 2020, arXiv 2006.09882) takes unit inputs; an optimizer group with
    `unit_rows` keeps its prototypes at unit length. DINO's last layer (Caron et al., 2021,
    arXiv 2104.14294) is `weight_norm` with a scale fixed at 1. At the start rows have a length of
    about 1.

    Args:
      count: K.
      normalize_input: x / |x| first.
      weight_norm: the rows v / |v| in the forward pass, whatever the length of the parameter.
      dtype: of the factors; parameters and scores are float32.

    >>> head, x = build(count=8), jnp.ones((4, 16))
    >>> variables = head.init(jax.random.key(0), x, train=False)
    >>> variables["params"]["vectors"].shape, head.apply(variables, x, train=False).shape
    ((8, 16), (4, 8))
    """
    check_positive("count", (count,))
    return Prototypes(count, normalize_input, weight_norm, dtype)
