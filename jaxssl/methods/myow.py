"""MYOW: BYOL, and a second prediction of a neighbour that is mined among weakly changed views.

Azabou et al., 2021, "Mine your own view: self-supervised learning through across-sample
prediction", arXiv 2102.10106. Encoder f, `projector` g, `predictor` q, and on top of g a second
projector h, `projector2`, with its predictor r, `predictor2`; the teacher (') copies f, g and h:

  L_byol  = mean_{u != v} d(q g f(x_u), g' f'(x_v)) over the views "strong",  d = 2 - 2 cos
  L_mined = mean_i d(r h g y_i, h' g' c_m(i)),  y = f(view "weak"),  c = f'(views "pool")
  L       = (L_byol + w L_mined) / (1 + w)

m(i) is drawn from the k candidates nearest to y_i (`losses.mine_neighbors`). w starts at 0, since
neighbours that are mined too early lock in. As published, every view passes alone, with batch
statistics of its own.

The candidates are views of the other samples of the same global batch, where the official code
draws a second batch: the nearest of as many independent samples either way, and no second stream of
data. With V views in "pool" there are V (B - 1) of them.

Fields of `config.method_options`:
  neighbors: k.
  weight: w, a number or a schedule, times the ramp.
  warmup: how long w stays 0: steps, or {"epochs": 10} and the like (`jaxssl.config.durations`).
  ramp: how long it then takes to rise, in a line.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jaxssl import encoders, heads, losses, modalities, teachers
from jaxssl.config import durations, schedules
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import fold_name
from jaxssl.config.schedules import Schedule
from jaxssl.method import Aux, Batch, Context, Info, Method, PyTree, Teacher
from jaxssl.methods import toolkit
from jaxssl.methods.composed import outputs as encode
from jaxssl.methods.composed.networks import DTYPES, Head, Networks, order_heads
from jaxssl.state import example_batch

OPTIONS = {"neighbors": 1, "weight": 1.0, "warmup": 0, "ramp": 0}
# head -> (what it reads, what it gives)
PLACES = {
    "projector": ("pooled", "projection"),
    "predictor": ("projection", "prediction"),
    "projector2": ("projection", "projection2"),
    "predictor2": ("projection2", "prediction2"),
}
FOLLOWS = ("encoder", "projector", "projector2")
# group of views -> the fewest and the most that it may have
GROUPS = {"strong": (2, 64), "weak": (1, 1), "pool": (1, 64)}


class _Inputs(nn.Module):
    """The encoder of samples that are representations already."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        del train
        return {"pooled": x}


