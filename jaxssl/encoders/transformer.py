"""Pre-norm transformer blocks on [B, T, D], looped or scanned; for encoders, predictors, decoders.

A row of T tokens may hold several sequences, one after another: its `parts`, pairs (V, N) of V
sequences of N tokens. Attention stays within a sequence; everything else is token by token. Views
of different sizes so pass each block as one, and what a block needs is fetched once for all.

Vaswani et al. 2017, "Attention Is All You Need", arXiv:1706.03762; the pre-norm form as in
Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", arXiv:2010.11929.
"""

import itertools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax.linen.dtypes import promote_dtype

from jaxssl.config.by_name import check_choice
from jaxssl.devices.sharding import batch_sharded, check_model_axis
from jaxssl.encoders.activations import gelu, swiglu

FFNS = ("mlp", "swiglu")
ATTENTIONS = ("einsum", "fused")
REMATS = ("none", "full", "dots")

# (V, N) of V sequences of N tokens, one after another; the sum of V N is T.
Parts = tuple[tuple[int, int], ...]

_kernel_init = nn.initializers.truncated_normal(0.02)


def layer_norm(dtype: Any, name: str) -> nn.LayerNorm:
    """Layer normalisation with the transformer's epsilon, 1e-6; statistics in float32."""
    return nn.LayerNorm(epsilon=1e-6, dtype=dtype, name=name)


class Attention(nn.Module):
    """Multi-head self-attention, softmax(Q K^T / sqrt(D / H)) V; the softmax in float32.

    Attributes:
      heads: H, which divides D.
      qkv_bias: bias of the query, key and value projection.
      implementation: "einsum" or "fused" (`jax.nn.dot_product_attention`; cuDNN's flash attention
        on a GPU in half precision).
      weights: also return the attention weights, float32; always by einsum.
      parts: the sequences that a row holds.
    """

    heads: int
    qkv_bias: bool
    implementation: str
    weights: bool
    parts: Parts
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """x [B, T, D] -> ([B, T, D], weights [B, V, H, N, N] of each part, or none)."""
        width = x.shape[-1]
        check_model_axis(self.heads, "heads of attention")
        qkv = nn.Dense(
            3 * width,
            use_bias=self.qkv_bias,
            kernel_init=_kernel_init,
            dtype=self.dtype,
            name="qkv",
        )(x)
        qkv = batch_sharded(qkv)
        values, weights = [], []
        for part, (views, _) in zip(split_parts(qkv, self.parts), self.parts):
            q, k, v = rearrange(
                part, "b (v t) (n h d) -> n (b v) t h d", v=views, n=3, h=self.heads
            )
            y, attention = self._attend(q, k, v)
            values.append(rearrange(y, "(b v) t h d -> b (v t) (h d)", v=views))
            if attention is not None:
                weights.append(rearrange(attention, "(b v) ... -> b v ...", v=views))
        y = batch_sharded(jnp.concatenate(values, axis=1))
        out = nn.Dense(width, kernel_init=_kernel_init, dtype=self.dtype, name="out")(y)
        return out, tuple(weights)

    def _attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array
    ) -> tuple[jax.Array, jax.Array | None]:
        """Queries, keys and values [B, T, H, d] -> ([B, T, H, d], weights [B, H, T, T] or None)."""
        if self.implementation == "fused" and not self.weights:
            return _fused(q, k, v), None
        logits = jnp.einsum("bthd,bshd->bhts", q, k, preferred_element_type=jnp.float32)
        softmax = jax.nn.softmax(logits * q.shape[-1] ** -0.5)
        y = jnp.einsum("bhts,bshd->bthd", softmax.astype(self.dtype), v)
        return y, softmax if self.weights else None


