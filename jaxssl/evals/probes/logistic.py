"""Multinomial logistic regression by full-batch L-BFGS: the solver of the linear evaluators."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxssl.evals.features import DeviceFeatures


class Linear(NamedTuple):
    """A linear classifier: logits = x @ weight + bias, weight [D, K], bias [K]."""

    weight: jax.Array
    bias: jax.Array

    def logits(self, x: jax.Array) -> jax.Array:
        """[N, D] -> [N, K], in float32 on every accelerator."""
        return jnp.matmul(x, self.weight, precision=jax.lax.Precision.HIGHEST) + self.bias


def fit(
    x: jax.Array,
    y: jax.Array,
    weight: jax.Array,
    *,
    num_classes: int,
    c: jax.Array | float,
    max_iterations: int,
    tolerance: float = 1e-4,
) -> Linear:
    """The classifier that minimises the penalised cross-entropy, from zero.

        sum_n weight_n CE(y_n, softmax(x_n W + b)) + 1 / (2 c) ||W||^2      (b unpenalised)

    divided by sum(weight), so that `tolerance` (on the largest gradient entry) means the same for
    every N. The problem is strictly convex in W: the answer does not depend on the path. Liu,
    Nocedal (1989), On the limited memory BFGS method for large scale optimization.

    Args:
      x: [N, D], standardised.
      y: int [N].
      weight: [N], 0 leaves a row out.
      num_classes: K.
      c: inverse strength of the penalty, as in scikit-learn.
      max_iterations: of L-BFGS.
      tolerance: stop when no entry of the gradient is larger.
    """
    total = weight.sum()

    def objective(model: Linear) -> jax.Array:
        loss = optax.losses.softmax_cross_entropy_with_integer_labels(model.logits(x), y)
        return ((weight * loss).sum() + (model.weight**2).sum() / (2 * c)) / total

    solver = optax.lbfgs(memory_size=10)
    value_and_grad = optax.value_and_grad_from_state(objective)
    start = Linear(jnp.zeros((x.shape[1], num_classes)), jnp.zeros(num_classes))

    def unfinished(carry: tuple) -> jax.Array:
        _, _, iteration, steepest = carry
        return (iteration < max_iterations) & (steepest > tolerance)

    def improve(carry: tuple) -> tuple:
        model, state, iteration, _ = carry
        value, grad = value_and_grad(model, state=state)
        updates, state = solver.update(
            grad, state, model, value=value, grad=grad, value_fn=objective
        )
        model = optax.apply_updates(model, updates)
        # The line search has already evaluated the gradient at the point that it accepts.
        steepest = optax.tree.norm(optax.tree.get(state, "grad"), ord=jnp.inf)
        return model, state, iteration + 1, steepest

    carry = (start, solver.init(start), jnp.int32(0), jnp.float32(jnp.inf))
    return jax.lax.while_loop(unfinished, improve, carry)[0]


@functools.partial(jax.jit, static_argnames=("num_classes", "max_iterations"))
def correct(
    train: DeviceFeatures,
    test: DeviceFeatures,
    c: jax.Array,
    *,
    num_classes: int,
    max_iterations: int,
) -> jax.Array:
    """How many test samples the classifier of the train bank gets right; arguments as of `fit`."""
    model = fit(*train, num_classes=num_classes, c=c, max_iterations=max_iterations)
    right = jnp.argmax(model.logits(test.x), axis=-1) == test.y
    return jnp.sum(test.weight * right)
