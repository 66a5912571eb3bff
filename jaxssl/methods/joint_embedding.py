"""Joint embedding: groups of views -> encoder -> projector (-> predictor), and terms on them.

Four kinds of named entries carry the family: groups of views (`config.views`), networks
(`config.encoder`, `config.student`), teachers (`config.teachers`) and terms (`config.losses`).
A teacher sees the groups named by its field `views` (default "global" where there is such a
group), with batch statistics of its own. A term may remember things across steps
(`jaxssl.memories`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxssl import encoders, heads, teachers
from jaxssl.errors import ConfigError, near
from jaxssl.method import Aux, Batch, Info, Method, PyTree
from jaxssl.methods import blocks, checks, encode, terms
from jaxssl.methods.arguments import Known, Ref, Scene
from jaxssl.methods.networks import DTYPES, Networks, head_place, order_heads
from jaxssl.naming import fold_name
from jaxssl.state import example_batch

OPTIONS = {"batch_statistics": "all", **blocks.OPTIONS}
STATISTICS = ("all", "group", "view")
# Widths of heads that the data decides.
COUNTED = ("num_classes", "num_samples")


def build(config: Any, info: Info) -> Method:
    """The `Method` of a joint-embedding config.

    Raises:
      ConfigError: naming the first field that does not fit.
    """
    options = _options(config)
    networks = _networks(config, options, DTYPES[config.train.precision], info)
    made = blocks.Blocks(config, options, networks.encoder)

    def init_networks(key: jax.Array, batch: Batch) -> tuple[PyTree, PyTree, Any]:
        plain, _ = made.plain(key, batch)
        x = plain[made.groups[0]]["x"]
        return *networks.init(key, x[:, 0]), plain

    named_teachers, sees, trains = _teachers(
        config, made.groups, info, lambda key: init_networks(key, example_batch(info))[0]
    )
    outputs = ["pooled", "tokens", *(head.output for head in networks.heads.values())]
    known = Known(
        made.ids, {"": made.groups, **sees}, outputs, tuple(info.shapes), tuple(networks.heads)
    )
    loss_terms = terms.parse(config.losses, info, known)
    wanted, student_sees = _wanted(loss_terms, named_teachers, made.ids)

    def init(key: jax.Array, batch: Batch) -> tuple[PyTree, PyTree]:
        params, stats, plain = init_networks(key, batch)
        copies = {name: jax.tree.map(jnp.array, stats) for name in ("student", *config.teachers)}
        extra = {"batch_stats": copies}

        def shape(ref: Ref) -> tuple[int, ...]:
            inputs = {group: plain[group] for group in ref.groups}
            whole = networks._replace(microbatches=1)  # an example may be smaller than their number
            apply = lambda: whole.outputs(params, stats, inputs, [ref.output], False)[0]
            rest = jax.eval_shape(apply)[ref.output][ref.groups[0]].shape[2:]
            return (known.count(ref), info.global_batch, *rest)

        memory = terms.init_memory(loss_terms, fold_name(key, "memory"), shape)
        return params, extra | ({"memory": memory} if memory else {})

    def loss(
        params: PyTree,
        seen: Mapping[str, PyTree],
        extra: PyTree,
        batch: Batch,
        key: jax.Array,
        step: jax.Array,
    ) -> tuple[jax.Array, Aux]:
        plain, context = made.plain(key, batch)
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
        inputs = made.for_student(key, batch, {group: plain[group] for group in student_sees})
        found, stats["student"] = networks.outputs(
            params, stats["student"], inputs, wanted[""], train=True
        )
        outputs |= {("", output): stack for output, stack in found.items()}
        apply_head = lambda name, x: networks.apply_head(name, params, stats["student"], x)
        memory = extra.get("memory", {})
        terms_key = fold_name(key, "terms")
        scene = Scene(outputs, made.ids, batch, params, step, apply_head, memory, terms_key)
        value, metrics, memory = terms.total(loss_terms, scene, context)
        after = {"batch_stats": stats} | ({"memory": memory} if memory else {})
        return value, Aux({**extra, **jax.lax.stop_gradient(after)}, metrics)

    method = Method(
        init, {"main": loss}, encode.encoders_of(config, networks.encoder), named_teachers
    )
    if config.train.microbatches > 1:
        _, extra = jax.eval_shape(init, jax.random.key(0), example_batch(info))
        checks.microbatches(config, tuple(extra["batch_stats"]["student"]))
    return method


def _options(config: Any) -> dict[str, Any]:
    options = checks.options(config, OPTIONS)
    if options["batch_statistics"] not in STATISTICS:
        found = options["batch_statistics"]
        raise ConfigError(f"method_options.batch_statistics: {found!r}{near(found, STATISTICS)}")
    return options


def _networks(config: Any, options: Mapping[str, Any], dtype: Any, info: Info) -> Networks:
    encoder = encoders.build(config.encoder.to_dict(), dtype=dtype)
    modules = {}
    for name in config.student:
        entry = config.student[name].to_dict()
        place = head_place(name, entry)
        field = f"student.{name}"
        fields = {k: v for k, v in entry.items() if k not in ("reads", "output")}
        if fields.get("width") in COUNTED:
            fields["width"] = _counted(fields["width"], info, field)
        modules[name] = (heads.build(fields, dtype=dtype, field=field), *place)
    if "encoder" in modules:
        raise ConfigError("student.encoder: the encoder is configured by `encoder`")
    return Networks(
        encoder, order_heads(modules), options["batch_statistics"], config.train.microbatches
    )


def _counted(width: str, info: Info, field: str) -> int:
    found = int(getattr(info, width))
    if not found:
        raise ConfigError(f"{field}.width: {width!r}, but the data has no labels")
    return found


def _teachers(
    config: Any, ids: tuple[str, ...], info: Info, fresh: Callable[[jax.Array], PyTree]
) -> tuple[Any, Any, Any]:
    """The teachers; the groups of views that each sees; whether its batch norm trains."""
    built, sees, trains = {}, {}, {}
    for name in config.teachers:
        if name == "student":
            raise ConfigError("teachers.student: the name is taken by the student itself")
        entry = config.teachers[name].to_dict()
        default = ("global",) if "global" in ids else ids
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
    loss_terms: list[terms.Term], named_teachers: Mapping[str, Any], ids: Mapping[str, Any]
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Who -> the outputs that the terms read from it; and the groups that the student sees."""
    refs = [ref for term in loss_terms for ref in term.refs()]
    if all(ref.who for ref in refs):
        raise ConfigError("losses: no term reads the student")
    wanted = {
        who: tuple(dict.fromkeys(ref.output for ref in refs if ref.who == who))
        for who in ("", *named_teachers)
    }
    groups = {group for ref in refs if not ref.who for group in ref.groups}
    return wanted, tuple(group for group in ids if group in groups)
