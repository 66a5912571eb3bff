"""The two networks of MOKD, each with its heads and its teacher."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxssl import encoders, heads, teachers
from jaxssl.config import schedules
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.schedules import Schedule
from jaxssl.devices.chunking import chunked
from jaxssl.devices.sharding import batch_sharded
from jaxssl.heads.transformer_head import TransformerHead
from jaxssl.method import Info, PyTree, Teacher
from jaxssl.methods.composed import inputs as blocks
from jaxssl.methods.composed.networks import DTYPES, Head, Networks, Outputs, order_heads

Found = dict[str, Outputs]  # what a network gives: output -> group of views -> [B, V, ...]

OTHER = {"a": "b", "b": "a"}
# head -> (what it reads, what it gives)
PLACES = {
    "projector": ("pooled", "projection"),
    "prototypes": ("projection", "scores"),
    "search": ("tokens", "found"),
    "search_prototypes": ("found", "search_scores"),
}
PARTS = ("encoder", *PLACES)
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


def make(config: Any, of_side: Mapping[str, Any], info: Info) -> dict[str, Side]:
    """Both networks.

    Args:
      of_side: network -> its section of `method_options`.

    Raises:
      ConfigError: naming the first field that does not fit.
    """
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
        encoder = encoders.build(entries[name], dtype=dtype, field=fields[name])
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


def check(config: Any, sides: Mapping[str, Side]) -> tuple[str, ...]:
    """The groups of global views, once everything is known to fit.

    Raises:
      ConfigError: naming the first field that does not fit.
    """
    ids = sides["a"].blocks.ids
    wide = tuple(group for group in ids if group != LOCAL)
    if LOCAL not in ids:
        raise ConfigError(f"views.{LOCAL}: missing{near(LOCAL, ids)}")
    if sum(len(ids[group]) for group in wide) < 2:
        raise ConfigError(f"views: found the groups {tuple(ids)}, expected 2 views not {LOCAL!r}")
    if len({sides["a"].blocks.shapes[group] for group in wide}) > 1:
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
