"""Combinators: they take losses and give losses, as optax does with gradient transformations.

A loss is a function from arrays to a scalar. One that names an argument `step` is handed the
training step by every combinator around it; the others never see it.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError, near

Loss = Callable[..., Any]

PAIRS: dict[str, Callable[[int, int], bool]] = {
    "cross": lambda u, v: u != v,
    "unordered": lambda u, v: u != v,
    "same": lambda u, v: u == v,
}


def weighted(fn: Loss, weight: float | jax.Array) -> Loss:
    """A loss times a number: w fn(...).

    >>> float(weighted(jnp.sum, 0.5)(jnp.ones(4)))
    2.0
    """

    def loss(*args: Any, step: Any = None, **kwargs: Any) -> Any:
        return weight * _call(fn, args, step, kwargs)

    return loss


def scheduled(fn: Loss, schedule: Callable[[Any], Any]) -> Loss:
    """A loss times a function of the training step: w(step) fn(...).

    Args:
      fn: the loss.
      schedule: step -> weight, as `jaxssl.config.schedules.make` and optax's schedules give.

    Returns:
      A loss that must be called with `step=`; ConfigError where it is not.

    >>> float(scheduled(jnp.sum, lambda step: step / 10)(jnp.ones(4), step=5))
    2.0
    """

    def loss(*args: Any, step: Any = None, **kwargs: Any) -> Any:
        if step is None:
            raise ConfigError("step: found none, expected the training step for a scheduled weight")
        return schedule(step) * _call(fn, args, step, kwargs)

    return loss


def over_views(fn: Loss) -> Loss:
    """The mean over views of a loss of one view: (1 / V) sum_v fn(z[v], ...).

    All views go through one batched program: a batch sharded over devices is then reduced across
    them once for all views.

    Args:
      fn: (z [...], *args, **kwargs) -> scalar.

    Returns:
      (stack [V, ...], *args, by_view={}, **kwargs) -> scalar; the arguments of `by_view`, [V, ...]
      each, are each view's own, the others are shared by the views.

    >>> float(over_views(jnp.max)(jnp.array([[1.0, 2.0], [5.0, 6.0]])))
    4.0
    """

    def loss(
        stack: jax.Array,
        *args: Any,
        step: Any = None,
        by_view: Mapping[str, jax.Array] = MappingProxyType({}),
        **kwargs: Any,
    ) -> Any:
        one = lambda view, own: _call(fn, (view, *args), step, {**kwargs, **own})
        return jax.vmap(one)(stack, dict(by_view)).mean()

    return loss


def over_pairs(fn: Loss, pairs: str) -> Loss:
    """The mean of a loss over pairs of a student's view u and a target's view v.

    (1 / |pairs|) sum_{(u, v)} fn(student[u], target[v], ...), where "cross" takes the pairs with
    u != v, "unordered" the same without the mirror image of one that it has, for symmetric losses,
    and "same" those with u == v; u and v are the ids of the views, not their places, since a
    teacher often sees only some of the views.

    Args:
      fn: (student [B, ...], target [B, ...], **kwargs) -> scalar.
      pairs: "cross", "unordered" or "same".

    Returns:
      (student [Vs, B, ...], target [Vt, B, ...], student_ids, target_ids, by_view={}, **kwargs) ->
      scalar, with the ids as static tuples of Vs and Vt integers; the arguments of `by_view`,
      [Vs, ...] each, go with the student's views.

    Raises:
      ConfigError: an unknown name, ids that do not match the stacks, or no pair at all.

    >>> gap = over_pairs(lambda s, t: jnp.abs(s - t).mean(), "cross")
    >>> views = jnp.array([[1.0], [2.0], [4.0]])
    >>> float(gap(views, views[:2], (0, 1, 2), (0, 1)))  # (0, 1), (1, 0), (2, 0), (2, 1)
    1.75
    """
    if pairs not in PAIRS:
        raise ConfigError(f"pairs: found {pairs!r}, expected a known pairing{near(pairs, PAIRS)}")
    holds = PAIRS[pairs]

    def loss(
        student: jax.Array,
        target: jax.Array,
        student_ids: Sequence[int],
        target_ids: Sequence[int],
        *,
        step: Any = None,
        by_view: Mapping[str, jax.Array] = MappingProxyType({}),
        **kwargs: Any,
    ) -> Any:
        for name, ids, stack in (
            ("student_ids", student_ids, student),
            ("target_ids", target_ids, target),
        ):
            if len(ids) != stack.shape[0]:
                raise ConfigError(
                    f"{name}: found {len(ids)} ids, expected {stack.shape[0]}, one per view"
                )
        met = [(u, v) for u in student_ids for v in target_ids if holds(u, v)]
        if pairs == "unordered":
            met = [(u, v) for u, v in met if u < v or (v, u) not in met]
        own = lambda place: {name: values[place] for name, values in by_view.items()}
        places = [(student_ids.index(u), target_ids.index(v)) for u, v in met]
        terms = [_call(fn, (student[u], target[v]), step, {**kwargs, **own(u)}) for u, v in places]
        if not terms:
            raise ConfigError(
                f"pairs: found no {pairs!r} pair between student views {tuple(student_ids)} and "
                f"target views {tuple(target_ids)}, expected at least one"
            )
        return sum(terms[1:], terms[0]) / len(terms)

    return loss


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean of the values that a mask keeps, divided once by the whole batch's weight.

    sum_i m_i x_i / sum_i m_i; 0, with zero gradient, where nothing is kept. Values with m = 0 do
    not count even where they are not finite. A mean of per-sample means is another loss.

    Args:
      values: any shape; computed in float32.
      mask: booleans or non-negative weights, of a shape that broadcasts to that of `values`.

    Returns:
      Scalar, float32.

    >>> float(masked_mean(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([True, True, False])))
    2.0
    """
    weights = jnp.broadcast_to(mask, values.shape).astype(jnp.float32)
    kept = weights > 0
    total = (jnp.where(kept, values, 0).astype(jnp.float32) * weights).sum()
    weight = weights.sum()
    return total / jnp.where(weight > 0, weight, 1.0)


def sum_of(**fns: Loss) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]]:
    """The sum of named losses of the same arguments, and each term for the report.

    Raises:
      ConfigError: no loss given.

    >>> total, terms = sum_of(a=jnp.sum, b=weighted(jnp.max, 2.0))(jnp.array([1.0, 3.0]))
    >>> float(total), float(terms["b"])
    (10.0, 6.0)
    """
    if not fns:
        raise ConfigError("sum_of: found no losses, expected at least one named loss")

    def loss(*args: Any, step: Any = None, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        terms = {name: _call(fn, args, step, kwargs) for name, fn in fns.items()}
        values = list(terms.values())
        return sum(values[1:], values[0]), terms

    return loss


def _call(fn: Loss, args: tuple[Any, ...], step: Any, kwargs: dict[str, Any]) -> Any:
    """Calls a loss, handing on the step only where its signature names it."""
    if step is not None and _names_step(fn):
        return fn(*args, step=step, **kwargs)
    return fn(*args, **kwargs)


def _names_step(fn: Loss) -> bool:
    try:
        return "step" in inspect.signature(fn).parameters
    except ValueError:  # some compiled functions have no signature
        return False
