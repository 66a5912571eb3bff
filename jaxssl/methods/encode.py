"""The evaluation-mode encoders of a family: what the evals read of the student and its teachers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl import views
from jaxssl.method import Batch, EncodeFn, PyTree
from jaxssl.methods.networks import Head, accepts, joins_views, variables_of


def encoders_of(
    config: Any, module: nn.Module, heads: Mapping[str, Head] = MappingProxyType({})
) -> dict[str, EncodeFn]:
    """The student's encoder, and that of every teacher that follows one, by name.

    They read the params "encoder" and the statistics `extra["batch_stats"][name]["encoder"]`.

    Args:
      config: of the run.
      module: the encoder.
      heads: whose outputs are given, too, where they make one vector of each sample's.
    """
    found = {"student": _encoder_of("student", config, module, heads)}
    for name in config.teachers:
        follows = config.teachers[name].get("follows", ())
        if not follows or "encoder" in follows:
            found[name] = _encoder_of(name, config, module, heads)
    return found


def _encoder_of(name: str, config: Any, module: nn.Module, heads: Mapping[str, Head]) -> EncodeFn:
    def encode(
        params: PyTree, seen: Mapping[str, PyTree], extra: PyTree, batch: Batch
    ) -> Mapping[str, jax.Array]:
        net = params if name == "student" else seen[name]
        size = config.evals.size or batch["image"].shape[-2]
        x = views.evaluation_view(
            batch["image"], size=size, mean=config.data.mean, std=config.data.std
        )
        stats = extra["batch_stats"][name]
        of = lambda network: variables_of(network, net, stats)
        outputs: Any = module.apply(of("encoder"), x, train=False)
        found = dict(outputs)
        vectors = {"pooled"}
        for head, (network, reads, output, shares) in heads.items():
            # Heads of one vector a sample; not those of tokens, or of other fields of a view. One
            # whose params were left behind, by somebody who wants another output, is passed over.
            alone = not joins_views(network) and not accepts(network)
            if reads in vectors and jax.tree.leaves(net.get(shares or head)) and alone:
                found[output] = network.apply(of(shares or head), found[reads], train=False)
                vectors.add(output)
        return {k: v.astype(jnp.float32) for k, v in found.items()}

    return encode