def build(config: Any, info: Info) -> Method:
    """The `Method` of a MYOW config.

    Raises:
      ConfigError: naming the first field that does not fit.
    """
    options = toolkit.options(config, OPTIONS)
    make = modalities.build(config.views, info.fields, config.data)
    ids = _groups(config)
    k = _neighbors(options["neighbors"], info.global_batch, len(ids["pool"]))
    weight = _weight(options, info)
    networks = _networks(config)
    on_representations = networks._replace(encoder=_Inputs())
    teacher_name, teacher = _teacher(config, info)

    def init(key: jax.Array, batch: Batch) -> tuple[PyTree, PyTree]:
        x = make(fold_name(key, "views"), batch)["strong"][:, 0]
        params, stats = networks.init(key, x)
        own = {name: leaves for name, leaves in stats.items() if name in FOLLOWS}
        copies = {"student": stats, teacher_name: jax.tree.map(jnp.array, own)}
        return params, {"batch_stats": copies}

    def loss(context: Context) -> tuple[jax.Array, Aux]:
        params, seen, extra, batch, key, step = context
        images = make(fold_name(key, "views"), batch)
        blocks = {group: {group: {"x": images[group]}} for group in GROUPS}
        stats = extra["batch_stats"]["student"]
        strong, stats = networks.outputs(params, stats, blocks["strong"], ("prediction",), True)
        wanted = ("pooled", "prediction2")
        weak, stats = networks.outputs(params, stats, blocks["weak"], wanted, True)

        ema, after = jax.lax.stop_gradient(seen[teacher_name]), extra["batch_stats"][teacher_name]
        target, after = networks.outputs(ema, after, blocks["strong"], ("projection",), True)
        pool, after = networks.outputs(ema, after, blocks["pool"], ("pooled",), True)
        candidates = rearrange(pool["pooled"]["pool"], "b v d -> (b v) d")
        owner = jnp.repeat(batch["index"], len(ids["pool"]))
        mined = losses.mine_neighbors(
            weak["pooled"]["weak"][:, 0],
            candidates,
            jax.vmap(jax.random.fold_in, (None, 0))(fold_name(key, "mining"), batch["index"]),
            k=k,
            exclude=batch["index"][:, None] == owner,
        )
        # The teacher's heads see the mined candidates alone, and so do their batch statistics.
        chosen = {"pool": {"x": candidates[mined][:, None]}}
        given = {**ema, "encoder": {}}
        answer, after = on_representations.outputs(given, after, chosen, ("projection2",), True)

        byol = losses.over_pairs(losses.byol, "cross")(
            jnp.moveaxis(strong["prediction"]["strong"], 1, 0),
            jnp.moveaxis(target["projection"]["strong"], 1, 0),
            ids["strong"],
            ids["strong"],
        )
        across = losses.byol(weak["prediction2"]["weak"][:, 0], answer["projection2"]["pool"][:, 0])
        w = weight(step)
        metrics = {"byol": byol, "mined": across, "mined_weight": w}
        if "label" in batch:
            label = batch["label"]
            same = label[mined // len(ids["pool"])] == label
            metrics["same_class"] = same.mean(dtype=jnp.float32)
        stopped = jax.lax.stop_gradient({"student": stats, teacher_name: after})
        return (byol + w * across) / (1 + w), Aux({"batch_stats": stopped}, metrics)

    _, extra = jax.eval_shape(init, jax.random.key(0), example_batch(info))
    toolkit.microbatches(config, tuple(extra["batch_stats"]["student"]))
    named = encode.encoders_of(config, info, Networks(networks.encoder, {}))
    return Method(init, {"main": loss}, named, {teacher_name: teacher})


def _groups(config: Any) -> dict[str, tuple[int, ...]]:
    ids = modalities.group_ids(config.views)
    for group in ids:
        if group not in GROUPS:
            raise ConfigError(f"views.{group}: myow sees no such group{near(group, GROUPS)}")
    for group, (least, most) in GROUPS.items():
        found = len(ids.get(group, ()))
        if not least <= found <= most:
            raise ConfigError(f"views.{group}.count: found {found}, expected {least} to {most}")
    if config.losses:
        raise ConfigError(f"losses.{min(config.losses)}: myow has its own two terms, expected none")
    return ids


def _neighbors(k: Any, batch: int, per_sample: int) -> int:
    others = (batch - 1) * per_sample
    if not isinstance(k, int) or not 1 <= k <= others:
        raise ConfigError(
            f"method_options.neighbors: found {k!r}, expected 1 to {others}, the views of other "
            "samples in the pool"
        )
    return k


def _weight(options: Mapping[str, Any], info: Info) -> Schedule:
    """step -> w."""
    whole = schedules.make(options["weight"], info.steps, "method_options.weight")
    start, length = (
        durations.to_steps(
            options[name],
            num_samples=info.num_samples,
            global_batch=info.global_batch,
            steps=info.steps,
            field=f"method_options.{name}",
        )
        for name in ("warmup", "ramp")
    )

    def weight(step: jax.Array) -> jax.Array:
        risen = jnp.clip((step - start) / length, 0, 1) if length else step >= start
        return whole(step) * risen

    return weight


def _networks(config: Any) -> Networks:
    dtype = DTYPES[config.train.precision]
    modules = {}
    for name in config.student:
        if name not in PLACES:
            raise ConfigError(f"student.{name}: myow has no such head{near(name, PLACES)}")
    for name, place in PLACES.items():
        if name not in config.student:
            raise ConfigError(f"student.{name}: missing; myow needs {', '.join(PLACES)}")
        fields = config.student[name].to_dict()
        modules[name] = Head(heads.build(fields, dtype=dtype, field=f"student.{name}"), *place)
    encoder = encoders.build(config.encoder.to_dict(), dtype=dtype)
    return Networks(encoder, order_heads(modules), "view", config.train.microbatches)


def _teacher(config: Any, info: Info) -> tuple[str, Teacher]:
    names = list(config.teachers)
    if len(names) != 1:
        raise ConfigError(f"teachers: found {len(names)} ({', '.join(names)}), expected one")
    entry = {"follows": FOLLOWS, **config.teachers[names[0]].to_dict()}
    if set(entry["follows"]) != set(FOLLOWS):
        raise ConfigError(
            f"teachers.{names[0]}.follows: found {tuple(entry['follows'])!r}, expected {FOLLOWS!r}"
        )
    return names[0], teachers.make(entry, info.steps, f"teachers.{names[0]}", info=info)
