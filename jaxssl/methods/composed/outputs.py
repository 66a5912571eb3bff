"""The evaluation-mode encoders of a family: what the evals read of the student and its teachers."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from jaxssl import modalities
from jaxssl.method import Batch, Context, Info, Readout
from jaxssl.methods.composed.networks import Networks, accepts, joins_views, variables_of


def encoders_of(
    config: Any,
    info: Info,
    networks: Networks,
    own: Mapping[str, Networks] = MappingProxyType({}),
) -> dict[str, Readout]:
    """The student's encoder, and that of every teacher that follows one, by name.

    They read the params "encoder" and the statistics `extra["batch_stats"][name]["encoder"]`.

    Args:
      config, info: of the run.
      networks: the student's; outputs of heads are given, too, that make one vector of each
        sample's.
      own: of the teachers that have networks of their own.
    """
    plain = modalities.plain(config, info.fields)
    found = {"student": _encoder_of("student", plain, networks)}
    for name in config.teachers:
        follows = config.teachers[name].get("follows", ())
        if name in own or not follows or "encoder" in follows:
            found[name] = _encoder_of(name, plain, own.get(name, networks))
    return found


def _encoder_of(name: str, plain: Callable[[Batch], jax.Array], networks: Networks) -> Readout:
    def encode(context: Context) -> Mapping[str, jax.Array]:
        params, seen, extra, batch, *_ = context
        net = params if name == "student" else seen[name]
        stats = extra["batch_stats"][name]
        of = lambda network: variables_of(network, net, stats)
        outputs: Any = networks.encoder.apply(of("encoder"), plain(batch), train=False)
        found = dict(outputs)
        vectors = {"pooled"}
        for head, (network, reads, output, shares) in networks.heads.items():
            # Heads of one vector a sample; not those of tokens, or of other fields of a view. One
            # whose params were left behind, by somebody who wants another output, is passed over.
            alone = not joins_views(network) and not accepts(network)
            if reads in vectors and jax.tree.leaves(net.get(shares or head)) and alone:
                found[output] = network.apply(of(shares or head), found[reads], train=False)
                vectors.add(output)
        return {k: v.astype(jnp.float32) for k, v in found.items()}

    return encode
