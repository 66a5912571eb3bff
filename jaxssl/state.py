"""The whole of what a run knows between two steps, as one pytree."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.config.naming import fold_name
from jaxssl.method import Info, Method, Optimizer, PyTree


@flax.struct.dataclass
class State:
    """Step counter, params, teachers, extra, optimizer moments and the root key.

    Attributes:
      step: steps done, int32 scalar.
      params: one top-level name per network.
      teachers: teacher name -> its state.
      extra: every other array that lives across steps.
      optimizer: optimizer name -> its moments.
      key: the root key of the run; every random number is this key folded with names and steps.
    """

    step: jax.Array
    params: PyTree
    teachers: PyTree
    extra: PyTree
    optimizer: PyTree
    key: jax.Array

    if TYPE_CHECKING:

        def replace(self, **parts: PyTree) -> "State":
            """The state with some parts replaced; flax adds the method."""
            ...


def example_batch(info: Info, size: int = 2) -> dict[str, jax.Array]:
    """A batch of zeros with the shapes of the data: enough to initialise a method."""
    return {
        name: jnp.zeros((size, *field.shape), np.dtype(field.dtype))
        for name, field in info.fields.items()
    }


def make_init(
    method: Method, optimizers: Mapping[str, Optimizer], info: Info
) -> Callable[[jax.Array, Mapping[str, PyTree]], State]:
    """The pure function (key, artifacts) -> State at step 0, to be compiled with its shardings."""

    def init(key: jax.Array, artifacts: Mapping[str, PyTree]) -> State:
        params, extra = method.init(fold_name(key, "params"), example_batch(info))
        extra = jax.tree.map(strongly_typed, extra)
        teachers = {
            name: teacher.init(fold_name(key, f"teachers/{name}"), params, extra, artifacts)
            for name, teacher in method.teachers.items()
        }
        moments = {
            name: tx.init({n: params[n] for n in on or params})
            for name, (tx, on) in optimizers.items()
        }
        return State(jnp.zeros((), jnp.int32), params, teachers, extra, moments, key)

    return init


def strongly_typed(leaf: Any) -> jax.Array:
    """`leaf` with a fixed dtype: a weakly typed one would compile the step a second time."""
    array = jnp.asarray(leaf)
    return jax.lax.convert_element_type(array, array.dtype)
