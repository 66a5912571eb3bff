"""Context encoder: a hole in a view is filled so that it is right, and that it looks right.

Pathak, Krähenbühl, Donahue, Darrell, Efros, 2016, "Context encoders: feature learning by
inpainting", arXiv 1604.07379. The encoder sees the view x with a hole M (a mask that gives "pixels"
and "x", such as `region`), the head `decoder` makes an image y of its tokens, and a second encoder,
the discriminator D, sees nothing but the hole, of the view and of y:

  L = (1 - a) rec(y, x) + a adv(D(M y)) + disc(D(M x), D(M y))

with `inpainting_error`, `fooling_error` and `telling_error` below. The two last are one game:
nothing of `adv` moves the discriminator, and nothing of `disc` the encoder and the decoder, so that
one gradient of L serves both sides. Two optimizers apply it: `config.optimizer` ("main") to the
encoder and the decoder, and "discriminator" to the rest.

The paper writes the generator's side as min log(1 - D), whose slope vanishes where D is sure; like
the published code, `fooling_error` is -log D, which has the same fixed point.

Fields of `config.method_options`:
  adversarial_weight: a; may be a schedule. Published: 0.001.
  overlap: pixels around the hole, which the encoder sees, that are rebuilt too; 0 for none.
  overlap_weight: of their errors, those in the hole having 1. Published: 10.
  discriminator: an encoder, as `config.encoder`.
  discriminator_optimizer: fields that differ from `config.optimizer`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxssl import encoders, heads, losses, optim
from jaxssl.config import schedules
from jaxssl.config.by_name import build_by_name
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import fold_name
from jaxssl.devices.sharding import batch_sharded
from jaxssl.heads import linear
from jaxssl.method import PICTURES, PRETEXT, Aux, Batch, Context, Info, Method, Optimizer, PyTree
from jaxssl.methods import toolkit
from jaxssl.methods.composed import inputs as blocks
from jaxssl.methods.composed import outputs as encode
from jaxssl.methods.composed import pictures
from jaxssl.methods.composed.networks import DTYPES, Head, Networks
from jaxssl.state import example_batch
from jaxssl.step import gradient_step

OPTIONS: Mapping[str, Any] = {
    "adversarial_weight": 0.001,
    "overlap": 0,
    "overlap_weight": 10.0,
    "discriminator": {},
    "discriminator_optimizer": {},
}
GENERATOR = ("encoder", "decoder")
DISCRIMINATOR = ("discriminator", "score")
IMAGE = "image"


def build(config: Any, info: Info) -> Method:
    """The `Method` of a context encoder's config.

    Raises:
      ConfigError: naming the first field that does not fit.
    """
    options = _options(config)
    toolkit.unread(config, "losses", "teachers", "targets")
    weight = schedules.make(
        options["adversarial_weight"], info.steps, "method_options.adversarial_weight"
    )
    generator, discriminator = _networks(config, options)
    made = blocks.Blocks(config, blocks.OPTIONS, generator.encoder, info)
    group = _hole(config, made)

    def init(key: jax.Array, batch: Batch) -> tuple[PyTree, PyTree]:
        x = made.plain(key, batch)[0][group]["x"][:, 0]
        params, stats = generator.init(key, x)
        whole = generator._replace(microbatches=1)  # an example may be smaller than their number
        given = {group: {"x": x[:, None]}}
        image = lambda: whole.outputs(params, stats, given, (IMAGE,), False)[0][IMAGE][group]
        drawn = jax.eval_shape(image).shape[2:]
        if drawn != x.shape[1:]:
            raise ConfigError(
                f"student.decoder: found images {drawn}, expected {x.shape[1:]}, the view's"
            )
        judge, judge_stats = discriminator.init(fold_name(key, "discriminator"), x)
        judge, judge_stats = _named(judge), _named(judge_stats)
        return params | judge, {"batch_stats": {"student": stats | judge_stats}}

    def draw(
        params: PyTree, extra: PyTree, batch: Batch, key: jax.Array, step: jax.Array, train: bool
    ) -> tuple[jax.Array, Mapping[str, jax.Array], jax.Array, PyTree]:
        """Views, what the encoder sees of them, the images drawn [B, V, h, w, C], statistics."""
        plain, _ = made.plain(key, batch)
        block = made.for_student(key, batch, {group: plain[group]}, step)[group]
        stats = extra["batch_stats"]["student"]
        found, stats = generator.outputs(params, stats, {group: block}, (IMAGE,), train)
        return plain[group]["x"], block, found[IMAGE][group], stats

    def pretext(context: Context) -> dict[str, jax.Array]:
        """The error in the hole, and that of its best colour, one for all samples and places."""
        params, _, extra, batch, key, step = context
        x, block, drawn, _ = draw(params, extra, batch, key, step, train=False)
        hole = block["pixels"]
        best = (x * hole[..., None]).sum((0, 1, 2, 3)) / jnp.maximum(hole.sum(), 1)
        constant = jnp.broadcast_to(best, x.shape)
        return {"hole": jnp.stack([losses.inpainting_error(y, x, hole) for y in (drawn, constant)])}

    def filled(context: Context) -> Mapping[str, jax.Array]:
        """The first view of each sample, as the encoder saw it, and with its hole filled."""
        params, _, extra, batch, key, step = context
        x, block, drawn, _ = draw(params, extra, batch, key, step, train=False)
        done = jnp.where(block["pixels"][..., None], drawn, x)
        images = pictures.shown(jnp.stack([x[:, 0], block["x"][:, 0], done[:, 0]], 1), config)
        return pictures.captioned(pictures.RECONSTRUCTION, images)

    def loss(context: Context) -> tuple[jax.Array, Aux]:
        params, _, extra, batch, key, step = context
        x, block, drawn, stats = draw(params, extra, batch, key, step, train=True)
        hole = block["pixels"]
        reconstruction = losses.inpainting_error(
            drawn, x, hole, overlap=options["overlap"], overlap_weight=options["overlap_weight"]
        )

        def judge(judge_params: PyTree, judge_stats: PyTree, **images: jax.Array) -> Any:
            """The scores [B, V] of images, each with batch statistics of its own."""
            masked = {
                name: {"x": batch_sharded(image * hole[..., None])}
                for name, image in images.items()
            }
            scores, after = discriminator.outputs(
                _unnamed(judge_params), _unnamed(judge_stats), masked, ("score",), train=True
            )
            return {name: s[..., 0] for name, s in scores["score"].items()}, after

        # The generator plays against a discriminator that stands still, and the other way round.
        scores, _ = judge(jax.lax.stop_gradient(params), stats, drawn=drawn)
        fooling = losses.fooling_error(scores["drawn"])
        scores, judge_stats = judge(params, stats, drawn=jax.lax.stop_gradient(drawn), real=x)
        telling = losses.telling_error(scores["real"], scores["drawn"])
        a = weight(step)
        value = (1 - a) * reconstruction + a * fooling + telling
        metrics = {
            "reconstruction": reconstruction,
            "fooling": fooling,
            "telling": telling,
            "told_apart": ((scores["real"] > 0).mean() + (scores["drawn"] < 0).mean()) / 2,
        }
        after = {"batch_stats": {"student": {**stats, **_named(judge_stats)}}}
        return value, Aux(jax.lax.stop_gradient(after), metrics)

    shapes, extra = jax.eval_shape(init, jax.random.key(0), example_batch(info))
    toolkit.microbatches(config, tuple(extra["batch_stats"]["student"]))
    return Method(
        init,
        {"main": loss},
        {
            **encode.encoders_of(config, info, Networks(generator.encoder, {})),
            PRETEXT: pretext,
            f"{PICTURES}hole": filled,
        },
        {},
        gradient_step(optimizers=("main", "discriminator")),
        _optimizers(config, options, shapes, info),
    )


def _named(tree: PyTree) -> dict[str, PyTree]:
    """The discriminator's parts by their names among all networks."""
    return {"discriminator" if name == "encoder" else name: tree[name] for name in tree}


