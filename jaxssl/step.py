"""One training step: the operations a rule may use, and the four rules that serve every method.

The order inside a step is the same for all methods:

  1. fold the step into the root key (`ops.key`);
  2. teachers that update "before";
  3. the loss: views and masks on the device, teacher and student forward passes, the terms;
  4. gradients, then the optimizer;
  5. `extra` (batch statistics, queues, centers, ...) is swapped in;
  6. teachers that update "after"; the step counter goes up; metrics come back as arrays;
  7. where the loss or the gradient was not finite, all but the step counter is as it was before.

A rule is a short pure program over `Ops`: a loss never updates params, a teacher never sees
gradients, and `Teacher.read` is the only way a loss sees a teacher.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxssl.method import Aux, Batch, Context, Method, Ops, Optimizer, PyTree, StepRule
from jaxssl.state import State

Metrics = Mapping[str, jax.Array]


def make_step(
    method: Method, optimizers: Mapping[str, Optimizer]
) -> Callable[[State, Batch], tuple[State, Metrics]]:
    """The pure function (state, batch) -> (state, metrics) that the loop compiles."""
    ops = make_ops(method, optimizers)
    rule = method.step or gradient_step()

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        moved, metrics = rule(ops, state, batch)
        return _moved_if_finite(state, moved, metrics), metrics

    return step


def _moved_if_finite(state: State, moved: State, metrics: Metrics) -> State:
    """`moved`, or `state` at the next step where a loss or gradient is not finite."""
    totals = [metrics[name] for name in ("loss", "gradient_norm") if name in metrics]
    finite = jnp.all(jnp.isfinite(jnp.stack(totals)))
    stayed = state.replace(step=moved.step, key=moved.key)
    return jax.tree.map(
        lambda new, old: new if new is old else jnp.where(finite, new, old), moved, stayed
    )


def make_ops(method: Method, optimizers: Mapping[str, Optimizer]) -> Ops:
    """The primitives of a step rule, closed over one method and its optimizers."""

    def key(state: State, salt: int | jax.Array = 0) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(state.key, state.step), salt)

    def context(state: State, batch: Batch, k: jax.Array | None = None) -> Context:
        teachers = {
            name: jax.lax.stop_gradient(
                teacher.read(state.teachers[name], state.params, state.extra, state.step)
            )
            for name, teacher in method.teachers.items()
        }
        k = key(state) if k is None else k
        return Context(state.params, teachers, state.extra, batch, k, state.step)

    def evaluate(
        params: PyTree, state: State, batch: Batch, loss: str, k: jax.Array | None
    ) -> tuple[jax.Array, Aux]:
        return method.losses[loss](context(state, batch, k)._replace(params=params))

    def loss(
        state: State, batch: Batch, loss: str = "main", key: jax.Array | None = None
    ) -> tuple[jax.Array, Aux]:
        return evaluate(state.params, state, batch, loss, key)

    def grad(
        state: State,
        batch: Batch,
        loss: str = "main",
        on: Sequence[str] = (),
        key: jax.Array | None = None,
    ) -> tuple[PyTree, jax.Array, Aux]:
        def of_part(part: PyTree) -> tuple[jax.Array, Aux]:
            return evaluate({**state.params, **part}, state, batch, loss, key)

        (value, aux), grads = jax.value_and_grad(of_part, has_aux=True)(part_of(state.params, on))
        return grads, value, aux

    def apply(state: State, grads: PyTree, optimizer: str = "main") -> State:
        tx, on = optimizers[optimizer]
        params = part_of(state.params, on)
        updates, moments = tx.update(
            part_of(grads, on), state.optimizer[optimizer], params, step=state.step
        )
        return state.replace(
            params={**state.params, **optax.apply_updates(params, updates)},
            optimizer={**state.optimizer, optimizer: moments},
        )

    def teach(state: State, when: str) -> State:
        moved = {
            name: teacher.update(state.teachers[name], state.params, state.extra, state.step)
            for name, teacher in method.teachers.items()
            if teacher.when == when
        }
        return state.replace(teachers={**state.teachers, **moved})

    return Ops(grad, loss, apply, teach, key, context)


def part_of(tree: Mapping[str, PyTree], on: Sequence[str]) -> dict[str, PyTree]:
    """The sub-trees named by `on`; all of them where `on` is empty."""
    return {name: tree[name] for name in on or tree}


def gradient_norms(grads: Mapping[str, PyTree]) -> dict[str, jax.Array]:
    """The Euclidean norm of a gradient, and that of each network's part of it.

    "gradient_norm" is the root of the sum of squares of all "gradient_norm/<network>", the
    top-level names of the params.
    """
    parts = {f"gradient_norm/{name}": optax.tree.norm(part) for name, part in grads.items()}
    return {"gradient_norm": optax.tree.norm(grads), **parts}


# ---------------------------------------------------------------------------- the rules


def descend(
    ops: Ops,
    state: State,
    batch: Batch,
    loss: str = "main",
    optimizers: Sequence[str] = ("main",),
    on: Sequence[str] = (),
    key: jax.Array | None = None,
) -> tuple[State, Metrics]:
    """One gradient, applied by each named optimizer to its own part; no teacher, no step count."""
    grads, value, aux = ops.grad(state, batch, loss, on, key)
    for optimizer in optimizers:
        state = ops.apply(state, grads, optimizer)
    metrics = {"loss": value, **gradient_norms(grads), **aux.metrics}
    return state.replace(extra=aux.extra), metrics


def gradient_step(
    loss: str = "main", optimizers: Sequence[str] = ("main",), on: Sequence[str] = ()
) -> StepRule:
    r"""The usual step: \(\theta \leftarrow \mathrm{Opt}(\theta, \nabla L(\theta))\)."""

    def rule(ops: Ops, state: State, batch: Batch) -> tuple[State, Metrics]:
        state = ops.teach(state, "before")
        state, metrics = descend(ops, state, batch, loss, optimizers, on)
        state = ops.teach(state, "after")
        return state.replace(step=state.step + 1), metrics

    return rule


def lookahead(k: int, keep: Sequence[str] = ("teachers",)) -> StepRule:
    """`k` virtual steps that only the teachers remember, then one real step.

    Teach, k x (descend, teach), put back everything but `keep`, descend. With a teacher that
    updates "before" and k=0 this is the mean teacher; k >= 1 is Future-Self-Training (Du et al.
    2022, arXiv 2209.06993) in its deep form, with moments and batch statistics restored too.
    """

    def rule(ops: Ops, state: State, batch: Batch) -> tuple[State, Metrics]:
        start = ops.teach(state, "before")

        def virtual(moved: State, i: jax.Array) -> tuple[State, None]:
            moved, _ = descend(ops, moved, batch, key=ops.key(moved, i + 1))
            return ops.teach(moved, "before"), None

        moved, _ = jax.lax.scan(virtual, start, jnp.arange(k))
        state = start.replace(**{name: getattr(moved, name) for name in keep})
        state, metrics = descend(ops, state, batch)
        state = ops.teach(state, "after")
        return state.replace(step=state.step + 1), metrics

    return rule


def two_step(
    first: str, second: str, probe: str, feedback: Callable[[PyTree, jax.Array], PyTree]
) -> StepRule:
    """Two updates with a scalar between them (Self Meta Pseudo Labels, Ng et al. 2022).

    Descend on loss `first`; h = probe(after) - probe(before); `feedback(extra, h)` stores it;
    the gradient of loss `second`, taken where the step began, is applied after the first update.
    Losses `first` and `second` are also the names of their optimizers.
    """

    def rule(ops: Ops, state: State, batch: Batch) -> tuple[State, Metrics]:
        state = ops.teach(state, "before")
        grads, first_value, _ = ops.grad(state, batch, first)
        before, _ = ops.loss(state, batch, probe)
        moved = ops.apply(state, grads, first)
        after, _ = ops.loss(moved, batch, probe)
        change = after - before
        state = state.replace(extra=feedback(state.extra, change))
        grads, value, aux = ops.grad(state, batch, second)
        moved = ops.apply(moved, grads, second).replace(extra=aux.extra)
        moved = ops.teach(moved, "after")
        metrics = {
            "loss": value,
            first: first_value,
            "feedback": change,
            **gradient_norms(grads),
            **aux.metrics,
        }
        return moved.replace(step=state.step + 1), metrics

    return rule


class Phase(NamedTuple):
    """`length` steps of one loss, moved by one optimizer, on some networks (() is all)."""

    loss: str
    optimizer: str
    on: tuple[str, ...] = ()
    length: int = 1


def alternating(phases: Sequence[Phase]) -> StepRule:
    """The phases in turn, over and over; metrics absent from a phase are NaN in its steps.

    Every branch of the switch must return one structure, so all metric trees are shaped first.
    The metric `phase` says which one ran.
    """
    ends = tuple(accumulate(phase.length for phase in phases))
    rules = [gradient_step(p.loss, (p.optimizer,), p.on) for p in phases]

    def rule(ops: Ops, state: State, batch: Batch) -> tuple[State, Metrics]:
        shapes: dict[str, Any] = {}
        for r in rules:
            shapes |= jax.eval_shape(lambda s, b, r=r: r(ops, s, b)[1], state, batch)

        def branch(r: StepRule) -> StepRule:
            def run(state: State, batch: Batch) -> tuple[State, Metrics]:
                state, metrics = r(ops, state, batch)
                absent = {
                    name: jnp.full(shape.shape, jnp.nan, shape.dtype)
                    for name, shape in shapes.items()
                    if name not in metrics
                }
                return state, {**metrics, **absent}

            return run  # type: ignore[return-value]

        now = jnp.searchsorted(jnp.asarray(ends), state.step % ends[-1], side="right")
        state, metrics = jax.lax.switch(now, [branch(r) for r in rules], state, batch)
        return state, {**metrics, "phase": now.astype(jnp.float32)}

    return rule
