"""How the parts that a config names make one step."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange

from jaxssl import targets
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import fold_name
from jaxssl.evals import protocol
from jaxssl.method import PICTURES, PRETEXT, Aux, Batch, Context, Info, Method, PyTree, Readout
from jaxssl.methods import toolkit
from jaxssl.methods.composed import inputs as blocks
from jaxssl.methods.composed import outputs as encode
from jaxssl.methods.composed import pictures, terms
from jaxssl.methods.composed import teacher_metrics as observed
from jaxssl.methods.composed.arguments import INPUT, OutputSpec, Ref, Scene
from jaxssl.methods.composed.networks import Networks, accepts
from jaxssl.methods.composed.student_teacher import init_statistics, student_networks, teacher_parts
from jaxssl.state import example_batch

OPTIONS = {"batch_statistics": "all", **blocks.OPTIONS}
READS_STREAMS = True
STATISTICS = ("all", "group", "view")


class Look(NamedTuple):
    """What a step looks at before its terms: the scene, what losses are told beside, the next
    batch statistics, and what masks report."""

    scene: Scene
    context: Mapping[str, jax.Array]
    stats: PyTree
    metrics: Mapping[str, jax.Array]


def build(config: Any, info: Info) -> Method:
    """The `Method` of a config of named parts.

    Raises:
      ConfigError: naming the first field that does not fit.
    """
    wiring = Wiring(config, info)
    readouts = encode.encoders_of(config, info, wiring.networks, wiring.own_networks())
    readouts |= {PRETEXT: wiring.pretext} if wiring.judged else {}
    readouts |= {f"{PICTURES}{title}": read for title, read in wiring.pictures().items()}
    method = Method(wiring.init, {"main": wiring.loss}, readouts, wiring.teachers)
    if config.train.microbatches > 1:
        _, extra = jax.eval_shape(wiring.init, jax.random.key(0), example_batch(info))
        toolkit.microbatches(config, tuple(extra["batch_stats"]["student"]))
    return method


class Wiring:
    """The parts that a config names, and how one step goes through them; holds no arrays."""

    def __init__(self, config: Any, info: Info):
        options = _options(config)
        self.config, self.info = config, info
        self.networks = student_networks(config, options["batch_statistics"], info)
        keyed = any("key" in accepts(head.module) for head in self.networks.heads.values())
        self.blocks = blocks.Blocks(config, options, self.networks.encoder, info, keyed)
        self.targets = _targets(config)
        fresh = lambda key: self._init_networks(key, example_batch(info))[0]
        example = lambda: self._example(example_batch(info))[:2]
        self.parts = teacher_parts(config, self.networks, self.blocks.groups, info, fresh, example)
        self.teachers = {name: part.teacher for name, part in self.parts.items()}
        known = self._known()
        self.terms = terms.parse(config.losses, info, known)
        self.judged = _judged(self.terms, config)
        read_by_masks = [
            known.ref(f"{entry.reads}:{'+'.join(entry.masks)}", f"masks.{name}.teacher")
            for name, entry in self.blocks.group_masks.items()
            if entry.reads
        ]
        self.wanted, self.student_sees = _wanted(
            self.terms, read_by_masks, self.teachers, self.blocks.ids
        )

    def _known(self) -> OutputSpec:
        """What terms may name."""
        made, networks = self.blocks, self.networks
        return OutputSpec(
            made.ids,
            {"": made.groups, INPUT: made.groups, **{n: p.groups for n, p in self.parts.items()}},
            {"": networks.known(), **{n: p.networks.known() for n, p in self.parts.items()}},
            tuple(self.info.fields),
            tuple(networks.heads),
            tuple(self.targets),
            {name: (entry.fields, entry.masks) for name, entry in made.group_masks.items()},
            made.streams,
        )

    def own_networks(self) -> dict[str, Networks]:
        """The networks of the teachers that do not have the student's."""
        return {name: part.networks for name, part in self.parts.items() if part.owns}

    # ------------------------------------------------------------------ the first state

    def init(self, key: jax.Array, batch: Batch) -> tuple[PyTree, PyTree]:
        """As `Method.init`."""
        params, stats, plain = self._init_networks(key, batch)
        x, views, _ = self._example(batch)
        statistics = {"student": stats}
        for name, part in self.parts.items():
            start = (
                stats if not part.owns else init_statistics(part, fold_name(key, name), x, views)
            )
            statistics[name] = jax.tree.map(jnp.array, start)
        extra = {"batch_stats": statistics}
        networks = {"": self.networks, **{n: part.networks for n, part in self.parts.items()}}

        def shape(ref: Ref) -> tuple[int, ...]:
            inputs = {group: plain[group] for group in ref.groups}
            # An example may be smaller than the number of microbatches.
            whole = networks[ref.who]._replace(microbatches=1)

            def apply() -> Any:
                own = params, stats
                if ref.who and self.parts[ref.who].owns:
                    own = whole.init(key, x, views)
                return whole.outputs(*own, inputs, [ref.output], False)[0]

            found = jax.eval_shape(apply)[ref.output]
            views = sum(stack.shape[1] for stack in found.values())
            of_stream = self.info.of_stream(self.blocks.streams[ref.groups[0]])
            return (views, of_stream.global_batch, *found[ref.groups[0]].shape[2:])

        memory = terms.init_memory(self.terms, fold_name(key, "memory"), shape)
        return params, extra | ({"memory": memory} if memory else {})

    def _init_networks(self, key: jax.Array, batch: Batch) -> tuple[PyTree, PyTree, Any]:
        """Params, batch statistics, and views of the right shapes, which are all that is asked."""
        x, views, plain = self._example(batch)
        return *self.networks.init(key, x, views), plain

    def _example(self, batch: Batch) -> tuple[jax.Array, int, Any]:
        """A view [B, ...] of zeros of the first group, V of that group, and all groups' views."""
        shapes, _ = jax.eval_shape(self.blocks.plain, jax.random.key(0), batch)
        plain = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        x = plain[self.blocks.groups[0]]["x"]
        return x[:, 0], x.shape[1], plain

    # ------------------------------------------------------------------ a step

    def loss(self, context: Context) -> tuple[jax.Array, Aux]:
        """As the losses of `Method`."""
        look, extra = self._look(context, train=True), context.extra
        value, metrics, memory = terms.total(self.terms, look.scene, look.context)
        metrics |= observed.of_teachers(self.terms, look.scene)
        after = {"batch_stats": look.stats} | ({"memory": memory} if memory else {})
        return value, Aux({**extra, **jax.lax.stop_gradient(after)}, {**metrics, **look.metrics})

    def pretext(self, context: Context) -> dict[str, jax.Array]:
        """The readout `PRETEXT`."""
        look = self._look(context, train=False)
        errors = lambda term: jnp.stack(
            [
                terms.value_of(term, look.scene, look.context),
                terms.constant(term, look.scene, look.context),
            ]
        )
        return {term.name: errors(term) for term in self.judged}

    def _look(self, context: Context, train: bool) -> Look:
        params, seen, extra, batch, key, step = context
        plain, beside = self.blocks.plain(key, batch)
        stats = dict(extra["batch_stats"])
        outputs: dict[tuple[str, str], Any] = {}
        for name, teacher_params in seen.items():
            if self.wanted[name]:
                part = self.parts[name]
                inputs = {group: plain[group] for group in part.groups}
                trains = train and part.trains
                found, stats[name] = part.networks.outputs(
                    teacher_params, stats[name], inputs, self.wanted[name], trains
                )
                found = jax.lax.stop_gradient(found)
                outputs |= {(name, output): stack for output, stack in found.items()}
        for name in self.wanted[INPUT]:
            target = self.targets[name]
            outputs[INPUT, name] = jax.lax.stop_gradient(
                {group: target(block["x"], seen) for group, block in plain.items()}
            )
        read = lambda reads, group: outputs[_named(reads)][group]
        clean = {group: plain[group] for group in self.student_sees}
        inputs = self.blocks.for_student(key, batch, clean, step, read)
        found, stats["student"] = self.networks.outputs(
            params, stats["student"], inputs, self.wanted[""], train
        )
        outputs |= {("", output): stack for output, stack in found.items()}
        apply_head = lambda name, x: self.networks.apply_head(name, params, stats["student"], x)
        memory, terms_key = extra.get("memory", {}), fold_name(key, "terms")
        ids = self.blocks.ids
        scene = Scene(outputs, ids, batch, params, step, apply_head, memory, terms_key, inputs)
        return Look(scene, beside, stats, self.blocks.metrics(inputs, read))

    # ------------------------------------------------------------------ pictures

    def pictures(self) -> dict[str, Readout]:
        """What the report shows: terms that draw images, and where the encoder attends."""
        shown = {
            f"prediction of {term.name}": self._predicted(term, paint)
            for term in self.terms
            if (paint := pictures.painter(term, self.config))
        }
        encoder, shapes = self.networks.encoder, self.blocks.shapes
        grid = blocks.patch_grid(encoder, shapes[self.blocks.groups[0]][:-1])
        if getattr(encoder, "class_token", False) and len(grid) == 2:
            shown["attention"] = self._attended
        return shown

    def _predicted(self, term: terms.Term, paint: Callable[..., jax.Array]) -> Readout:
        def read(context: Context) -> Mapping[str, jax.Array]:
            scene = self._look(context, train=False).scene
            clean = self.blocks.plain(context.key, context.batch)[0][term.student.groups[0]]["x"]
            shown = paint(term, scene, clean, self.config)
            return pictures.captioned(pictures.RECONSTRUCTION, shown)

        return read

    def _attended(self, context: Context) -> Mapping[str, jax.Array]:
        params, _, extra, batch, key, _ = context
        group = self.blocks.groups[0]
        plain = {group: self.blocks.plain(key, batch)[0][group]}
        stats = extra["batch_stats"]["student"]
        found, _ = self.networks.outputs(params, stats, plain, ["attention"], False)
        shown = pictures.attention(found["attention"][group], plain[group]["x"], self.config)
        return pictures.captioned(pictures.ATTENTION, shown)


