"""Loss terms of a family: a named entry of `config.losses` names a loss and its inputs.

    losses.prediction = dict(fn="byol", student="prediction", teacher="ema/projection",
                             pairs="cross", weight=1.0)

`student` and `teacher` name outputs, "projection" or "ema/projection", of all the views that the
network sees, or of some groups: "projection:global". The first is the loss's first argument, the
second its second; a teacher of "projection" is the student itself, and "input/pixels" an entry of
`config.targets`, made of the clean views (`jaxssl.targets`). `pairs` says how views meet:

  single     the mean over views of fn(z[v])
  all        fn(z) on the stack [V, B, D]
  samples    fn(z) on the stack [B, V, D]
  cross      the mean over pairs u != v of fn(student[u], teacher[v])
  unordered  the same, where {u, v} counts once: for symmetric losses
  same       the mean over u = v

Every other field is an argument of the loss: a number, a schedule, or a source of
`jaxssl.methods.composed.arguments`. Where views are taken one by one, what comes from a mask is
each view's own. A `teacher` that is such a source, e.g. dict(batch="cached.logits"), is the loss's
second argument in place of an output: a table of what a teacher once said costs no forward pass.
Arguments that the loss function names `key`, `step`, `num_global`,
`directions`, `mix_weight` and `mix_order` come from the step. `target`, a memory, replaces what the
teacher gives.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxssl import losses
from jaxssl.config import finder, schedules
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import fold_name
from jaxssl.losses.combine import PAIRS as PAIRINGS
from jaxssl.method import Info, PyTree
from jaxssl.methods.composed import arguments
from jaxssl.methods.composed.arguments import INPUT, MemoryArgument, OutputSpec, Ref, Scene
from jaxssl.optim.param_groups import plain

PAIRS = ("single", "all", "samples", *PAIRINGS)
CONTEXT = ("key", "step", "num_global", "directions", "mix_weight", "mix_order")
# Losses of the literature name their arguments in their own order: the target may come first.
TARGET_FIRST = ("neighbor",)


class Term(NamedTuple):
    """One term of the total loss, checked and with its numbers as schedules."""

    name: str
    fn: Callable[..., jax.Array]
    student: Ref
    teacher: Ref | None
    pairs: str
    weight: Callable[[jax.Array], jax.Array]
    arguments: Mapping[str, arguments.Argument]
    num_slices: int
    target: MemoryArgument | None

    def remembered(self) -> dict[str, MemoryArgument]:
        """The memories of this term by the name of their argument."""
        found = {k: v for k, v in self.arguments.items() if isinstance(v, MemoryArgument)}
        return found | ({"target": self.target} if self.target else {})

    def of_views(self) -> list[str]:
        """The arguments that each view has of its own."""
        return [k for k, v in self.arguments.items() if isinstance(v, arguments.MaskArgument)]

    @property
    def predicts(self) -> bool:
        """Whether the student is to predict something that it was not shown."""
        return bool(self.of_views()) or (self.teacher is not None and self.teacher.who == INPUT)

    def refs(self) -> list[Ref]:
        """Every output that the term reads."""
        given = [self.student, self.teacher, *self.arguments.values()]
        return [r for r in given if isinstance(r, Ref)] + [m.of for m in self.remembered().values()]


def parse(config: Mapping[str, Any], info: Info, known: OutputSpec) -> list[Term]:
    """The terms of `config.losses`, in the order of their names.

    Args:
      config: the section.
      info: of the run.
      known: the outputs that there are.

    Raises:
      ConfigError: an unknown loss, pairing or argument, or an input that is missing.
    """
    if not config:
        raise ConfigError("losses: empty; a family needs at least one term")
    return [_parse_term(name, config[name], info, known) for name in sorted(config)]


def _parse_term(name: str, entry: Mapping[str, Any], info: Info, known: OutputSpec) -> Term:
    field = f"losses.{name}"
    given = plain(entry)
    fn_name = given.pop("fn", None)
    fn = finder.function(losses, fn_name, field=f"{field}.fn", what="a loss")
    if "student" not in given:
        raise ConfigError(f"{field}.student: missing; expected an output such as 'projection'")
    student = known.ref(given.pop("student"), f"{field}.student")
    parameters = list(inspect.signature(fn).parameters)
    target_name = given.pop("teacher", "")
    if hasattr(target_name, "items"):  # a source, such as the column of a table
        given[parameters[1]], target_name = target_name, ""
    teacher = known.ref(target_name, f"{field}.teacher") if target_name else None
    pairs = given.pop("pairs", "cross" if teacher else "all")
    if pairs not in PAIRS:
        raise ConfigError(f"{field}.pairs: found {pairs!r}{near(str(pairs), PAIRS)}")
    if pairs in PAIRINGS and not teacher:
        raise ConfigError(f"{field}.teacher: missing; pairs={pairs!r} needs one")
    weight = schedules.make(given.pop("weight", 1.0), info.steps, field=f"{field}.weight")
    num_slices = given.pop("num_slices", 0) if "directions" in parameters else 0
    if "directions" in parameters and (type(num_slices) is not int or num_slices < 1):
        raise ConfigError(f"{field}.num_slices: found {num_slices!r}; {fn_name} needs at least 1")
    free = [p for p in parameters[2 if teacher else 1 :] if p not in CONTEXT]
    needed = [p for p in free if _has_no_default(fn, p)]
    if teacher:
        free.append("target")
    if inspect.isclass(kind := inspect.signature(fn).return_annotation) and issubclass(kind, tuple):
        fn = _value_alone(fn)
    if parameters[0] in TARGET_FIRST:
        fn = _target_second(fn)
    parsed = {}
    for argument, value in given.items():
        if argument not in free:
            raise ConfigError(f"{field}.{argument}: no such argument{near(argument, free)}")
        where = f"{field}.{argument}"
        found = arguments.parse(value, where, info, known, teacher or student, student)
        if argument != "target":
            arguments.check(found, where, inspect.signature(fn).parameters[argument])
        parsed[argument] = found
    for argument in needed:
        if argument not in parsed:
            raise ConfigError(f"{field}.{argument}: missing; {fn_name} needs it")
    target = parsed.pop("target", None)
    if target is not None and not isinstance(target, MemoryArgument):
        raise ConfigError(f"{field}.target: found {given['target']!r}, expected a memory")
    return Term(name, fn, student, teacher, pairs, weight, parsed, num_slices, target)


def _has_no_default(fn: Callable[..., jax.Array], parameter: str) -> bool:
    return inspect.signature(fn).parameters[parameter].default is inspect.Parameter.empty


def _value_alone(fn: Callable[..., Any]) -> Callable[..., jax.Array]:
    """Of a loss that gives more beside its value, as which samples counted, the value."""

    @functools.wraps(fn)
    def value(*args: Any, **kwargs: Any) -> jax.Array:
        first: jax.Array = fn(*args, **kwargs)[0]
        return first

    return value


def _target_second(fn: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    @functools.wraps(fn)
    def swapped(student: jax.Array, target: jax.Array, **kwargs: Any) -> jax.Array:
        return fn(target, student, **kwargs)

    return swapped


def init_memory(
    terms: list[Term], key: jax.Array, shape: Callable[[Ref], tuple[int, ...]]
) -> dict[str, dict[str, PyTree]]:
    """term -> argument -> the first state of its memory; only terms that have one.

    Args:
      terms: from `parse`.
      key: for memories that start at random.
      shape: ref -> [V, B, ...] of its stack.
    """
    return {
        term.name: {
            name: memory.memory.init(fold_name(key, f"{term.name}/{name}"), shape(memory.of))
            for name, memory in term.remembered().items()
        }
        for term in terms
        if term.remembered()
    }


def total(
    terms: list[Term], scene: Scene, context: Mapping[str, Any]
) -> tuple[jax.Array, dict[str, jax.Array], dict[str, dict[str, PyTree]]]:
    """The weighted sum of the terms, each term's own value, and the next state of the memories.

    Args:
      terms: from `parse`.
      scene: of the step.
      context: what a family offers beside: arguments of `CONTEXT` by name.
    """
    value, values, memory = jnp.zeros(()), {}, {}
    for term in terms:
        found = _fitting(term, scene, context)
        value, values[term.name] = value + term.weight(scene.step) * found, found
        if term.remembered():
            memory[term.name] = {
                name: arguments.update(argument, scene, term.name, name)
                for name, argument in term.remembered().items()
            }
    return value, values, memory


def _fitting(term: Term, scene: Scene, context: Mapping[str, Any]) -> jax.Array:
    """`value_of`; what a loss asserts of shapes, widths in the config have decided."""
    try:
        return value_of(term, scene, context)
    except AssertionError as error:
        text = " ".join(str(error).split())
        if not text.startswith("[Chex]"):
            raise
        shape = scene.stack(term.student)[0].shape
        raise ConfigError(
            f"losses.{term.name}.student: {term.student.output!r} of shape {shape} does not fit "
            f"the loss: {text.partition(' failed: ')[2]}"
        ) from error


def constant(term: Term, scene: Scene, context: Mapping[str, Any], steps: int = 300) -> jax.Array:
    """The least value that a term takes where the student's output is the same vector everywhere.

    min over c [P] of the term with every sample, view and place predicted as c: the error of a
    predictor that sees nothing. Found by Adam from zero, the rate falling from 0.1, so that it is a
    bound from above.
    """
    ref = term.student
    stacks = scene.outputs[ref.who, ref.output]

    def error(c: jax.Array) -> jax.Array:
        same = {group: jnp.broadcast_to(c, x.shape) for group, x in stacks.items()}
        blind = scene._replace(outputs={**scene.outputs, (ref.who, ref.output): same})
        return value_of(term, blind, context)

    tx = optax.adam(optax.cosine_decay_schedule(0.1, steps))
    start = jnp.zeros(next(iter(stacks.values())).shape[-1])

    def descend(_: jax.Array, state: Any) -> Any:
        c, moments, least = state
        now, slope = jax.value_and_grad(error)(c)
        updates, moments = tx.update(slope, moments)
        return optax.apply_updates(c, updates), moments, jnp.minimum(least, now)

    state = start, tx.init(start), jnp.asarray(jnp.inf)
    return jax.lax.fori_loop(0, steps, descend, state)[2]


def value_of(term: Term, scene: Scene, context: Mapping[str, Any]) -> jax.Array:
    """A term by itself, without its weight."""
    student, student_ids = scene.stack(term.student)
    global_ids = scene.ids.get("global", student_ids)
    offered = {
        **context,
        "key": fold_name(scene.key, term.name),
        "step": scene.step,
        "num_global": len(set(student_ids) & set(global_ids)),
    }
    # A parameter that an output fills, such as the key of a query, is not the one of the step.
    parameters = list(inspect.signature(term.fn).parameters)[2 if term.teacher else 1 :]
    if "directions" in parameters:
        offered["directions"] = losses.random_directions(
            offered["key"], student.shape[-1], term.num_slices
        )
    kwargs = {k: v for k, v in offered.items() if k in parameters}
    kwargs |= {k: arguments.resolve(v, scene, term.name, k) for k, v in term.arguments.items()}
    by_view = {k: kwargs.pop(k)[: len(student)] for k in term.of_views()}
    if term.pairs == "single":
        return losses.over_views(term.fn)(student, by_view=by_view, **kwargs)
    inputs = [student]
    target_ids: tuple[int, ...] = ()
    if term.teacher:
        target, target_ids = scene.stack(term.teacher)
        if term.target:
            target = arguments.resolve(term.target, scene, term.name, "target")
        inputs.append(target)
    if term.pairs in PAIRINGS:
        meet = losses.over_pairs(term.fn, term.pairs)
        return meet(*inputs, student_ids, target_ids, by_view=by_view, **kwargs)
    if term.pairs == "samples":
        inputs = [jnp.moveaxis(x, 0, 1) for x in inputs]
        by_view = {k: jnp.moveaxis(x, 0, 1) for k, x in by_view.items()}
    return term.fn(*inputs, **kwargs, **by_view)
