"""MOKD: two unlike networks, "a" and "b", each its own teacher (DINO) and each other's.

Song, Xie, Zhang, Luo, 2023, "Multi-mode online knowledge distillation for self-supervised visual
representation learning", arXiv 2304.06461. Network x has an encoder; `projector` and `prototypes`,
which score an image; `search`, a transformer head, and `search_prototypes`, which score its map of
tokens; and a teacher that averages all of them and sees the global views, which are those of every
group but "local". For x and the other y, with CE the loss `dino`, whose every use has a center of
its own:

  L_x = CE(s_x; t_x) + CE(m_x; u_x) + λ_x (CE(s_x; t_y) + S(m_x local; u_y found by x))

s and t are the scores of a student and of a teacher, m and u those of the maps. "Found by x": the
teacher y's transformer head reads its map of the *first* global view once for each local view, with
one more token, the student x's description of that local view (`TransformerHead.reduce` of what its
encoder pools), and S is `search_distillation`, without a center. The loss is L_a + L_b; nothing of
L_x moves y, not even through the query.

Network a is `config.encoder`, moved by `config.optimizer`. Heads are entries of `config.student`
with the network's name behind, "projector_a"; teachers are `config.teachers.a` and `.b`. Encoders
for evaluation: "a", "b", "teacher_a", "teacher_b".

Fields of `config.method_options`; weights and temperatures may be schedules:
  a, b: sections with
    cross_weight: λ_x; published 1 for the weaker network and 0.1 for the stronger.
    teacher_temperature: of x's own teacher.
    drop_path: largest rate of x's stochastic depth.
    encoder: of b alone, as `config.encoder`.
    optimizer: of b alone: fields that differ from `config.optimizer`.
  student_temperature: of both.
  cross_temperature: the teacher's in the terms across networks.
  center_momentum: m of the centers c <- m c + (1 - m) mean t.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxssl import encoders, heads, losses, optim, schedules, teachers
from jaxssl.by_name import build_by_name
from jaxssl.chunking import chunked
from jaxssl.errors import ConfigError, near
from jaxssl.heads.transformer_head import TransformerHead
from jaxssl.memories import Seen, center
from jaxssl.method import Aux, Batch, EncodeFn, Info, Method, Optimizer, PyTree, Teacher
from jaxssl.methods import blocks, checks, encode
from jaxssl.methods.networks import DTYPES, Head, Networks, order_heads
from jaxssl.naming import fold_name
from jaxssl.param_groups import check_fields
from jaxssl.schedules import Schedule
from jaxssl.sharding import batch_sharded
from jaxssl.state import example_batch
from jaxssl.step import gradient_step
from jaxssl.views import frequency

OTHER = {"a": "b", "b": "a"}
OPTIONS: Mapping[str, Any] = {
    "a": {},
    "b": {},
    "student_temperature": 0.1,
    "cross_temperature": 0.04,
    "center_momentum": 0.9,
}
SIDE: Mapping[str, Any] = {"cross_weight": 1.0, "teacher_temperature": 0.04, "drop_path": 0.0}
SIDES: Mapping[str, Mapping[str, Any]] = {"a": SIDE, "b": {**SIDE, "encoder": {}, "optimizer": {}}}
# head -> (what it reads, what it gives)
PLACES = {
    "projector": ("pooled", "projection"),
    "prototypes": ("projection", "scores"),
    "search": ("tokens", "found"),
    "search_prototypes": ("found", "search_scores"),
}
PARTS = ("encoder", *PLACES)
CENTERS = ("self", "search", "cross")
GLOBAL, LOCAL = "global", "local"


class Side(NamedTuple):
    """One of the two networks.

    Attributes:
      name: "a" or "b".
      networks: its encoder and heads, by names without the network's.
      teacher: its average.
      blocks: what its student sees.
      cross_weight, temperature: λ_x, and that of its own teacher.
    """

    name: str
    networks: Networks
    teacher: Teacher
    blocks: blocks.Blocks
    cross_weight: Schedule
    temperature: Schedule

    @property
    def names(self) -> tuple[str, ...]:
        """Its entries of the params."""
        return tuple(f"{part}_{self.name}" for part in PARTS)

    def part(self, tree: PyTree) -> dict[str, PyTree]:
        """Its entries of params or statistics, by names without the network's."""
        return {n: tree[f"{n}_{self.name}"] for n in PARTS if f"{n}_{self.name}" in tree}

    def named(self, tree: PyTree) -> dict[str, PyTree]:
        """The inverse of `part`."""
        return {f"{n}_{self.name}": leaves for n, leaves in tree.items()}

    def describe(self, params: PyTree, pooled: jax.Array) -> jax.Array:
        """Queries [B, V, W] for the other's teacher, of what its encoder pools."""
        variables = {"params": self.part(params)["search"]}
        module = self.networks.heads["search"].module
        return jnp.asarray(module.apply(variables, pooled, method="reduce"))

    def find(self, params: PyTree, tokens: jax.Array, queries: jax.Array) -> jax.Array:
        """Scores [B, V, K] of what queries [B, V, W] find in one map [B, T, D] a sample."""
        own, module = self.part(params), self.networks.heads["search"].module

        def one(tokens: jax.Array, query: jax.Array) -> Any:
            return module.apply({"params": own["search"]}, tokens, train=False, query=query)

        every = chunked(jax.vmap(one, (None, 1), 1), self.networks.microbatches)
        found = batch_sharded(every(tokens, queries))
        return self.networks.apply_head("search_prototypes", own, {}, found)


