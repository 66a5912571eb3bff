"""Where the arguments of a loss come from.

A field of a term is a number, a schedule, or a dict that names a source:

  dict(batch="label")              a field of the batch, [B, ...]; of a stream "labelled/label"
  dict(param="prototypes/vectors") an array of the student's params, with its gradient
  dict(output="projection:mixed")  an output, [B, ...] where it is of one view, else [V, B, ...]
  dict(memory="queue", size=4096)  what the term remembers: `jaxssl.memories`; `of` names the
                                   output that it remembers, `head` one that reads it on the way out
  dict(mask="hidden")              what a mask hid of the student's views: `jaxssl.masks`; `field`
                                   names another of its fields; [V, B, ...], or each view's own
  dict(table="means.mean")         a column of an earlier stage's table, whole: `jaxssl.tables`; the
                                   only one needs no name
"""

import inspect
import math
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl import memories
from jaxssl.config import schedules
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import fold_name, named_leaves
from jaxssl.memories import Memory, MemoryInput
from jaxssl.method import Batch, Info, PyTree, of_stream

SOURCES = ("batch", "mask", "memory", "output", "param", "table")
INPUT = "input"  # the name under which targets are read off the clean views, like a teacher's
Stack = Mapping[str, jax.Array]  # group -> [B, V, ...]


class Ref(NamedTuple):
    """An output of a network: who ("" is the student), what, and of which groups of views."""

    who: str
    output: str
    groups: tuple[str, ...]


class OutputSpec(NamedTuple):
    """The outputs that terms may name.

    Attributes:
      ids: group -> the numbers of its views.
      sees: who -> the groups that a name without groups means.
      outputs: who ("" is the student) -> names of the outputs of the networks.
      fields: of the batch.
      heads: names of the student's heads.
      targets: names of what "input/..." gives.
      masks: name of a mask -> (its fields, its groups).
      streams: group -> the stream that its views are made of.
    """

    ids: Mapping[str, tuple[int, ...]]
    sees: Mapping[str, tuple[str, ...]]
    outputs: Mapping[str, Sequence[str]]
    fields: Sequence[str]
    heads: Sequence[str]
    targets: Sequence[str] = ()
    masks: Mapping[str, tuple[Sequence[str], Collection[str]]] = MappingProxyType({})
    streams: Mapping[str, str] = MappingProxyType({})

    def ref(self, text: str, field: str) -> Ref:
        """From "output", "who/output" or "who/output:group+group".

        Raises:
          ConfigError: naming the part that is not there.
        """
        if not isinstance(text, str) or not text:
            raise ConfigError(f"{field}: found {text!r}, expected an output such as 'projection'")
        who, _, rest = text.rpartition("/")
        output, _, groups = rest.partition(":")
        who = "" if who == "student" else who
        if who not in self.sees:
            known = near(who, filter(None, self.sees))
            raise ConfigError(f"{field}: no teacher {who!r} in teachers{known}")
        outputs = self.targets if who == INPUT else self.outputs[who]
        if output not in outputs:
            kind = "target" if who == INPUT else "output"
            raise ConfigError(f"{field}: no {kind} {output!r}{near(output, outputs)}")
        seen = self.sees[who] if who else tuple(self.ids)
        for group in groups.split("+") if groups else ():
            if group not in seen:
                raise ConfigError(f"{field}: sees no views {group!r}{near(group, self.ids)}")
        ref = Ref(who, output, tuple(groups.split("+")) if groups else self.sees[who])
        found = dict.fromkeys(self.stream(Ref(who, output, (group,))) for group in ref.groups)
        if len(found) > 1:
            one = f"{text.partition(':')[0]}:{ref.groups[0]}"
            raise ConfigError(
                f"{field}: found {text!r}, views of the streams {', '.join(found)}; expected "
                f"groups of one, such as {one!r}"
            )
        return ref

    def stream(self, ref: Ref) -> str:
        """The stream of an output, "" where there are none."""
        return self.streams.get(ref.groups[0], "")

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
      blocks: group -> what entered the student.
    """

    outputs: Mapping[tuple[str, str], Stack]
    ids: Mapping[str, tuple[int, ...]]
    batch: Batch
    params: PyTree
    step: jax.Array
    apply: Callable[[str, jax.Array], jax.Array]
    memory: Mapping[str, Mapping[str, PyTree]]
    key: jax.Array
    blocks: Mapping[str, Mapping[str, jax.Array]] = MappingProxyType({})

    def stack(self, ref: Ref) -> tuple[jax.Array, tuple[int, ...]]:
        """[V, B, ...] of the groups that `ref` names, and the numbers of the views.

        Where a head joined the views of a sample, one is left, with the number of the first.
        """
        found = self.outputs[ref.who, ref.output]
        stack = jnp.concatenate([jnp.moveaxis(found[g], 1, 0) for g in ref.groups])
        return stack, sum((tuple(self.ids[g])[: found[g].shape[1]] for g in ref.groups), ())


class MemoryArgument(NamedTuple):
    """An argument that is a memory: its functions, the output it sees, a head on the way out, and
    the stream of the samples."""

    memory: Memory
    of: Ref
    head: str
    stream: str = ""


class Source(NamedTuple):
    """An argument from the batch or from the params."""

    kind: str
    name: str


class MaskArgument(NamedTuple):
    """An argument from a mask: a field of the student's blocks, of the groups of the term."""

    field: str
    groups: tuple[str, ...]


class Constant(NamedTuple):
    """An argument that is the same in every step, on every device."""

    values: np.ndarray


