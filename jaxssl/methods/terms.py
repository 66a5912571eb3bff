"""Loss terms of a family: a named entry of `config.losses` names a loss and its inputs.

    losses.prediction = dict(fn="byol", student="prediction", teacher="ema/projection",
                             pairs="cross", weight=1.0)

`student` and `teacher` name outputs, "projection" or "ema/projection", of all the views that the
network sees, or of some groups: "projection:global". `pairs` says how views meet:

  single  the mean over views of fn(z[v])
  all     fn(z) on the stack [V, B, D]
  cross   the mean over pairs u != v of fn(student[u], teacher[v])
  same    the mean over u = v

Every other field is an argument of the loss: a number, or a schedule. Arguments that the loss
function names `key`, `step`, `num_global` and `directions` come from the step.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxssl import losses, schedules
from jaxssl.errors import ConfigError, near
from jaxssl.naming import fold_name

PAIRS = ("single", "all", "cross", "same")
CONTEXT = ("key", "step", "num_global", "directions")
Stack = Mapping[str, jax.Array]  # group -> [B, V, ...]


class Ref(NamedTuple):
    """An output of a network: who ("" is the student), what, and of which groups (() is all)."""

    who: str
    output: str
    groups: tuple[str, ...]


class Term(NamedTuple):
    """One term of the total loss, checked and with its numbers as schedules."""

    name: str
    fn: Callable[..., jax.Array]
    student: Ref
    teacher: Ref | None
    pairs: str
    weight: Callable[[jax.Array], jax.Array]
    arguments: Mapping[str, Any]
    num_slices: int


def parse(config: Mapping[str, Any], steps: int) -> list[Term]:
    """The terms of `config.losses`, in the order of their names.

    Raises:
      ConfigError: an unknown loss, pairing or argument, or an input that is missing.
    """
    if not config:
        raise ConfigError("losses: empty; a family needs at least one term")
    return [_parse_term(name, config[name], steps) for name in sorted(config)]


def _parse_term(name: str, entry: Mapping[str, Any], steps: int) -> Term:
    field = f"losses.{name}"
    given = dict(entry)
    fn_name = given.pop("fn", None)
    known = [n for n in losses.__all__ if callable(getattr(losses, n))]
    if fn_name not in known:
        raise ConfigError(f"{field}.fn: no loss {fn_name!r}{near(str(fn_name), known)}")
    fn = getattr(losses, fn_name)
    if "student" not in given:
        raise ConfigError(f"{field}.student: missing; expected an output such as 'projection'")
    student, teacher = _ref(given.pop("student")), given.pop("teacher", "")
    pairs = given.pop("pairs", "cross" if teacher else "all")
    if pairs not in PAIRS:
        raise ConfigError(f"{field}.pairs: found {pairs!r}{near(str(pairs), PAIRS)}")
    if pairs in ("cross", "same") and not teacher:
        raise ConfigError(f"{field}.teacher: missing; pairs={pairs!r} needs one")
    weight = schedules.make(given.pop("weight", 1.0), steps, field=f"{field}.weight")
    parameters = list(inspect.signature(fn).parameters)
    num_slices = given.pop("num_slices", 0)
    if "directions" in parameters and num_slices < 1:
        raise ConfigError(f"{field}.num_slices: found {num_slices}; {fn_name} needs at least 1")
    free = [p for p in parameters[2 if teacher else 1 :] if p not in CONTEXT]
    for argument in given:
        if argument not in free:
            raise ConfigError(f"{field}.{argument}: no such argument{near(argument, free)}")
    arguments = {
        k: schedules.make(v, steps, field=f"{field}.{k}") if schedules.is_spec(v) else v
        for k, v in given.items()
    }
    target = _ref(teacher) if teacher else None
    return Term(name, fn, student, target, pairs, weight, arguments, num_slices)


def _ref(text: str) -> Ref:
    who, _, rest = text.rpartition("/")
    output, _, groups = rest.partition(":")
    return Ref("" if who == "student" else who, output, tuple(groups.split("+")) if groups else ())


def total(
    terms: list[Term],
    outputs: Mapping[tuple[str, str], Stack],
    ids: Mapping[str, tuple[int, ...]],
    key: jax.Array,
    step: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The weighted sum of the terms, and each term's own value.

    Args:
      terms: from `parse`.
      outputs: (who, output) -> {group: [B, V, ...]}.
      ids: group -> the numbers of its views, for pairing.
      key: the step's key for terms; the same on all devices.
      step: of the state, for schedules.
    """
    value, values = jnp.zeros(()), {}
    for term in terms:
        student, student_ids = _stack(outputs, ids, term.student)
        context: dict[str, Any] = {
            "key": fold_name(key, term.name),
            "step": step,
            "num_global": len(set(student_ids) & set(ids.get("global", student_ids))),
        }
        parameters = inspect.signature(term.fn).parameters
        if "directions" in parameters:
            context["directions"] = losses.random_directions(
                context["key"], student.shape[-1], term.num_slices
            )
        kwargs = {k: v for k, v in context.items() if k in parameters}
        kwargs |= {k: v(step) if callable(v) else v for k, v in term.arguments.items()}
        if term.pairs == "single":
            found = losses.over_views(term.fn)(student, **kwargs)
        elif term.teacher is None:
            found = term.fn(student, **kwargs)
        else:
            target, target_ids = _stack(outputs, ids, term.teacher)
            if term.pairs == "all":
                found = term.fn(student, target, **kwargs)
            else:
                pair = losses.over_pairs(term.fn, term.pairs)
                found = pair(student, target, student_ids, target_ids, **kwargs)
        value, values[term.name] = value + term.weight(step) * found, found
    return value, values


def _stack(
    outputs: Mapping[tuple[str, str], Stack], ids: Mapping[str, tuple[int, ...]], ref: Ref
) -> tuple[jax.Array, tuple[int, ...]]:
    """[V, B, ...] of the groups that `ref` names, and the numbers of the views."""
    found = outputs[ref.who, ref.output]
    groups = ref.groups or tuple(found)
    stack = jnp.concatenate([jnp.moveaxis(found[g], 1, 0) for g in groups])
    return stack, sum((tuple(ids[g]) for g in groups), ())
