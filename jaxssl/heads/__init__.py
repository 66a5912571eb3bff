"""Heads: linen networks on what an encoder gives; each module with a `build` is one.

A head is called as `head(x, train=..., **fields)`. x is what the head reads: embeddings [..., D],
tokens [B, T, D] or a tuple of maps [B, ..., C]; a head that declares `joins_views` gets all views
of a sample, [B, V, D]. `fields` are those keyword-only arguments of its `__call__` that a block
of views holds; all of them may be absent, and parameters do not depend on them:
- `tokens` [B, M] int: the patches that were kept, row by row over the grid;
- `mask` [B, T] bool: true where a patch was hidden;
- `targets` [B, K, M] int: the patches of K blocks to predict;
- `key` [B, 2] uint32: the data of one PRNG key per sample and view;
- `order` [B] int: the number of a permutation.
"""

import sys
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from jaxssl.config.by_name import build_by_name


def build(config: Mapping[str, Any], *, dtype: Any, field: str = "student.projector") -> nn.Module:
    """The head that `config` names, computing in `dtype`, with float32 parameters.

    Args:
      config: `{"name": ..., **fields}`.
      dtype: what it computes in and returns.
      field: where in the config it stands; error messages begin with it.

    Errors: ConfigError for an unknown name, field or value.

    >>> import jax.numpy as jnp
    >>> build({"name": "mlp", "widths": (32, 8)}, dtype=jnp.float32).widths
    (32, 8)
    """
    return build_by_name(sys.modules[__name__], config, field, dtype=dtype)
