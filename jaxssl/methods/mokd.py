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

from jaxssl import losses, optim
from jaxssl.config import schedules
from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import fold_name
from jaxssl.memories import MemoryInput, center
from jaxssl.method import Aux, Batch, Context, Info, Method, Optimizer, PyTree, Readout
from jaxssl.methods import mokd_sides, toolkit
from jaxssl.methods.composed import inputs as blocks
from jaxssl.methods.composed import outputs as encode
from jaxssl.methods.composed.networks import Networks
from jaxssl.methods.mokd_sides import GLOBAL, LOCAL, OTHER, Found, Side
from jaxssl.optim.param_groups import check_fields
from jaxssl.state import example_batch
from jaxssl.step import gradient_step

OPTIONS: Mapping[str, Any] = {
    "a": {},
    "b": {},
    "student_temperature": 0.1,
    "cross_temperature": 0.04,
    "center_momentum": 0.9,
}
OWN: Mapping[str, Any] = {"cross_weight": 1.0, "teacher_temperature": 0.04, "drop_path": 0.0}
SIDES: Mapping[str, Mapping[str, Any]] = {"a": OWN, "b": {**OWN, "encoder": {}, "optimizer": {}}}
CENTERS = ("self", "search", "cross")


def build(config: Any, info: Info) -> Method:
    """The `Method` of a MOKD config.

    Raises:
      ConfigError: naming the first field that does not fit.
    """
    pair = Pair(config, info)
    sides = pair.sides
    shapes, extra = jax.eval_shape(pair.init, jax.random.key(0), example_batch(info))
    toolkit.microbatches(config, tuple(extra["batch_stats"]["student"]))
    named: dict[str, Readout] = {
        name: _encoder(config, info, side, "") for name, side in sides.items()
    }
    named |= {f"teacher_{name}": _encoder(config, info, side, name) for name, side in sides.items()}
    return Method(
        pair.init,
        {"main": pair.loss},
        named,
        {name: side.teacher for name, side in sides.items()},
        gradient_step(optimizers=tuple(sides)),
        _optimizers(config, pair.of_side["b"]["optimizer"], sides, shapes, info),
    )