def build(config: Any, info: Info) -> Method:
    """The `Method` of a MOKD config.

    Raises:
      ConfigError: naming the first field that does not fit.
    """
    options = checks.options(config, OPTIONS)
    of_side: dict[str, Any] = {
        n: check_fields(options[n], SIDES[n], f"method_options.{n}") for n in OTHER
    }
    student_temperature, cross_temperature = (
        schedules.make(options[name], info.steps, f"method_options.{name}")
        for name in ("student_temperature", "cross_temperature")
    )
    sides = _sides(config, of_side, info)
    wide = _check(config, sides)
    centers = center.build(views=0, info=info, momentum=options["center_momentum"])
    plain_blocks = sides["a"].blocks.plain

    def joined(groups: Mapping[str, blocks.Block]) -> dict[str, blocks.Block]:
        """All global views as one block: they share the batch statistics, as published."""
        together = lambda *arrays: jnp.concatenate(arrays, 1)
        return {
            GLOBAL: jax.tree.map(together, *(groups[group] for group in wide)),
            LOCAL: groups[LOCAL],
        }

    def init(key: jax.Array, batch: Batch) -> tuple[PyTree, PyTree]:
        plain = joined(plain_blocks(key, batch)[0])
        params: dict[str, PyTree] = {}
        statistics: dict[str, PyTree] = {"student": {}}
        count = {}
        for name, side in sides.items():
            own, stats = side.networks.init(
                fold_name(key, f"network_{name}"), plain[GLOBAL]["x"][:, 0]
            )
            params |= side.named(own)
            statistics["student"] |= side.named(stats)
            statistics[name] = jax.tree.map(jnp.array, side.named(stats))
            count[name] = _counts(side, own, stats, plain)
        for output in ("scores", "search_scores"):
            if count["a"][output] != count["b"][output]:
                found = tuple(count[name][output] for name in OTHER)
                raise ConfigError(f"student: found {output} of widths {found}, expected one width")
        width = {"self": "scores", "search": "search_scores", "cross": "scores"}
        zeros = {
            name: {use: jnp.zeros(count[name][width[use]]) for use in CENTERS} for name in OTHER
        }
        return params, {"batch_stats": statistics, "centers": zeros}

    def loss(
        params: PyTree,
        seen: Mapping[str, PyTree],
        extra: PyTree,
        batch: Batch,
        key: jax.Array,
        step: jax.Array,
    ) -> tuple[jax.Array, Aux]:
        plain, _ = plain_blocks(key, batch)
        statistics = extra["batch_stats"]
        after: dict[str, PyTree] = {"student": {}}
        student, teacher, found = {}, {}, {}
        for name, side in sides.items():
            own, stats = side.part(params), side.part(statistics["student"])
            inputs = joined(side.blocks.for_student(fold_name(key, name), batch, plain))
            wanted: tuple[str, ...] = ("pooled", "scores", "search_scores")
            student[name], stats = side.networks.outputs(own, stats, inputs, wanted, True)
            after["student"] |= side.named(stats)
        # The teachers come second: each answers what the other's student asks.
        for name, side in sides.items():
            asker, frozen = sides[OTHER[name]], jax.lax.stop_gradient(seen[name])
            own, stats = side.part(frozen), side.part(statistics[name])
            wanted = ("tokens", "scores", "search_scores")
            inputs = {GLOBAL: joined(plain)[GLOBAL]}
            teacher[name], stats = side.networks.outputs(own, stats, inputs, wanted, True)
            after[name] = side.named(stats)
            queries = asker.describe(params, student[asker.name]["pooled"][LOCAL])
            tokens = teacher[name]["tokens"][GLOBAL][:, 0]
            found[name] = side.find(frozen, tokens, jax.lax.stop_gradient(queries))

        t_student, t_cross = student_temperature(step), cross_temperature(step)
        value, moved = jnp.zeros(()), {}
        metrics: dict[str, jax.Array] = {}
        for name, side in sides.items():
            other, own_centers = OTHER[name], extra["centers"][name]
            targets = {
                "self": _stack(teacher[name]["scores"]),
                "search": _stack(teacher[name]["search_scores"]),
                "cross": _stack(teacher[other]["scores"]),
            }
            scores = _stack(student[name]["scores"])
            guesses = {"self": scores, "cross": scores}
            guesses["search"] = _stack(student[name]["search_scores"])
            own_temperature = side.temperature(step)
            temperature = {"self": own_temperature, "search": own_temperature, "cross": t_cross}
            terms = {
                use: losses.dino(
                    guesses[use],
                    targets[use],
                    center=own_centers[use],
                    student_temperature=t_student,
                    teacher_temperature=temperature[use],
                )
                for use in CENTERS
            }
            terms["cross_search"] = losses.search_distillation(
                jnp.moveaxis(student[name]["search_scores"][LOCAL], 1, 0),
                jnp.moveaxis(found[other], 1, 0),
                student_temperature=t_student,
                teacher_temperature=t_cross,
            )
            across = terms["cross"] + terms["cross_search"]
            value += terms["self"] + terms["search"] + side.cross_weight(step) * across
            metrics |= {f"{name}_{use}": term for use, term in terms.items()}
            sharpened = (targets["self"] - own_centers["self"]) / own_temperature
            metrics[f"{name}_teacher_entropy"] = _entropy(sharpened)
            moved[name] = {
                use: centers.update(own_centers[use], Seen(targets[use], batch, key, step))
                for use in CENTERS
            }
        next_extra = {"batch_stats": after, "centers": moved}
        return value, Aux(jax.lax.stop_gradient(next_extra), metrics)

    shapes, extra = jax.eval_shape(init, jax.random.key(0), example_batch(info))
    checks.microbatches(config, tuple(extra["batch_stats"]["student"]))
    named: dict[str, EncodeFn] = {name: _encoder(config, side, "") for name, side in sides.items()}
    named |= {f"teacher_{name}": _encoder(config, side, name) for name, side in sides.items()}
    return Method(
        init,
        {"main": loss},
        named,
        {name: side.teacher for name, side in sides.items()},
        gradient_step(optimizers=tuple(sides)),
        _optimizers(config, of_side["b"]["optimizer"], sides, shapes, info),
    )


