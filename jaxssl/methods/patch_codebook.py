"""A codebook of patches, by vector quantisation: the tokenizer of a later stage.

    L = mean_n |x_n - C_k(n)|^2 + mean over unused k of |C_k - x_n(k)|^2

over all patches x_n [P] of the views of a batch, with k(n) the nearest vector of a patch and n(k)
the nearest patch of a vector. The first term alone is k-means in its online form (MacQueen, 1967,
"Some methods for classification and analysis of multivariate observations"), as gradient descent
has it: Bottou, Bengio, 1995, "Convergence properties of the k-means algorithms". It leaves a vector
where it is that is nearest to no patch; the second term draws such vectors of the batch in, until
they are. It stands in for the image tokenizer of Bao et al., 2022, "BEiT: BERT pre-training of
image transformers", arXiv 2106.08254.

The patches are those of the one entry of `config.targets` with the name "codes", and the vectors
start as normal noise of the scale of normalised pixels. The params are {"codebook": {"vectors":
[K, P]}}.

Fields of `config.method_options`:
  count: K.

There are no activations that `train.microbatches` could save: it changes nothing here.

Metrics: `distance`, the first term, and `used`, the share of vectors that are nearest to a patch of
the batch.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange

from jaxssl import modalities
from jaxssl.config.by_name import check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import fold_name
from jaxssl.losses.vectors import nearest
from jaxssl.method import Aux, Batch, Context, Info, Method, PyTree
from jaxssl.methods import toolkit
from jaxssl.targets.pixels import patchify

OPTIONS = {"count": 0}


def build(config: Any, info: Info) -> Method:
    """The `Method` of a config with a target of codes, and no networks.

    Raises:
      ConfigError: naming the first field that does not fit.
    """
    toolkit.unread(config, "student", "teachers", "losses", "masks")
    count = toolkit.options(config, OPTIONS)["count"]
    check_positive("method_options.count", (count,))
    patch = _patch(config)
    make = modalities.build(config.views, info.fields, config.data)
    plain = modalities.plain(config, info.fields)

    def patches_of(key: jax.Array, batch: Batch) -> jax.Array:
        groups = make(fold_name(key, "views"), batch).values()
        found = [patchify(rearrange(x, "b v ... -> (b v) ..."), patch) for x in groups]
        return jnp.concatenate([rearrange(x, "b t p -> (b t) p") for x in found])

    def init(key: jax.Array, batch: Batch) -> tuple[PyTree, PyTree]:
        width = patches_of(key, batch).shape[-1]
        vectors = jax.random.normal(fold_name(key, "codebook"), (count, width))
        return {"codebook": {"vectors": vectors}}, {}

    def loss(context: Context) -> tuple[jax.Array, Aux]:
        params, _, extra, batch, key, _ = context
        distance, stray, used = quantization(patches_of(key, batch), params["codebook"]["vectors"])
        return distance + stray, Aux(extra, {"distance": distance, "used": used})

    def encode(context: Context) -> Mapping[str, jax.Array]:
        params, _, _, batch, *_ = context
        codes = nearest(patchify(plain(batch), patch), params["codebook"]["vectors"])
        tokens = jax.nn.one_hot(codes, count)
        return {"pooled": tokens.mean(1), "tokens": tokens}

    return Method(init, {"main": loss}, {"codes": encode})


def quantization(patches: jax.Array, vectors: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The two terms of the loss, and the share of vectors that are nearest to a patch.

    Args:
      patches: x [N, P]; no gradient to them.
      vectors: C [K, P].

    Returns:
      Three scalars, float32.

    >>> patches, vectors = jnp.array([[0.0], [3.0]]), jnp.array([[1.0], [9.0]])
    >>> [float(x) for x in quantization(patches, vectors)]
    [2.5, 36.0, 0.5]
    """
    x, c = jax.lax.stop_gradient(patches).astype(jnp.float32), vectors.astype(jnp.float32)
    fixed = jax.lax.stop_gradient(c)
    codes = nearest(x[None], fixed)[0]
    used = (codes[:, None] == jnp.arange(len(c))).any(0)
    distance = jnp.square(x - c[codes]).sum(-1).mean()
    drawn = nearest(fixed[None], x)[0]
    strays = jnp.where(used, 0.0, jnp.square(c - x[drawn]).sum(-1))
    return distance, strays.sum() / jnp.maximum((~used).sum(), 1), used.mean()


def _patch(config: Any) -> Any:
    """How the one target of codes cuts patches."""
    found = [name for name in config.targets if config.targets[name].get("name") == "codes"]
    if len(found) != 1:
        raise ConfigError(f"targets: found {len(found)} named 'codes', expected one")
    if "patch" not in config.targets[found[0]]:
        raise ConfigError(f"targets.{found[0]}.patch: missing; 'codes' needs it")
    return config.targets[found[0]].patch