def _options(config: Any) -> dict[str, Any]:
    options = toolkit.options(config, OPTIONS)
    if options["batch_statistics"] not in STATISTICS:
        found = options["batch_statistics"]
        raise ConfigError(
            f"method_options.batch_statistics: {found!r}{near(str(found), STATISTICS)}"
        )
    return options


def _targets(config: Any) -> dict[str, Callable[[jax.Array, Mapping[str, PyTree]], jax.Array]]:
    """name -> (views [B, V, ...], teachers) -> target [B, V, ...]."""
    found: dict[str, Any] = {}
    for name in config.targets:
        field, data = f"targets.{name}", config.data
        target = targets.build(
            config.targets[name].to_dict(), mean=data.mean, std=data.std, field=field
        )
        if target.teacher and target.teacher not in config.teachers:
            raise ConfigError(
                f"{field}.teacher: no teacher {target.teacher!r} in teachers"
                f"{near(target.teacher, config.teachers)}"
            )

        def of_views(x: jax.Array, seen: Mapping[str, PyTree], target: Any = target) -> jax.Array:
            given = (seen[target.teacher],) if target.teacher else ()
            made = target.fn(rearrange(x, "b v ... -> (b v) ..."), *given)
            return rearrange(made, "(b v) ... -> b v ...", v=x.shape[1])

        found[name] = of_views
    return found