def _unnamed(tree: PyTree) -> dict[str, PyTree]:
    """The inverse of `_named`, of the discriminator's parts of params or statistics."""
    return {
        "encoder" if name == "discriminator" else name: tree[name]
        for name in DISCRIMINATOR
        if name in tree
    }


def _options(config: Any) -> dict[str, Any]:
    options = toolkit.options(config, OPTIONS)
    for name in ("overlap", "overlap_weight"):
        found = options[name]
        kinds = int if name == "overlap" else (int, float)
        if not isinstance(found, kinds) or isinstance(found, bool) or found < 0:
            what = "a whole number" if name == "overlap" else "a number"
            raise ConfigError(f"method_options.{name}: found {found!r}, expected {what} >= 0")
    if not dict(options["discriminator"]):
        raise ConfigError("method_options.discriminator: missing; expected an encoder")
    return options


def _networks(config: Any, options: Mapping[str, Any]) -> tuple[Networks, Networks]:
    """The generator, an encoder and a decoder; the discriminator, an encoder and a score."""
    for name in config.student:
        if name != "decoder":
            raise ConfigError(f"student.{name}: no such head{near(name, ('decoder',))}")
    if "decoder" not in config.student:
        raise ConfigError("student.decoder: missing; expected a head that makes images of tokens")
    dtype, k = DTYPES[config.train.precision], config.train.microbatches
    decoder = heads.build(config.student.decoder.to_dict(), dtype=dtype, field="student.decoder")
    encoder = encoders.build(config.encoder.to_dict(), dtype=dtype)
    generator = Networks(encoder, {"decoder": Head(decoder, "tokens", IMAGE)}, "group", k)
    judge = build_by_name(
        encoders, dict(options["discriminator"]), "method_options.discriminator", dtype=dtype
    )
    score = Head(linear.build(width=1, dtype=dtype), "pooled", "score")
    return generator, Networks(judge, {"score": score}, "group", k)


def _hole(config: Any, made: blocks.Blocks) -> str:
    """The group of views, once its mask is known to cut a hole."""
    if len(made.groups) != 1:
        raise ConfigError(f"views: found the groups {made.groups}, expected one")
    fields = {field for entry in made.group_masks.values() for field in entry.fields}
    if not {"pixels", "x"} <= fields:
        raise ConfigError(
            f"masks: found {sorted(config.masks)}, expected one that cuts a hole, such as 'region'"
        )
    return made.groups[0]


def _optimizers(
    config: Any, options: Mapping[str, Any], shapes: PyTree, info: Info
) -> dict[str, Optimizer]:
    base = config.optimizer.to_dict()
    fields = {
        "main": ("optimizer", base, GENERATOR),
        "discriminator": (
            "method_options.discriminator_optimizer",
            {**base, **dict(options["discriminator_optimizer"])},
            DISCRIMINATOR,
        ),
    }
    return {
        name: Optimizer(optim.make(own, {n: shapes[n] for n in on}, info.steps, field), on)
        for name, (field, own, on) in fields.items()
    }
