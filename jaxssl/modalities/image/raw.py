"""What the control without an encoder sees of an image: its pixels."""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.jit, static_argnames="size")
def raw(x: jax.Array, size: int = 32) -> jax.Array:
    """The image in [0, 1], at most `size` px a side, flattened.

    Args:
      x: uint8 [B, H, W, C] or [B, T, H, W, C] (or float, taken as it is).
      size: a longer side is reduced to this by antialiased linear resizing.

    Returns:
      float32 [B, D], D = min(H, size) * min(W, size) * C, times T for clips.

    >>> raw(jnp.full((2, 64, 16, 3), 255, jnp.uint8)).shape
    (2, 1536)
    """
    scale = 255.0 if jnp.issubdtype(x.dtype, jnp.integer) else 1.0
    x = x.astype(jnp.float32) / scale
    *lead, h, w, c = x.shape
    if h > size or w > size:
        x = jax.image.resize(x, (*lead, min(h, size), min(w, size), c), "linear")
    return x.reshape(len(x), -1)