def _stack(groups: Mapping[str, jax.Array]) -> jax.Array:
    """[V, B, ...], global views first, of {group: [B, V, ...]}."""
    stacks = [jnp.moveaxis(groups[group], 1, 0) for group in (GLOBAL, LOCAL) if group in groups]
    return jnp.concatenate(stacks)


def _entropy(logits: jax.Array) -> jax.Array:
    """The mean entropy of softmax over the last axis: log K where a teacher says nothing."""
    return -(jax.nn.softmax(logits) * jax.nn.log_softmax(logits)).sum(-1).mean()


def _counts(side: Side, params: PyTree, stats: PyTree, plain: Any) -> dict[str, int]:
    """K of the scores of images and of maps."""
    wanted = ("scores", "search_scores")
    whole = side.networks._replace(microbatches=1)  # an example may be smaller than their number
    apply = lambda: whole.outputs(params, stats, plain, wanted, False)[0]
    found = jax.eval_shape(apply)
    return {name: x[GLOBAL].shape[-1] for name, x in found.items()}


def _sides(config: Any, of_side: Mapping[str, Any], info: Info) -> dict[str, Side]:
    if not of_side["b"]["encoder"]:
        raise ConfigError("method_options.b.encoder: missing; it is the encoder of network b")
    entries = {"a": config.encoder.to_dict(), "b": dict(of_side["b"]["encoder"])}
    fields = {"a": "encoder", "b": "method_options.b.encoder"}
    known = [f"{place}_{name}" for place in PLACES for name in OTHER]
    for head in config.student:
        if head not in known:
            raise ConfigError(f"student.{head}: mokd has no such head{near(head, known)}")
    for name in config.teachers:
        if name not in OTHER:
            raise ConfigError(f"teachers.{name}: mokd has teachers a and b, no others")
    dtype = DTYPES[config.train.precision]
    sides = {}
    for name in OTHER:
        made = {}
        for place, ends in PLACES.items():
            head = f"{place}_{name}"
            if head not in config.student:
                raise ConfigError(f"student.{head}: missing; mokd needs {', '.join(known)}")
            entry = config.student[head].to_dict()
            made[place] = Head(heads.build(entry, dtype=dtype, field=f"student.{head}"), *ends)
        encoder = build_by_name(encoders, entries[name], fields[name], dtype=dtype)
        networks = Networks(encoder, order_heads(made), "all", config.train.microbatches)
        given = of_side[name]
        sides[name] = Side(
            name,
            networks,
            _teacher(config, name, info),
            blocks.Blocks(
                config, {**blocks.OPTIONS, "drop_path": given["drop_path"]}, encoder, info
            ),
            *(
                schedules.make(given[option], info.steps, f"method_options.{name}.{option}")
                for option in ("cross_weight", "teacher_temperature")
            ),
        )
    return sides


