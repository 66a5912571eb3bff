"""Relational reasoning: a head tells pairs of views of one sample from pairs of two samples.

Patacchiola and Storkey, 2020, "Self-supervised relational reasoning for representation learning",
arXiv 2006.05849. All views of all groups pass the encoder; `losses.relation_pairs` pairs their
pooled outputs over the global batch; the head `student.relation`, of one output, sees all pairs at
once (its batch norm, positives and negatives together); `losses.sigmoid_focal` of its
logits is the loss. Nothing is normalised, and there is no projector and no teacher.

Fields of `config.method_options`:
  aggregation: how two embeddings become the head's input: "cat", "sum", "mean" or "max".
  gamma, alpha: of the loss.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl import encoders, heads, losses, modalities
from jaxssl.config.by_name import check_choice
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import fold_name
from jaxssl.devices.chunking import chunked
from jaxssl.devices.sharding import batch_sharded
from jaxssl.losses.relations import AGGREGATIONS
from jaxssl.method import Aux, Batch, Context, Info, Method, PyTree
from jaxssl.methods import toolkit
from jaxssl.methods.composed import outputs as encode
from jaxssl.methods.composed.networks import DTYPES, Networks
from jaxssl.state import example_batch

OPTIONS = {"aggregation": "cat", "gamma": 2.0, "alpha": 0.5}


def build(config: Any, info: Info) -> Method:
    """The `Method` of a relational-reasoning config.

    Raises:
      ConfigError: naming the first field that does not fit.
    """
    options = _options(config)
    toolkit.unread(config, "teachers", "losses")
    make = modalities.build(config.views, info.fields, config.data)
    groups = _groups(config, info)
    k = config.train.microbatches
    dtype = DTYPES[config.train.precision]
    networks = Networks(encoders.build(config.encoder.to_dict(), dtype=dtype), {}, "all", k)
    relation = _relation(config, dtype)

    def init(key: jax.Array, batch: Batch) -> tuple[PyTree, PyTree]:
        images = make(fold_name(key, "views"), batch)[groups[0]]
        params, stats = networks.init(key, images[:, 0])
        width = _width(networks.encoder, images[:, 0])
        pair = jnp.zeros((1, 1, 2 * width if options["aggregation"] == "cat" else width))
        variables = relation.init(fold_name(key, "relation"), pair, train=False)
        params["relation"] = variables["params"]
        if "batch_stats" in variables:
            stats["relation"] = variables["batch_stats"]
        return params, {"batch_stats": {"student": stats}}

    def relate(params: PyTree, stats: PyTree, pairs: jax.Array) -> tuple[jax.Array, PyTree]:
        """Pairs [B, R, ...] -> logits [B, R], and the next statistics."""
        variables = {"params": params["relation"]}
        if "relation" in stats:
            variables["batch_stats"] = stats["relation"]
            out, new = relation.apply(variables, pairs, train=True, mutable=["batch_stats"])
            stats = {**stats, "relation": new["batch_stats"]}
        else:
            out = chunked(lambda x: relation.apply(variables, x, train=True), k)(pairs)
        return out[..., 0].astype(jnp.float32), stats

    def loss(context: Context) -> tuple[jax.Array, Aux]:
        params, _, extra, batch, key, _ = context
        images = make(fold_name(key, "views"), batch)
        inputs = {group: {"x": images[group]} for group in groups}
        stats = extra["batch_stats"]["student"]
        outputs, stats = networks.outputs(params, stats, inputs, ("pooled",), train=True)
        stack = jnp.concatenate([jnp.moveaxis(outputs["pooled"][g], 1, 0) for g in groups])
        pairs, targets = losses.relation_pairs(stack, aggregation=options["aggregation"])
        logits, stats = relate(params, stats, batch_sharded(pairs))
        value = losses.sigmoid_focal(
            logits, targets, gamma=options["gamma"], alpha=options["alpha"]
        )
        accuracy = ((logits > 0) == (targets > 0)).mean(dtype=jnp.float32)
        after = jax.lax.stop_gradient({"student": stats})
        return value, Aux({**extra, "batch_stats": after}, {"pair_accuracy": accuracy})

    if k > 1:
        _, extra = jax.eval_shape(init, jax.random.key(0), example_batch(info))
        toolkit.microbatches(config, tuple(extra["batch_stats"]["student"]))
    return Method(init, {"main": loss}, encode.encoders_of(config, info, networks))


def _options(config: Any) -> dict[str, Any]:
    options = toolkit.options(config, OPTIONS)
    check_choice("method_options.aggregation", options["aggregation"], AGGREGATIONS)
    for name, least, most in (("gamma", 0, float("inf")), ("alpha", 0, 1)):
        value = options[name]
        if not isinstance(value, int | float) or not least <= value <= most:
            raise ConfigError(
                f"method_options.{name}: found {value!r}, expected {least} <= {name} <= {most}"
            )
    return options


def _groups(config: Any, info: Info) -> tuple[str, ...]:
    ids = modalities.group_ids(config.views)
    if sum(map(len, ids.values())) < 2:
        raise ConfigError(f"views.{next(iter(ids))}.count: found 1 view, expected at least 2")
    if info.global_batch < 2:
        raise ConfigError("train.global_batch: found 1, expected at least 2 for negative pairs")
    return tuple(ids)


def _width(encoder: nn.Module, x: jax.Array) -> int:
    fresh = lambda: encoder.init_with_output(jax.random.key(0), x, train=False)[0]
    found: Any = jax.eval_shape(fresh)
    return int(found["pooled"].shape[-1])


def _relation(config: Any, dtype: Any) -> Any:
    for name in config.student:
        if name != "relation":
            raise ConfigError(f"student.{name}: no such head{near(name, ('relation',))}")
    if "relation" not in config.student:
        raise ConfigError("student.relation: missing; expected a head with one output")
    fields = config.student.relation.to_dict()
    head = heads.build(fields, dtype=dtype, field="student.relation")  # refuses what is no width
    widths = fields.get("widths", (fields.get("width"),))
    if widths[-1] != 1:
        raise ConfigError(f"student.relation: found {widths[-1]} outputs, expected 1")
    return head
