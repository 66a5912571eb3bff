"""What terms that follow a teacher report of it, beside their values.

Of every term whose target is an output [V, B, P] of a named teacher, as wide as the student's:

  teacher/<term>/cosine    how alike the outputs of student and teacher are, of the same view
  teacher/<term>/entropy   nats of the teacher's distribution over prototypes, a sample's mean
  teacher/<term>/kl        nats from it to the student's distribution, of the same view
  teacher/<term>/used      share of the prototypes in use

The last three are of losses that compare softmaxes: their second argument is `teacher`, the scores,
and they have a `teacher_temperature`, a `student_temperature` and perhaps a `center`. Codes that a
loss balances over the batch are taken before they are balanced. No number has a threshold or a
choice of the largest in it, which rounding, different between devices, could turn over.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxssl.losses.vectors import unit
from jaxssl.methods.composed import arguments
from jaxssl.methods.composed.arguments import INPUT, Scene
from jaxssl.methods.composed.terms import Term

SOFTMAX = ("teacher_temperature", "student_temperature")


def of_teachers(terms: Sequence[Term], scene: Scene) -> dict[str, jax.Array]:
    """The metrics of all terms that follow a teacher, without gradient; {} where none does.

    Args:
      terms: from `jaxssl.methods.composed.terms.parse`.
      scene: of the step.
    """
    found: dict[str, jax.Array] = {}
    for term in terms:
        if term.teacher is None or term.teacher.who in ("", INPUT):
            continue
        student, student_ids = scene.stack(term.student)
        teacher, teacher_ids = scene.stack(term.teacher)
        if student.ndim != 3 or student.shape[1:] != teacher.shape[1:]:
            continue
        student, teacher = jax.lax.stop_gradient((student, teacher))
        same = [(student_ids.index(i), v) for v, i in enumerate(teacher_ids) if i in student_ids]
        values = {"cosine": cosine(student, teacher, same)} if same else {}
        if _compares_softmaxes(term):
            center = _argument(term, "center", scene, 0.0)
            teacher_temperature, student_temperature = (
                _argument(term, name, scene) for name in SOFTMAX
            )
            log_p = _log_softmax(teacher - center, teacher_temperature)
            values |= {"entropy": entropy(log_p), "used": used(log_p)}
            if same:
                log_q = _log_softmax(student, student_temperature)
                values["kl"] = divergence(log_p, log_q, same)
        found |= {f"teacher/{term.name}/{name}": value for name, value in values.items()}
    return found


def cosine(student: jax.Array, teacher: jax.Array, pairs: Sequence[tuple[int, int]]) -> jax.Array:
    """mean_{(u, v), n} cos(s[u, n], t[v, n]) over pairs of views, -1 ... 1.

    Args:
      student: s [V, B, P].
      teacher: t [V', B, P].
      pairs: places of a student's view and of a teacher's.

    >>> round(float(cosine(jnp.ones((2, 1, 2)), jnp.eye(2)[None, :1], [(1, 0)])), 4)
    0.7071
    """
    each = [(unit(student[u]) * unit(teacher[v])).sum(-1).mean() for u, v in pairs]
    return jnp.stack(each).mean()


def entropy(log_p: jax.Array) -> jax.Array:
    """mean_{v, n} -sum_k p log p of log p [V, B, K]: 0 of one certain prototype ... log K.

    >>> round(float(entropy(jnp.log(jnp.full((1, 3, 4), 0.25)))), 4)  # log 4
    1.3863
    """
    return -(jnp.exp(log_p) * _finite(log_p)).sum(-1).mean()


def divergence(log_p: jax.Array, log_q: jax.Array, pairs: Sequence[tuple[int, int]]) -> jax.Array:
    """mean_{(u, v), n} sum_k p[v] (log p[v] - log q[u]), Kullback-Leibler, at least 0.

    Args:
      log_p: [V', B, K], of the teacher.
      log_q: [V, B, K], of the student.
      pairs: places of a student's view and of a teacher's.

    >>> p = jax.nn.log_softmax(jnp.arange(4.0))[None, None]
    >>> float(divergence(p, p, [(0, 0)]))
    0.0
    """
    each = [
        (jnp.exp(log_p[v]) * (_finite(log_p[v]) - _finite(log_q[u]))).sum(-1).mean()
        for u, v in pairs
    ]
    return jnp.stack(each).mean()


def used(log_p: jax.Array) -> jax.Array:
    """exp(H(mean_{v, n} p)) / K of log p [V, B, K]: the share of the K prototypes in use.

    1 where the batch uses all alike, 1 / K where all of it agrees on one. Samples that are each
    certain of another prototype and samples that are each uncertain among all give the same: see
    the entropy beside it. A batch of fewer views than prototypes cannot use all with certainty.

    >>> round(float(used(jnp.log(jnp.full((1, 3, 4), 0.25)))), 4)
    1.0
    """
    p = jnp.exp(log_p).mean((0, 1))
    return jnp.exp(-(p * _finite(jnp.log(p))).sum()) / p.shape[-1]


def _compares_softmaxes(term: Term) -> bool:
    parameters = list(inspect.signature(term.fn).parameters)
    return parameters[1:2] == ["teacher"] and set(SOFTMAX) <= set(parameters)


def _argument(term: Term, name: str, scene: Scene, absent: Any = None) -> Any:
    """The value that a term's loss is given for an argument, or else its default."""
    if name in term.arguments:
        value = arguments.resolve(term.arguments[name], scene, term.name, name)
        return jax.lax.stop_gradient(value)
    parameter = inspect.signature(term.fn).parameters.get(name)
    return absent if parameter is None else parameter.default


def _log_softmax(scores: jax.Array, temperature: Any) -> jax.Array:
    return jax.nn.log_softmax(scores.astype(jnp.float32) / temperature)


def _finite(log_p: jax.Array) -> jax.Array:
    """A logarithm whose product with its own zero is zero."""
    return jnp.maximum(log_p, jnp.finfo(jnp.float32).min)