def _teacher(config: Any, name: str, info: Info) -> Teacher:
    field = f"teachers.{name}"
    if name not in config.teachers:
        raise ConfigError(f"{field}: missing; mokd has a teacher for each network")
    own = tuple(f"{part}_{name}" for part in PARTS)
    entry = {"follows": own, **config.teachers[name].to_dict()}
    if set(entry["follows"]) != set(own):
        raise ConfigError(f"{field}.follows: found {tuple(entry['follows'])!r}, expected {own!r}")
    return teachers.make(entry, info.steps, field, info=info)


def _check(config: Any, sides: Mapping[str, Side]) -> tuple[str, ...]:
    """The groups of global views, once everything is known to fit."""
    ids = sides["a"].blocks.ids
    wide = tuple(group for group in ids if group != LOCAL)
    if LOCAL not in ids:
        raise ConfigError(f"views.{LOCAL}: missing{near(LOCAL, ids)}")
    if sum(len(ids[group]) for group in wide) < 2:
        raise ConfigError(f"views: found the groups {tuple(ids)}, expected 2 views not {LOCAL!r}")
    if len({frequency.side(config.views[group]) for group in wide}) > 1:
        raise ConfigError(f"views: groups {wide} differ in size, expected one size of global views")
    if config.losses:
        raise ConfigError(f"losses.{min(config.losses)}: mokd has its own terms, expected none")
    widths = []
    for name, side in sides.items():
        module = side.networks.heads["search"].module
        if not isinstance(module, TransformerHead):
            found = config.student[f"search_{name}"].name
            raise ConfigError(
                f"student.search_{name}.name: found {found!r}, expected 'transformer_head'"
            )
        widths.append(module.width)
    if widths[0] != widths[1]:
        raise ConfigError(
            f"student.search_b.width: found {widths[1]}, expected {widths[0]} as in search_a, "
            "whose queries it reads"
        )
    return wide


def _encoder(config: Any, side: Side, teacher: str) -> EncodeFn:
    """The encoder of a network's student, or of its teacher, in evaluation mode."""
    apply = encode.encoders_of(config, side.networks.encoder)["student"]

    def run(
        params: PyTree, seen: Mapping[str, PyTree], extra: PyTree, batch: Batch
    ) -> Mapping[str, jax.Array]:
        own = side.part(seen[teacher] if teacher else params)
        stats = side.part(extra["batch_stats"][teacher or "student"])
        return apply(own, {}, {"batch_stats": {"student": stats}}, batch)

    return run


def _optimizers(
    config: Any, of_b: Any, sides: Mapping[str, Side], shapes: PyTree, info: Info
) -> dict[str, Optimizer]:
    base = config.optimizer.to_dict()
    fields = {"a": base, "b": {**base, **dict(of_b)}}
    where = {"a": "optimizer", "b": "method_options.b.optimizer"}
    found = {}
    for name, side in sides.items():
        own = {n: shapes[n] for n in side.names}
        tx = optim.make(fields[name], own, info.steps, where[name])
        found[name] = Optimizer(tx, side.names)
    return found