def _fused(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Attention [B, T, H, d] that keeps no weights; by cuDNN where that can run.

    That is on a GPU, in half precision, for a head width of 8 n. Its gradient takes sequences of
    even length alone, so that others get one more token, which nobody attends to.
    """
    half, length = q.dtype in (jnp.bfloat16, jnp.float16), q.shape[1]
    if jax.default_backend() != "gpu" or not half or q.shape[-1] % 8:
        return jax.nn.dot_product_attention(q, k, v)
    keys = None
    if length % 2:
        q, k, v = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (q, k, v))
        keys = jnp.full(len(k), length, jnp.int32)
    y = jax.nn.dot_product_attention(q, k, v, key_value_seq_lengths=keys, implementation="cudnn")
    return y[:, :length]


class FeedForward(nn.Module):
    """ "mlp": W2 gelu(W1 x); "swiglu": W2 (silu(W1 x) * W3 x), Shazeer 2020, arXiv:2002.05202.

    SwiGLU's hidden width is 2/3 of the MLP's, rounded up to a multiple of 8, which keeps the count
    of parameters.
    """

    kind: str
    mlp_ratio: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, T, D] -> [B, T, D]."""
        width = x.shape[-1]
        hidden = int(width * self.mlp_ratio)

        def dense(kind: type[nn.Dense], features: int, name: str) -> nn.Dense:
            return kind(features, kernel_init=_kernel_init, dtype=self.dtype, name=name)

        if self.kind == "swiglu":
            hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
            y, bias = dense(Product, 2 * hidden, "gate_up")(x)
            y = swiglu(batch_sharded(y), bias)
        else:
            y, bias = dense(Product, hidden, "up")(x)
            y = gelu(batch_sharded(y), bias)
        return dense(nn.Dense, width, "down")(y)


class Product(nn.Dense):
    """`flax.linen.Dense` that leaves adding its bias to what follows: x W and b.

    What a gradient keeps is then the product as it was made, and one pass over it less.
    """

    @nn.compact
    def __call__(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """inputs [..., D] -> ([..., features], [features])."""
        shape = (inputs.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        x, kernel, bias = promote_dtype(inputs, kernel, bias, dtype=self.dtype)
        return jnp.dot(x, kernel, precision=self.precision), bias


class Block(nn.Module):
    """x += keep * s1 * attention(norm(x)); x += keep * s2 * ffn(norm(x)).

    s1 and s2 [D] are the layer scale of Touvron et al. 2021, "Going deeper with Image
    Transformers", arXiv:2103.17239; a `layer_scale` of 0 means none.
    """

    heads: int
    ffn: str
    mlp_ratio: float
    qkv_bias: bool
    layer_scale: float
    attention: str
    weights: bool
    parts: Parts
    dtype: Any

    @nn.compact
    def __call__(
        self, x: jax.Array, keep: jax.Array | None
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """x [B, T, D], keep [B, T] or None -> (x [B, T, D], attention weights of each part)."""
        attention = Attention(
            self.heads,
            self.qkv_bias,
            self.attention,
            self.weights,
            self.parts,
            self.dtype,
            name="attention",
        )
        # Split by sample between all matrix products: what moves under FSDP is then the params.
        y, weights = attention(batch_sharded(layer_norm(self.dtype, "norm1")(x)))
        x = x + self._scaled(batch_sharded(y), keep, "scale1")
        y = FeedForward(self.ffn, self.mlp_ratio, self.dtype, name="ffn")(
            batch_sharded(layer_norm(self.dtype, "norm2")(x))
        )
        return batch_sharded(x + self._scaled(batch_sharded(y), keep, "scale2")), weights

    def _scaled(self, y: jax.Array, keep: jax.Array | None, name: str) -> jax.Array:
        if self.layer_scale:
            scale = self.param(name, nn.initializers.constant(self.layer_scale), (y.shape[-1],))
            y = y * scale.astype(self.dtype)
        return y if keep is None else y * keep[..., None].astype(self.dtype)


class Transformer(nn.Module):
    """`depth` blocks; with `scan`, one compiled block over stacked parameters ("blocks/...").

    Attributes:
      depth: number of blocks; 0 hands the tokens on as they are.
      heads: H.
      ffn: "mlp" or "swiglu".
      mlp_ratio: hidden width over D (for SwiGLU, before its factor 2/3).
      qkv_bias: bias of the query, key and value projection.
      layer_scale: initial layer scale; 0 for none.
      attention: "einsum" or "fused".
      scan: compile one block and scan it over the layers, instead of `depth` copies.
      remat: "none"; "full" recomputes each block in the backward pass; "dots" keeps its matrix
        products by parameters and recomputes the rest.
      dtype: what it computes in; parameters are float32.
    """

    depth: int
    heads: int
    ffn: str = "mlp"
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    layer_scale: float = 0.0
    attention: str = "einsum"
    scan: bool = False
    remat: str = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        parts: Parts | None = None,
        keep: jax.Array | None = None,
        layers: bool = False,
        weights: bool = False,
    ) -> tuple[jax.Array, jax.Array | None, tuple[jax.Array, ...]]:
        """Run the blocks.

        Args:
          x: [B, T, D].
          parts: (V, N) of the sequences that a row holds; None for one of T tokens.
          keep: drop-path scales [B, V, depth] of every sequence, V summed over the parts, or None;
            both branches of a block share one.
          layers: also return every block's output.
          weights: also return the attention of the last block.

        Returns: (x [B, T, D], outputs [B, L, T, D] or None, attention [B, V, H, N, N] of each part,
          or none).
        """
        parts = parts or ((1, x.shape[1]),)
        if keep is not None:  # a scale for every token, [depth, B, T]
            lengths = [length for views, length in parts for _ in range(views)]
            keep = jnp.moveaxis(keep, -1, 0)[..., np.repeat(np.arange(len(lengths)), lengths)]
        if self.scan and self.depth:
            return self._scanned(x, keep, parts, layers, weights)
        outputs: list[jax.Array] = []
        attention: tuple[jax.Array, ...] = ()
        for i in range(self.depth):
            block = self._block(weights and i == self.depth - 1, parts, f"block{i}")
            x, attention = block(x, None if keep is None else keep[i])
            outputs.append(x)
        if not layers:
            return x, None, attention
        none = jnp.zeros((x.shape[0], 0, *x.shape[1:]), x.dtype)
        return x, jnp.stack(outputs, axis=1) if outputs else none, attention

    def _scanned(
        self, x: jax.Array, keep: jax.Array | None, parts: Parts, layers: bool, weights: bool
    ) -> tuple[jax.Array, jax.Array | None, tuple[jax.Array, ...]]:
        # The attention travels in the carry, so that only the last block's is kept.
        shapes = [(x.shape[0], v, self.heads, n, n) for v, n in parts if weights]

        def body(block: nn.Module, carry: Any, kept: jax.Array | None) -> Any:
            y, attention = block(carry[0], kept)
            return (y, attention), y if layers else None

        scan = nn.scan(
            body,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            out_axes=1,
            length=self.depth,
        )
        start = (x, tuple(map(jnp.zeros, shapes)))
        (x, attention), outputs = scan(self._block(weights, parts, "blocks"), start, keep)
        return x, outputs, attention

    def _block(self, weights: bool, parts: Parts, name: str) -> nn.Module:
        policies: dict[str, Callable[..., bool] | None] = {
            "full": None,
            "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        }
        kind: Any = Block
        if self.remat != "none":
            # Inside a scan the compiler cannot merge the recomputation with the forward pass.
            kind = nn.remat(Block, policy=policies[self.remat], prevent_cse=not self.scan)
        return kind(
            heads=self.heads,
            ffn=self.ffn,
            mlp_ratio=self.mlp_ratio,
            qkv_bias=self.qkv_bias,
            layer_scale=self.layer_scale,
            attention=self.attention,
            weights=weights,
            parts=parts,
            dtype=self.dtype,
            name=name,
        )


def split_parts(x: jax.Array, parts: Parts, axis: int = 1) -> list[jax.Array]:
    """The parts of an axis of T tokens, V N tokens each.

    >>> [part.shape for part in split_parts(jnp.zeros((5, 10)), ((2, 3), (1, 4)))]
    [(5, 6), (5, 4)]
    """
    ends = list(itertools.accumulate(views * length for views, length in parts))
    return jnp.split(x, ends[:-1], axis=axis)


def check_transformer(ffn: str, attention: str, remat: str) -> None:
    """Raise ConfigError where a named choice of `Transformer` is not one that it knows."""
    check_choice("ffn", ffn, FFNS)
    check_choice("attention", attention, ATTENTIONS)
    check_choice("remat", remat, REMATS)