class Pair:
    """Both networks with what they learn from each other."""

    def __init__(self, config: Any, info: Info):
        options = toolkit.options(config, OPTIONS)
        self.of_side: dict[str, Any] = {
            n: check_fields(options[n], SIDES[n], f"method_options.{n}") for n in OTHER
        }
        self._student_temperature, self._cross_temperature = (
            schedules.make(options[name], info.steps, f"method_options.{name}")
            for name in ("student_temperature", "cross_temperature")
        )
        self.sides = mokd_sides.make(config, self.of_side, info)
        self._wide = mokd_sides.check(config, self.sides)
        momentum = options["center_momentum"]
        self._centers = center.build(views=0, info=info, momentum=momentum)

    def init(self, key: jax.Array, batch: Batch) -> tuple[PyTree, PyTree]:
        """New params, batch statistics and centers."""
        plain = self._joined(self._plain(key, batch))
        params: dict[str, PyTree] = {}
        statistics: dict[str, PyTree] = {"student": {}}
        count = {}
        for name, side in self.sides.items():
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

    def loss(self, context: Context) -> tuple[jax.Array, Aux]:
        """L_a + L_b."""
        params, seen, extra, batch, key, step = context
        plain, statistics = self._plain(key, batch), extra["batch_stats"]
        student, after = self._students(params, statistics["student"], batch, plain, key)
        pooled = {name: found["pooled"][LOCAL] for name, found in student.items()}
        taught = self._teachers(params, seen, statistics, plain, pooled)
        value, moved = jnp.zeros(()), {}
        metrics: dict[str, jax.Array] = {}
        for name, side in self.sides.items():
            own_centers = extra["centers"][name]
            targets = {
                "self": _stack(taught.outputs[name]["scores"]),
                "search": _stack(taught.outputs[name]["search_scores"]),
                "cross": _stack(taught.outputs[OTHER[name]]["scores"]),
            }
            found = taught.found[OTHER[name]]
            terms = self._terms(side, student[name], targets, found, own_centers, step)
            across = terms["cross"] + terms["cross_search"]
            value += terms["self"] + terms["search"] + side.cross_weight(step) * across
            metrics |= {f"{name}_{use}": term for use, term in terms.items()}
            sharpened = (targets["self"] - own_centers["self"]) / side.temperature(step)
            metrics[f"{name}_teacher_entropy"] = _entropy(sharpened)
            moved[name] = {
                use: self._centers.update(
                    own_centers[use], MemoryInput(targets[use], batch, key, step)
                )
                for use in CENTERS
            }
        next_extra = {"batch_stats": {"student": after, **taught.stats}, "centers": moved}
        return value, Aux(jax.lax.stop_gradient(next_extra), metrics)

    def _plain(self, key: jax.Array, batch: Batch) -> dict[str, blocks.Block]:
        """The views of each group, nothing left out."""
        return self.sides["a"].blocks.plain(key, batch)[0]

    def _joined(self, groups: Mapping[str, blocks.Block]) -> dict[str, blocks.Block]:
        """All global views as one block: they share the batch statistics, as published."""
        together = lambda *arrays: jnp.concatenate(arrays, 1)
        return {
            GLOBAL: jax.tree.map(together, *(groups[group] for group in self._wide)),
            LOCAL: groups[LOCAL],
        }

    def _students(
        self, params: PyTree, stats: PyTree, batch: Batch, plain: Any, key: jax.Array
    ) -> tuple[dict[str, Found], dict[str, PyTree]]:
        """What each student gives, and the next batch statistics of both."""
        outputs, after = {}, dict[str, PyTree]()
        for name, side in self.sides.items():
            inputs = self._joined(side.blocks.for_student(fold_name(key, name), batch, plain))
            wanted = ("pooled", "scores", "search_scores")
            own, its = side.part(params), side.part(stats)
            outputs[name], its = side.networks.outputs(own, its, inputs, wanted, True)
            after |= side.named(its)
        return outputs, after

    def _teachers(
        self,
        params: PyTree,
        seen: Mapping[str, PyTree],
        statistics: Mapping[str, PyTree],
        plain: Any,
        pooled: Mapping[str, jax.Array],
    ) -> "Lesson":
        """What each teacher gives, also to the questions of the other's student."""
        outputs, found, after = {}, {}, {}
        inputs = {GLOBAL: self._joined(plain)[GLOBAL]}
        for name, side in self.sides.items():
            asker, frozen = self.sides[OTHER[name]], jax.lax.stop_gradient(seen[name])
            wanted = ("tokens", "scores", "search_scores")
            own, its = side.part(frozen), side.part(statistics[name])
            outputs[name], its = side.networks.outputs(own, its, inputs, wanted, True)
            after[name] = side.named(its)
            queries = asker.describe(params, pooled[asker.name])
            tokens = outputs[name]["tokens"][GLOBAL][:, 0]
            found[name] = side.find(frozen, tokens, jax.lax.stop_gradient(queries))
        return Lesson(outputs, found, after)

    def _terms(
        self,
        side: Side,
        student: Found,
        targets: Mapping[str, jax.Array],
        found: jax.Array,
        own_centers: Mapping[str, jax.Array],
        step: jax.Array,
    ) -> dict[str, jax.Array]:
        """The four terms of L_x, without λ_x."""
        t_student, t_cross = self._student_temperature(step), self._cross_temperature(step)
        scores, own_temperature = _stack(student["scores"]), side.temperature(step)
        guesses = {"self": scores, "search": _stack(student["search_scores"]), "cross": scores}
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
            jnp.moveaxis(student["search_scores"][LOCAL], 1, 0),
            jnp.moveaxis(found, 1, 0),
            student_temperature=t_student,
            teacher_temperature=t_cross,
        )
        return terms


class Lesson(NamedTuple):
    """What the teachers give: outputs by network, what each found for the other's student, and
    their next batch statistics."""

    outputs: Mapping[str, Found]
    found: Mapping[str, jax.Array]
    stats: Mapping[str, PyTree]


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


def _encoder(config: Any, info: Info, side: Side, teacher: str) -> Readout:
    """The encoder of a network's student, or of its teacher, in evaluation mode."""
    apply = encode.encoders_of(config, info, Networks(side.networks.encoder, {}))["student"]

    def run(context: Context) -> Mapping[str, jax.Array]:
        params, seen, extra, *_ = context
        own = side.part(seen[teacher] if teacher else params)
        stats = side.part(extra["batch_stats"][teacher or "student"])
        extra = {"batch_stats": {"student": stats}}
        return apply(context._replace(params=own, teachers={}, extra=extra))

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
