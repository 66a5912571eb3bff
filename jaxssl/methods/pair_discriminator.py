"""Pair discriminator: do the two halves belong to one view? Its ratios to landmarks are features.

Tosh, Krishnamurthy, Hsu, 2021, "Contrastive learning, multi-view redundancy, and linear models",
arXiv 2008.10150. With x one half of a view and z the other, two encoders of one architecture,
`config.encoder`, see one half each, and the head `student.discriminator`, of one output, sees both
embeddings side by side. True pairs (x, z) and as many broken ones (x, z'), z' of the next sample of
the batch, give `pair_error`, whose minimum is at the logit log p(x, z) / (p(x) p(z)).

The features of x are the *landmark embedding*: the density ratios of x with m halves z_1 ... z_m
that are fixed once and for all,

  phi(x) = (g(x, z_1), ..., g(x, z_m)),    g = exp(logit)

The landmarks are the halves z of the first m samples that training sees, in its random order, as
evaluations view them: a plain draw from the marginal of z. They stay in `extra["landmarks"]`.
Random init takes the same samples, where `evals.calibration_batches` reaches that far.

Evaluations may read "pooled" [B, m], which is phi; "logits" [B, m]; "embedding" [B, D], what the
encoder makes of x before it meets a landmark. Each is of the half x alone.

Fields of `config.method_options`:
  half: x, which of "left", "right", "top" and "bottom" is encoded; z is the other.
  landmarks: m.
  limit: of the logits behind phi: a discriminator that is sure of a pair has no bounded ratio.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxssl import encoders, heads, losses, modalities
from jaxssl.config.by_name import check_choice, check_positive
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import fold_name
from jaxssl.devices.chunking import chunked
from jaxssl.devices.sharding import batch_sharded
from jaxssl.method import PRETEXT, Aux, Batch, Context, Info, Method, PyTree
from jaxssl.methods import halves, toolkit
from jaxssl.methods.composed.networks import DTYPES, Networks
from jaxssl.state import example_batch

OPTIONS: Mapping[str, Any] = {"half": "left", "landmarks": 256, "limit": 4.0}
ENCODERS = ("encoder", "partner")
HEAD = "discriminator"
HALF = "half"


def build(config: Any, info: Info) -> Method:
    """The `Method` of a pair discriminator's config.

    Raises:
      ConfigError: naming the first field that does not fit.
    """
    options = _options(config, info)
    toolkit.unread(config, "losses", "masks", "targets", "teachers")
    group, count = halves.only_group(config), options["landmarks"]
    sides = dict(zip(ENCODERS, (options["half"], halves.opposite(options["half"]))))
    make = modalities.build(config.views, info.fields, config.data)
    evaluated = {name: halves.evaluated(config, info, side) for name, side in sides.items()}
    k, dtype = config.train.microbatches, DTYPES[config.train.precision]
    networks = Networks(encoders.build(config.encoder.to_dict(), dtype=dtype), {}, "all", k)
    head = _head(config, dtype)

    def embed(
        name: str, params: PyTree, stats: PyTree, x: jax.Array, train: bool, parts: int = 1
    ) -> tuple[jax.Array, PyTree]:
        """Halves [B, V, h, w, C] -> [B, V, D], and the next statistics of all networks."""
        own = {"encoder": stats[name]} if name in stats else {}
        found, own = networks._replace(microbatches=parts).outputs(
            {"encoder": params[name]}, own, {HALF: {"x": x}}, ("pooled",), train
        )
        return found["pooled"][HALF], {**stats, **({name: own["encoder"]} if own else {})}

    def judge(
        params: PyTree, stats: PyTree, pairs: jax.Array, train: bool, parts: int = 1
    ) -> tuple[jax.Array, PyTree]:
        """Pairs [B, ..., 2 D] -> logits [B, ...], and the next statistics of all networks."""
        variables = {"params": params[HEAD]}
        if HEAD in stats:
            variables["batch_stats"] = stats[HEAD]
        if HEAD in stats and train:
            out, new = head.apply(variables, pairs, train=True, mutable=["batch_stats"])
            stats = {**stats, HEAD: new["batch_stats"]}
        else:
            out = chunked(lambda x: head.apply(variables, x, train=train), parts)(pairs)
        return out[..., 0].astype(jnp.float32), stats

    def init(key: jax.Array, batch: Batch) -> tuple[PyTree, PyTree]:
        images = make(fold_name(key, "views"), batch)[group][:, 0]
        params: dict[str, Any] = {}
        stats: dict[str, Any] = {}
        for name, side in sides.items():
            own, its = networks.init(fold_name(key, name), halves.cut(images, side))
            params[name] = own["encoder"]
            stats |= {name: its["encoder"]} if its else {}
        x, _ = embed("encoder", params, stats, halves.cut(images, sides["encoder"])[:, None], False)
        variables = head.init(fold_name(key, HEAD), jnp.concatenate([x, x], -1), train=False)
        params[HEAD] = variables["params"]
        stats |= {HEAD: variables["batch_stats"]} if "batch_stats" in variables else {}
        shape = evaluated["partner"](batch).shape[1:]
        landmarks = jnp.zeros((count, *shape), jnp.float32)
        return params, {"batch_stats": {"student": stats}, "landmarks": landmarks}

    def told(
        params: PyTree, extra: PyTree, batch: Batch, key: jax.Array, train: bool, parts: int
    ) -> tuple[jax.Array, PyTree]:
        """Logits [B, V, 2] of true and broken pairs, and the next statistics."""
        images = make(fold_name(key, "views"), batch)[group]
        stats, found = extra["batch_stats"]["student"], {}
        for name, side in sides.items():
            x = halves.cut(images, side)
            found[name], stats = embed(name, params, stats, x, train, parts)
        # A roll leaves no sample beside its own other half, as a random order might.
        others = jnp.stack([found["partner"], jnp.roll(found["partner"], 1, axis=0)], 2)
        same = jnp.broadcast_to(found["encoder"][:, :, None], others.shape)
        pairs = batch_sharded(jnp.concatenate([same, others], -1))
        return judge(params, stats, pairs, train, parts)

    def fill(landmarks: jax.Array, batch: Batch, start: jax.Array) -> jax.Array:
        """The landmarks with those of a batch from place `start` on, as far as there are places."""
        images = evaluated["partner"](batch)
        places = start + jnp.arange(len(images))
        return landmarks.at[places].set(images, mode="drop")

    def loss(context: Context) -> tuple[jax.Array, Aux]:
        params, _, extra, batch, key, step = context
        logits, stats = told(params, extra, batch, key, True, k)
        start = step * len(batch["index"])
        landmarks = jax.lax.cond(
            start < count, fill, lambda old, *_: old, extra["landmarks"], batch, start
        )
        after = {"batch_stats": {"student": stats}, "landmarks": landmarks}
        value = losses.pair_error(logits[..., 0], logits[..., 1])
        return value, Aux(jax.lax.stop_gradient({**extra, **after}), {})

    def pretext(context: Context) -> dict[str, jax.Array]:
        params, _, extra, batch, key, _ = context
        logits, _ = told(params, extra, batch, key, False, 1)
        # As many broken pairs as true ones: of one answer for all, 1/2 is the best.
        error = losses.pair_error(logits[..., 0], logits[..., 1])
        return {"pairs": jnp.stack([error, jnp.log(2.0)])}

    def encode(context: Context) -> Mapping[str, jax.Array]:
        params, _, extra, batch, *_ = context
        stats = extra["batch_stats"]["student"]
        x = evaluated["encoder"](batch)
        own, _ = embed("encoder", params, stats, x[:, None], False)
        marks, _ = embed("partner", params, stats, extra["landmarks"][:, None], False)

        def beside(mark: jax.Array) -> jax.Array:
            pairs = jnp.concatenate([own, jnp.broadcast_to(mark, own.shape)], -1)
            return judge(params, stats, pairs, False)[0][:, 0]

        # One landmark after another: pairs of all with all would not fit.
        logits = jax.lax.map(beside, marks).T
        ratios = losses.density_ratio(logits, limit=options["limit"])
        return {"pooled": ratios, "logits": logits, "embedding": own[:, 0]}

    if k > 1:
        _, extra = jax.eval_shape(init, jax.random.key(0), example_batch(info))
        toolkit.microbatches(config, tuple(extra["batch_stats"]["student"]))
    return Method(init, {"main": loss}, {"student": encode, PRETEXT: pretext})


def _options(config: Any, info: Info) -> dict[str, Any]:
    options = toolkit.options(config, OPTIONS)
    check_choice("method_options.half", options["half"], halves.HALVES)
    check_positive("method_options.landmarks", (options["landmarks"],))
    limit = options["limit"]
    if not isinstance(limit, int | float) or isinstance(limit, bool) or not limit > 0:
        raise ConfigError(f"method_options.limit: found {limit!r}, expected a number above 0")
    if info.global_batch < 2:
        raise ConfigError("train.global_batch: found 1, expected at least 2 for broken pairs")
    if options["landmarks"] > info.num_samples:
        raise ConfigError(
            f"method_options.landmarks: found {options['landmarks']}, expected at most the "
            f"{info.num_samples} samples of the data"
        )
    return options


def _head(config: Any, dtype: Any) -> Any:
    for name in config.student:
        if name != HEAD:
            raise ConfigError(f"student.{name}: no such head{near(name, (HEAD,))}")
    if HEAD not in config.student:
        raise ConfigError(f"student.{HEAD}: missing; expected a head with one output")
    fields = config.student[HEAD].to_dict()
    head = heads.build(fields, dtype=dtype, field=f"student.{HEAD}")  # refuses what is no width
    widths = fields.get("widths", (fields.get("width"),))
    if widths[-1] != 1:
        raise ConfigError(f"student.{HEAD}: found {widths[-1]} outputs, expected 1")
    return head