_NAMES = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}

Argument = (
    Any  # a number or string, a Schedule, a Source, a MaskArgument, a Ref, a MemoryArgument ...
)


def parse(
    value: Any, field: str, info: Info, known: OutputSpec, default: Ref, student: Ref
) -> Argument:
    """The argument that a field of a term describes.

    Args:
      value: a number, a schedule or a source.
      field: its name, for errors.
      info: of the run.
      known: the outputs that there are.
      default: what a memory sees that does not say `of`.
      student: the term's own output, whose views a mask is of.

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
    if kind == "mask":
        return _hidden(name, fields, field, known, student)
    for key in fields:
        raise ConfigError(f"{field}.{key}: a source from {kind} takes no further field")
    if kind == "table":
        return _constant(name, field, info)
    if kind == "output":
        return known.ref(name, f"{field}.output")
    if kind == "batch" and name not in known.fields:
        raise ConfigError(f"{field}.batch: no field {name!r}{near(str(name), known.fields)}")
    return Source(kind, name)


def check(argument: Argument, field: str, parameter: inspect.Parameter) -> None:
    """Refuses what a parameter of a loss cannot be: text for a number, a number for an array, ...

    Sources and schedules give arrays, which fit wherever no text, truth or whole number is wanted.

    Raises:
      ConfigError: naming the field.
    """
    wanted = typing.get_args(parameter.annotation) or (parameter.annotation,)
    kinds = tuple(kind for kind in (bool, int, float, str) if kind in wanted)
    if isinstance(argument, Source | MaskArgument | Ref | MemoryArgument | Constant) or callable(
        argument
    ):
        fits = not kinds or float in kinds
    elif argument is None:
        fits = type(None) in wanted
    else:
        fits = type(argument) in kinds or (float in kinds and type(argument) is int)
        fits = fits and (not isinstance(argument, float) or math.isfinite(argument))
    if not fits:
        names = [_NAMES[kind] for kind in kinds] or [f"a source: {', '.join(SOURCES)}"]
        if type(None) in wanted:
            names.append("None")
        raise ConfigError(f"{field}: found {argument!r}, expected {' or '.join(names)}")
    # Similarities are divided by it.
    if "temperature" in parameter.name and isinstance(argument, int | float) and argument <= 0:
        raise ConfigError(f"{field}: found {argument!r}, expected a number above zero")


def _remember(
    name: str, fields: dict[str, Any], field: str, info: Info, known: OutputSpec, default: Ref
) -> MemoryArgument:
    head = fields.pop("head", "")
    if head and head not in known.heads:
        raise ConfigError(f"{field}.head: no head {head!r}{near(str(head), known.heads)}")
    of = known.ref(fields.pop("of"), f"{field}.of") if "of" in fields else default
    views = known.count(of)
    stream = known.stream(of)
    memory = memories.build(
        {"memory": name, **fields}, views=views, info=info.of_stream(stream), field=field
    )
    return MemoryArgument(memory, of, head, stream)


def _hidden(
    name: str, fields: dict[str, Any], field: str, known: OutputSpec, student: Ref
) -> MaskArgument:
    if name not in known.masks:
        raise ConfigError(f"{field}.mask: no mask {name!r}{near(str(name), known.masks)}")
    given, groups = known.masks[name]
    chosen = fields.pop("field", given[0])
    for key in fields:
        raise ConfigError(f"{field}.{key}: a source from mask takes `field` alone")
    if chosen not in given:
        raise ConfigError(f"{field}.field: {name!r} gives no {chosen!r}{near(str(chosen), given)}")
    for group in student.groups:
        if group not in groups:
            raise ConfigError(f"{field}.mask: {name!r} masks no views {group!r}")
    return MaskArgument(chosen, student.groups)


def _constant(name: Any, field: str, info: Info) -> Constant:
    table, _, column = str(name).partition(".")
    if table not in info.tables:
        raise ConfigError(f"{field}.table: no table {table!r}{near(table, info.tables)}")
    columns = info.tables[table].columns
    if not column and len(columns) == 1:
        column = next(iter(columns))
    if column not in columns:
        known = [f"{table}.{one}" for one in columns]
        raise ConfigError(f"{field}.table: no column {name!r}{near(str(name), known)}")
    return Constant(np.asarray(columns[column]))


def resolve(argument: Argument, scene: Scene, term: str, name: str) -> Any:
    """The value of an argument in a step."""
    if isinstance(argument, MemoryArgument):
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
    if isinstance(argument, MaskArgument):
        views = [jnp.moveaxis(scene.blocks[g][argument.field], 1, 0) for g in argument.groups]
        return jnp.concatenate(views)
    if isinstance(argument, Ref):
        stack, _ = scene.stack(argument)
        return stack[0] if len(stack) == 1 else stack
    if isinstance(argument, Constant):
        return jnp.asarray(argument.values)
    return argument(scene.step) if callable(argument) else argument


def update(argument: MemoryArgument, scene: Scene, term: str, name: str) -> PyTree:
    """The next state of a memory."""
    state = scene.memory[term][name]
    return argument.memory.update(state, seen_by(argument, scene, term, name))


def seen_by(argument: MemoryArgument, scene: Scene, term: str, name: str) -> MemoryInput:
    """What a memory may look at in this step."""
    stack = jax.lax.stop_gradient(scene.stack(argument.of)[0])
    key = fold_name(scene.key, f"{term}/{name}")
    return MemoryInput(stack, of_stream(scene.batch, argument.stream), key, scene.step)
