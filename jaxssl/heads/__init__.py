"""Heads: linen networks on embeddings, [..., D] to [..., P]; each module exposes `build`."""

import sys
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from jaxssl.by_name import build_by_name


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
