"""Encoders: linen networks from images to `{"pooled": [B, D], "tokens": [B, T, D], ...}`.

Each module exposes `build(**fields)`; `build` here finds it by `config.name`. Every encoder is
called as `encoder(x, train=..., keep=None, capture=())` with x [B, H, W, C] float; the ViT also
takes `tokens` and `mask`. `keep` are drop-path scales [B, encoder.drop_depth] (`stochastic_depth`).
An encoder with `joins_groups` also takes tuples of groups of views, and encodes them side by side.
"""

import sys
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from jaxssl.config.by_name import build_by_name


def build(config: Mapping[str, Any], *, dtype: Any, field: str = "encoder") -> nn.Module:
    """The encoder that `config` names, computing in `dtype`, with float32 parameters.

    Args:
      config: `{"name": ..., **fields}`.
      dtype: what it computes in and returns.
      field: where in the config it stands; error messages begin with it.

    Errors: ConfigError for an unknown name, field or value.

    >>> import jax.numpy as jnp
    >>> build({"name": "convnet", "widths": (8,), "strides": (1,)}, dtype=jnp.float32).widths
    (8,)
    """
    return build_by_name(sys.modules[__name__], config, field, dtype=dtype)
