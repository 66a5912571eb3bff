"""Joint embedding: groups of views -> encoder -> projector (-> predictor), and terms on them.

Four kinds of named entries carry the family: groups of views (`config.views`), networks
(`config.encoder`, `config.student`), teachers (`config.teachers`) and terms (`config.losses`).
A teacher sees the groups named by its field `views` (default "global" where there is such a
group), with batch statistics of its own.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxssl import encoders, heads, teachers, views
from jaxssl.encoders import stochastic_depth
from jaxssl.errors import ConfigError, near
from jaxssl.method import Aux, Batch, Info, Method, PyTree
from jaxssl.methods import terms
from jaxssl.methods.networks import Networks, head_place, order_heads
from jaxssl.naming import fold_name
from jaxssl.state import example_batch

OPTIONS = {"batch_statistics": "all", "drop_path": 0.0}
STATISTICS = ("all", "group", "view")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build(config: Any, info: Info) -> Method:
    """The `Method` of a joint-embedding config.

    Raises:
      ConfigError: naming the first field that does not fit.
    """
    options = _options(config)
    dtype = DTYPES[config.train.precision]
    networks = _networks(config, options, dtype)
    make_views = views.build(
        config.views, mean=config.data.mean, std=config.data.std, dtype=jnp.float32
    )
    ids = views.group_ids(config.views)
    loss_terms = terms.parse(config.losses, info.steps)
    first_group = next(iter(ids))

    def init(key: jax.Array, batch: Batch) -> tuple[PyTree, PyTree]:
        images = make_views(key, batch)[first_group][:, 0]
        params, stats = networks.init(key, images)
        copies = {name: jax.tree.map(jnp.array, stats) for name in ("student", *config.teachers)}
        return params, {"batch_stats": copies}

    named_teachers, sees, trains = _teachers(
        config, ids, info, lambda key: init(key, example_batch(info))[0]
    )
    wanted = _wanted(loss_terms, networks, named_teachers, ids, sees)
    drop_depth = getattr(networks.encoder, "drop_depth", 0) if options["drop_path"] else 0

    def loss(
        params: PyTree,
        seen: Mapping[str, PyTree],
        extra: PyTree,
        batch: Batch,
        key: jax.Array,
        step: jax.Array,
    ) -> tuple[jax.Array, Aux]:
        images = make_views(fold_name(key, "views"), batch)
        plain = {group: {"x": x} for group, x in images.items()}
        stats = dict(extra["batch_stats"])
        outputs: dict[tuple[str, str], Any] = {}
        for name, teacher_params in seen.items():
            if wanted[name]:
                inputs = {group: plain[group] for group in sees[name]}
                found, stats[name] = networks.outputs(
                    teacher_params, stats[name], inputs, wanted[name], trains[name]
                )
                found = jax.lax.stop_gradient(found)
                outputs |= {(name, output): stack for output, stack in found.items()}
        inputs = plain
        if drop_depth:
            scales = _keep_scales(fold_name(key, "drop_path"), batch, options, drop_depth, ids)
            inputs = {g: {**block, "keep": scales[g]} for g, block in plain.items()}
        found, stats["student"] = networks.outputs(
            params, stats["student"], inputs, wanted[""], train=True
        )
        outputs |= {("", output): stack for output, stack in found.items()}
        value, metrics = terms.total(loss_terms, outputs, ids, fold_name(key, "terms"), step)
        return value, Aux({**extra, "batch_stats": jax.lax.stop_gradient(stats)}, metrics)

    def encoder_of(name: str) -> Any:
        def encode(
            params: PyTree, seen: Mapping[str, PyTree], extra: PyTree, batch: Batch
        ) -> Mapping[str, jax.Array]:
            net = params if name == "student" else seen[name]
            size = config.evals.size or batch["image"].shape[1]
            x = views.evaluation_view(
                batch["image"], size=size, mean=config.data.mean, std=config.data.std
            )
            variables = {"params": net["encoder"]}
            stats = extra["batch_stats"][name]
            if "encoder" in stats:
                variables["batch_stats"] = stats["encoder"]
            found: Any = networks.encoder.apply(variables, x, train=False)
            return {k: v.astype(jnp.float32) for k, v in found.items()}

        return encode

    encode = {"student": encoder_of("student")}
    for name in named_teachers:
        follows = config.teachers[name].get("follows", ())
        if not follows or "encoder" in follows:
            encode[name] = encoder_of(name)
    method = Method(init, {"main": loss}, encode, named_teachers)
    _check_microbatches(config, method, info)
    return method


def _options(config: Any) -> dict[str, Any]:
    given = dict(config.method_options)
    for name in given:
        if name not in OPTIONS:
            raise ConfigError(f"method_options.{name}: unknown{near(name, OPTIONS)}")
    options = {**OPTIONS, **given}
    if options["batch_statistics"] not in STATISTICS:
        found = options["batch_statistics"]
        raise ConfigError(f"method_options.batch_statistics: {found!r}{near(found, STATISTICS)}")
    if not 0 <= options["drop_path"] < 1:
        raise ConfigError(f"method_options.drop_path: {options['drop_path']}; expected 0 <= p < 1")
    return options


def _networks(config: Any, options: Mapping[str, Any], dtype: Any) -> Networks:
    encoder = encoders.build(config.encoder.to_dict(), dtype=dtype)
    modules = {}
    for name in config.student:
        entry = config.student[name].to_dict()
        place = head_place(name, entry)
        fields = {k: v for k, v in entry.items() if k not in ("reads", "output")}
        modules[name] = (heads.build(fields, dtype=dtype, field=f"student.{name}"), *place)
    if "encoder" in modules:
        raise ConfigError("student.encoder: the encoder is configured by `encoder`")
    return Networks(
        encoder, order_heads(modules), options["batch_statistics"], config.train.microbatches
    )


def _teachers(
    config: Any, ids: Mapping[str, Any], info: Info, fresh: Callable[[jax.Array], PyTree]
) -> tuple[Any, Any, Any]:
    """The teachers; the groups of views that each sees; whether its batch norm trains."""
    built, sees, trains = {}, {}, {}
    for name in config.teachers:
        if name == "student":
            raise ConfigError("teachers.student: the name is taken by the student itself")
        entry = config.teachers[name].to_dict()
        default = ("global",) if "global" in ids else tuple(ids)
        sees[name] = tuple(entry.pop("views", default))
        for group in sees[name]:
            if group not in ids:
                raise ConfigError(f"teachers.{name}.views: no group {group!r}{near(group, ids)}")
        mode = entry.pop("mode", "train")
        if mode not in ("train", "eval"):
            raise ConfigError(f"teachers.{name}.mode: {mode!r}; expected 'train' or 'eval'")
        trains[name] = mode == "train"
        built[name] = teachers.make(entry, info.steps, f"teachers.{name}", info=info, fresh=fresh)
    return built, sees, trains


def _wanted(
    loss_terms: list[terms.Term],
    networks: Networks,
    named_teachers: Mapping[str, Any],
    ids: Mapping[str, Any],
    sees: Mapping[str, tuple[str, ...]],
) -> dict[str, tuple[str, ...]]:
    """Who -> the outputs that the terms read from it, all checked to exist."""
    wanted: dict[str, list[str]] = {"": [], **{name: [] for name in named_teachers}}
    known = ["pooled", "tokens", *(head.output for head in networks.heads.values())]
    for term in loss_terms:
        for role, ref in (("student", term.student), ("teacher", term.teacher)):
            if ref is None:
                continue
            field = f"losses.{term.name}.{role}"
            if ref.who not in wanted:
                raise ConfigError(f"{field}: no teacher {ref.who!r}{near(ref.who, named_teachers)}")
            if ref.output not in known:
                raise ConfigError(f"{field}: no output {ref.output!r}{near(ref.output, known)}")
            for group in ref.groups:
                if group not in (sees[ref.who] if ref.who else ids):
                    raise ConfigError(f"{field}: sees no views {group!r}{near(group, ids)}")
            if ref.output not in wanted[ref.who]:
                wanted[ref.who].append(ref.output)
    if not wanted[""]:
        raise ConfigError("losses: no term reads the student")
    return {who: tuple(names) for who, names in wanted.items()}


def _keep_scales(
    key: jax.Array, batch: Batch, options: Mapping[str, Any], depth: int, ids: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """Drop-path scales [B, V, depth] of every group, keyed by (step, index, view)."""
    rates = stochastic_depth.linear_rates(options["drop_path"], depth)
    of_sample = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])
    return {
        group: jnp.stack(
            [
                stochastic_depth.keep_scales(
                    jax.vmap(jax.random.fold_in, (0, None))(of_sample, view), rates
                )
                for view in numbers
            ],
            axis=1,
        )
        for group, numbers in ids.items()
    }


def _check_microbatches(config: Any, method: Method, info: Info) -> None:
    k, batch = config.train.microbatches, config.train.global_batch
    if k == 1:
        return
    if batch % k:
        raise ConfigError(f"train.microbatches: {k} does not divide the batch of {batch}")
    _, extra = jax.eval_shape(method.init, jax.random.key(0), example_batch(info))
    normed = sorted(extra["batch_stats"]["student"])
    if normed:
        raise ConfigError(
            f"train.microbatches: {k}, but {', '.join(normed)} use batch normalisation, whose "
            "statistics would be those of a part; use layer or group norms, or microbatches=1"
        )