def _named(reads: str) -> tuple[str, str]:
    who, _, output = reads.partition("/")
    return who, output


def _judged(loss_terms: list[terms.Term], config: Any) -> list[terms.Term]:
    """The terms whose errors are evaluated: those named, or those that predict what is hidden."""
    if config.evals.pretext is None:
        return []
    named = protocol.resolve("pretext", config.evals.pretext)["terms"]
    known = [term.name for term in loss_terms]
    for name in named:
        if name not in known:
            raise ConfigError(f"evals.pretext.terms: no term {name!r}{near(str(name), known)}")
    return [term for term in loss_terms if (term.name in named if named else term.predicts)]


def _wanted(
    loss_terms: list[terms.Term],
    read_by_masks: list[Ref],
    named_teachers: Mapping[str, Any],
    ids: Mapping[str, Any],
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Who -> the outputs that the terms read from it; and the groups that the student sees."""
    refs = [ref for term in loss_terms for ref in term.refs()]
    if all(ref.who for ref in refs):
        raise ConfigError("losses: no term reads the student")
    wanted = {
        who: tuple(dict.fromkeys(ref.output for ref in refs + read_by_masks if ref.who == who))
        for who in ("", *named_teachers, INPUT)
    }
    groups = {group for ref in refs if not ref.who for group in ref.groups}
    return wanted, tuple(group for group in ids if group in groups)
