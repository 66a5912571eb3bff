"""Joint embedding: groups of views -> encoder -> projector (-> predictor), and terms on them.

Named entries carry the family: groups of views (`config.views`), what is hidden of them
(`config.masks`), networks (`config.encoder`, `config.student`), teachers (`config.teachers`),
targets read off the views (`config.targets`) and terms (`config.losses`). A teacher sees the groups
named by its field `views` (default "global" where there is such a group), whole, with batch
statistics of its own. A term may remember things across steps (`jaxssl.memories`).

A step: views, teachers and targets, masks (some of which read a teacher), the student, terms.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange

from jaxssl import encoders, heads, targets, teachers
from jaxssl.errors import ConfigError, near
from jaxssl.evals import protocol
from jaxssl.method import Aux, Batch, Info, Method, Pictures, PyTree
from jaxssl.methods import blocks, checks, encode, observed, pictures, terms
from jaxssl.methods.arguments import INPUT, Known, Ref, Scene
from jaxssl.methods.networks import DTYPES, Head, Networks, accepts, head_place, order_heads
from jaxssl.naming import fold_name
from jaxssl.state import example_batch

OPTIONS = {"batch_statistics": "all", **blocks.OPTIONS}
STATISTICS = ("all", "group", "view")
# Widths of heads that the data decides.
COUNTED = ("num_classes", "num_samples")


class Look(NamedTuple):
    """What a step looks at before its terms: the scene, what losses are told beside, the next
    batch statistics, and what masks report."""

    scene: Scene
    context: Mapping[str, jax.Array]
    stats: PyTree
    metrics: Mapping[str, jax.Array]


def build(config: Any, info: Info) -> Method:
    """The `Method` of a joint-embedding config.

    Raises:
      ConfigError: naming the first field that does not fit.
    """
    wiring = Wiring(config, info)
    method = Method(
        wiring.init,
        {"main": wiring.loss},
        encode.encoders_of(config, wiring.networks.encoder, wiring.networks.heads),
        wiring.teachers,
        pretext=wiring.pretext if wiring.judged else None,
        pictures=wiring.pictures(),
    )
    if config.train.microbatches > 1:
        _, extra = jax.eval_shape(wiring.init, jax.random.key(0), example_batch(info))
        checks.microbatches(config, tuple(extra["batch_stats"]["student"]))
    return method


class Wiring:
    """The parts that a config names, and how one step goes through them; holds no arrays."""

    def __init__(self, config: Any, info: Info):
        options = _options(config)
        self.config, self.info = config, info
        self.networks = _networks(config, options, DTYPES[config.train.precision], info)
        keyed = any("key" in accepts(head.module) for head in self.networks.heads.values())
        self.blocks = blocks.Blocks(config, options, self.networks.encoder, info, keyed)
        self.targets = _targets(config)
        fresh = lambda key: self._init_networks(key, example_batch(info))[0]
        self.teachers, self.sees, self.trains = _teachers(config, self.blocks.groups, info, fresh)
        known = self._known()
        self.terms = terms.parse(config.losses, info, known)
        self.judged = _judged(self.terms, config)
        read_by_masks = [
            known.ref(f"{hiding.reads}:{'+'.join(hiding.masks)}", f"masks.{name}.teacher")
            for name, hiding in self.blocks.hidings.items()
            if hiding.reads
        ]
        self.wanted, self.student_sees = _wanted(
            self.terms, read_by_masks, self.teachers, self.blocks.ids
        )

    def _known(self) -> Known:
        """What terms may name."""
        made, networks = self.blocks, self.networks
        return Known(
            made.ids,
            {"": made.groups, INPUT: made.groups, **self.sees},
            networks.known(),
            tuple(self.info.shapes),
            tuple(networks.heads),
            tuple(self.targets),
            {name: (hiding.fields, hiding.masks) for name, hiding in made.hidings.items()},
        )

    # ------------------------------------------------------------------ the first state

    def init(self, key: jax.Array, batch: Batch) -> tuple[PyTree, PyTree]:
        """As `Method.init`."""
        params, stats, plain = self._init_networks(key, batch)
        students = ("student", *self.config.teachers)
        extra = {"batch_stats": {name: jax.tree.map(jnp.array, stats) for name in students}}
        # An example may be smaller than the number of microbatches.
        whole = self.networks._replace(microbatches=1)

        def shape(ref: Ref) -> tuple[int, ...]:
            inputs = {group: plain[group] for group in ref.groups}
            apply = lambda: whole.outputs(params, stats, inputs, [ref.output], False)[0]
            found = jax.eval_shape(apply)[ref.output]
            views = sum(stack.shape[1] for stack in found.values())
            return (views, self.info.global_batch, *found[ref.groups[0]].shape[2:])

        memory = terms.init_memory(self.terms, fold_name(key, "memory"), shape)
        return params, extra | ({"memory": memory} if memory else {})

    def _init_networks(self, key: jax.Array, batch: Batch) -> tuple[PyTree, PyTree, Any]:
        """Params, batch statistics, and views of the right shapes, which are all that is asked."""
        shapes, _ = jax.eval_shape(self.blocks.plain, key, batch)
        plain = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        x = plain[self.blocks.groups[0]]["x"]
        return *self.networks.init(key, x[:, 0], x.shape[1]), plain

    # ------------------------------------------------------------------ a step

    def loss(
        self,
        params: PyTree,
        seen: Mapping[str, PyTree],
        extra: PyTree,
        batch: Batch,
        key: jax.Array,
        step: jax.Array,
    ) -> tuple[jax.Array, Aux]:
        """As the losses of `Method`."""
        look = self._look(params, seen, extra, batch, key, step, train=True)
        value, metrics, memory = terms.total(self.terms, look.scene, look.context)
        metrics |= observed.of_teachers(self.terms, look.scene)
        after = {"batch_stats": look.stats} | ({"memory": memory} if memory else {})
        return value, Aux({**extra, **jax.lax.stop_gradient(after)}, {**metrics, **look.metrics})

    def pretext(
        self,
        params: PyTree,
        seen: Mapping[str, PyTree],
        extra: PyTree,
        batch: Batch,
        key: jax.Array,
        step: jax.Array,
    ) -> dict[str, tuple[jax.Array, jax.Array]]:
        """As `Method.pretext`."""
        look = self._look(params, seen, extra, batch, key, step, train=False)
        errors = lambda term: (
            terms.value_of(term, look.scene, look.context),
            terms.constant(term, look.scene, look.context),
        )
        return {term.name: errors(term) for term in self.judged}

    def _look(
        self,
        params: PyTree,
        seen: Mapping[str, PyTree],
        extra: PyTree,
        batch: Batch,
        key: jax.Array,
        step: jax.Array,
        train: bool,
    ) -> Look:
        plain, context = self.blocks.plain(key, batch)
        stats = dict(extra["batch_stats"])
        outputs: dict[tuple[str, str], Any] = {}
        for name, teacher_params in seen.items():
            if self.wanted[name]:
                inputs = {group: plain[group] for group in self.sees[name]}
                trains = train and self.trains[name]
                found, stats[name] = self.networks.outputs(
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
        return Look(scene, context, stats, self.blocks.metrics(inputs, read))

    # ------------------------------------------------------------------ pictures

    def pictures(self) -> dict[str, Pictures]:
        """What the report shows: terms that draw images, and where the encoder attends."""
        shown = {
            f"prediction of {term.name}": self._predicted(term, paint)
            for term in self.terms
            if (paint := pictures.painter(term, self.config))
        }
        images = len(self.info.shapes["image"]) == 3
        if getattr(self.networks.encoder, "class_token", False) and images:
            shown["attention"] = Pictures(pictures.ATTENTION, self._attended)
        return shown

    def _predicted(self, term: terms.Term, paint: Callable[..., jax.Array]) -> Pictures:
        def make(*step: Any) -> jax.Array:
            params, seen, extra, batch, key, number = step
            scene = self._look(params, seen, extra, batch, key, number, train=False).scene
            clean = self.blocks.plain(key, batch)[0][term.student.groups[0]]["x"]
            return paint(term, scene, clean, self.config)

        return Pictures(pictures.RECONSTRUCTION, make)

    def _attended(
        self, params: PyTree, seen: Any, extra: PyTree, batch: Batch, key: jax.Array, step: Any
    ) -> jax.Array:
        group = self.blocks.groups[0]
        plain = {group: self.blocks.plain(key, batch)[0][group]}
        stats = extra["batch_stats"]["student"]
        found, _ = self.networks.outputs(params, stats, plain, ["attention"], False)
        return pictures.attention(found["attention"][group], plain[group]["x"], self.config)


def _options(config: Any) -> dict[str, Any]:
    options = checks.options(config, OPTIONS)
    if options["batch_statistics"] not in STATISTICS:
        found = options["batch_statistics"]
        raise ConfigError(
            f"method_options.batch_statistics: {found!r}{near(str(found), STATISTICS)}"
        )
    return options


def _networks(config: Any, options: Mapping[str, Any], dtype: Any, info: Info) -> Networks:
    encoder = encoders.build(config.encoder.to_dict(), dtype=dtype)
    made: dict[str, Head] = {}
    # Heads that share the network of another come after it.
    for name in sorted(config.student, key=lambda name: "shares" in config.student[name]):
        entry = config.student[name].to_dict()
        place = head_place(name, entry)
        field = f"student.{name}"
        fields = {k: v for k, v in entry.items() if k not in ("reads", "output")}
        if "shares" in fields:
            made[name] = Head(*_shared(fields, made, field, place))
            continue
        for count in ("width", "count"):
            if fields.get(count) in COUNTED:
                fields[count] = _counted(fields[count], info, field)
        made[name] = Head(heads.build(fields, dtype=dtype, field=field), *place)
    if "encoder" in made:
        raise ConfigError("student.encoder: the encoder is configured by `encoder`")
    return Networks(
        encoder, order_heads(made), options["batch_statistics"], config.train.microbatches
    )


def _shared(
    fields: dict[str, Any], made: Mapping[str, Head], field: str, place: tuple[str, str]
) -> tuple[Any, str, str, str]:
    """A head that applies the network of another head to another output."""
    owner = fields.pop("shares")
    owners = [name for name, head in made.items() if not head.shares]
    if owner not in owners:
        raise ConfigError(f"{field}.shares: no head {owner!r}{near(str(owner), owners)}")
    for name in fields:
        raise ConfigError(f"{field}.{name}: a head with `shares` takes reads and output alone")
    return (made[owner].module, *place, owner)


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
        if name in ("student", INPUT):
            raise ConfigError(f"teachers.{name}: the name is taken by the {name} itself")
        entry = config.teachers[name].to_dict()
        default = ("global",) if "global" in ids else ids
        named = entry.pop("views", default)
        if not isinstance(named, list | tuple) or not named:
            raise ConfigError(f"teachers.{name}.views: found {named!r}, expected a tuple of groups")
        sees[name] = tuple(named)
        for group in sees[name]:
            if group not in ids:
                raise ConfigError(
                    f"teachers.{name}.views: no group {group!r}{near(str(group), ids)}"
                )
        mode = entry.pop("mode", "train")
        if mode not in ("train", "eval"):
            raise ConfigError(f"teachers.{name}.mode: {mode!r}; expected 'train' or 'eval'")
        trains[name] = mode == "train"
        built[name] = teachers.make(entry, info.steps, f"teachers.{name}", info=info, fresh=fresh)
    return built, sees, trains


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
