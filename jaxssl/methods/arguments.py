"""Where the arguments of a loss come from.

A field of a term is a number, a schedule, or a dict that names a source:

  dict(batch="label")              a field of the batch, [B, ...]
  dict(param="prototypes/vectors") an array of the student's params, with its gradient
  dict(output="projection:mixed")  an output, [B, ...] where it is of one view, else [V, B, ...]
  dict(memory="queue", size=4096)  what the term remembers: `jaxssl.memories`; `of` names the
                                   output that it remembers, `head` one that reads it on the way out
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxssl import memories, schedules
from jaxssl.errors import ConfigError, near
from jaxssl.memories import Memory, Seen
from jaxssl.method import Batch, Info, PyTree
from jaxssl.naming import fold_name, named_leaves

SOURCES = ("batch", "memory", "output", "param")
Stack = Mapping[str, jax.Array]  # group -> [B, V, ...]


class Ref(NamedTuple):
    """An output of a network: who ("" is the student), what, and of which groups of views."""

    who: str
    output: str
    groups: tuple[str, ...]


class Known(NamedTuple):
    """The outputs that terms may name.

    Attributes:
      ids: group -> the numbers of its views.
      sees: who -> the groups that a name without groups means.
      outputs: names of the outputs of the networks.
      fields: of the batch.
      heads: names of the student's heads.
    """

    ids: Mapping[str, tuple[int, ...]]
    sees: Mapping[str, tuple[str, ...]]
    outputs: Sequence[str]
    fields: Sequence[str]
    heads: Sequence[str]

    def ref(self, text: str, field: str) -> Ref:
        """From "output", "who/output" or "who/output:group+group".

        Raises:
          ConfigError: naming the part that is not there.
        """
        who, _, rest = text.rpartition("/")
        output, _, groups = rest.partition(":")
        who = "" if who == "student" else who
        if who not in self.sees:
            raise ConfigError(f"{field}: no teacher {who!r}{near(who, filter(None, self.sees))}")
        if output not in self.outputs:
            raise ConfigError(f"{field}: no output {output!r}{near(output, self.outputs)}")
        seen = self.sees[who] if who else tuple(self.ids)
        for group in groups.split("+") if groups else ():
            if group not in seen:
                raise ConfigError(f"{field}: sees no views {group!r}{near(group, self.ids)}")
        return Ref(who, output, tuple(groups.split("+")) if groups else self.sees[who])

    def count(self, ref: Ref) -> int:
        """The number of views of an output."""
        return sum(len(self.ids[group]) for group in ref.groups)


class Scene(NamedTuple):
    """What the arguments of a step are taken from.

    Attributes:
      outputs: (who, output) -> {group: [B, V, ...]}.
      ids: group -> the numbers of its views, for pairing.
      batch, params, step: of the step.
      apply: (head, [..., D]) -> [..., P], with the student's params.
      memory: term -> argument -> the state of its memory.
      key: the step's key for terms; the same on all devices.
    """

    outputs: Mapping[tuple[str, str], Stack]
    ids: Mapping[str, tuple[int, ...]]
    batch: Batch
    params: PyTree
    step: jax.Array
    apply: Callable[[str, jax.Array], jax.Array]
    memory: Mapping[str, Mapping[str, PyTree]]
    key: jax.Array

    def stack(self, ref: Ref) -> tuple[jax.Array, tuple[int, ...]]:
        """[V, B, ...] of the groups that `ref` names, and the numbers of the views."""
        found = self.outputs[ref.who, ref.output]
        stack = jnp.concatenate([jnp.moveaxis(found[g], 1, 0) for g in ref.groups])
        return stack, sum((tuple(self.ids[g]) for g in ref.groups), ())


class Remembered(NamedTuple):
    """An argument that is a memory: its functions, the output it sees, a head on the way out."""

    memory: Memory
    of: Ref
    head: str


class Source(NamedTuple):
    """An argument from the batch or from the params."""

    kind: str
    name: str


Argument = Any  # a number or string, a Schedule, a Source, a Ref or a Remembered


def parse(value: Any, field: str, info: Info, known: Known, default: Ref) -> Argument:
    """The argument that a field of a term describes.

    Args:
      value: a number, a schedule or a source.
      field: its name, for errors.
      info: of the run.
      known: the outputs that there are.
      default: what a memory sees that does not say `of`.

    Raises:
      ConfigError: a section that names no source, a source that is not there, a bad schedule.
    """
    if schedules.is_spec(value):
        return schedules.make(value, info.steps, field=field)
    if not hasattr(value, "items"):
        return value
    fields = dict(value)
    kinds = [kind for kind in SOURCES if kind in fields]
    if len(kinds) != 1:
        found = next(iter(fields), "nothing")
        raise ConfigError(
            f"{field}: found a section with {found!r}, expected one of the sources "
            f"{', '.join(SOURCES)}{near(str(found), SOURCES)}"
        )
    kind = kinds[0]
    name = fields.pop(kind)
    if kind == "memory":
        return _remember(name, fields, field, info, known, default)
    for key in fields:
        raise ConfigError(f"{field}.{key}: a source from {kind} takes no further field")
    if kind == "output":
        return known.ref(name, f"{field}.output")
    if kind == "batch" and name not in known.fields:
        raise ConfigError(f"{field}.batch: no field {name!r}{near(name, known.fields)}")
    return Source(kind, name)


def _remember(
    name: str, fields: dict[str, Any], field: str, info: Info, known: Known, default: Ref
) -> Remembered:
    head = fields.pop("head", "")
    if head and head not in known.heads:
        raise ConfigError(f"{field}.head: no head {head!r}{near(head, known.heads)}")
    of = known.ref(fields.pop("of"), f"{field}.of") if "of" in fields else default
    views = known.count(of)
    memory = memories.build({"memory": name, **fields}, views=views, info=info, field=field)
    return Remembered(memory, of, head)


def resolve(argument: Argument, scene: Scene, term: str, name: str) -> Any:
    """The value of an argument in a step."""
    if isinstance(argument, Remembered):
        state = scene.memory[term][name]
        value = argument.memory.read(state, seen_by(argument, scene, term, name))
        value = jax.lax.stop_gradient(value)
        return scene.apply(argument.head, value) if argument.head else value
    if isinstance(argument, Source):
        if argument.kind == "batch":
            return scene.batch[argument.name]
        found = named_leaves(scene.params)
        if argument.name not in found:
            raise ConfigError(
                f"losses.{term}.{name}.param: no parameter {argument.name!r}"
                f"{near(argument.name, found)}"
            )
        return found[argument.name]
    if isinstance(argument, Ref):
        stack, _ = scene.stack(argument)
        return stack[0] if len(stack) == 1 else stack
    return argument(scene.step) if callable(argument) else argument


def update(argument: Remembered, scene: Scene, term: str, name: str) -> PyTree:
    """The next state of a memory."""
    state = scene.memory[term][name]
    return argument.memory.update(state, seen_by(argument, scene, term, name))


def seen_by(argument: Remembered, scene: Scene, term: str, name: str) -> Seen:
    """What a memory may look at in this step."""
    stack = jax.lax.stop_gradient(scene.stack(argument.of)[0])
    key = fold_name(scene.key, f"{term}/{name}")
    return Seen(stack, scene.batch, key, scene.step)
