"""A module of ours beside flax's own, with the same parameters."""

import jax
import numpy as np


def check_value_and_gradients(own, plain, variables, x, atol=2e-5):
    """Both give the same map, and the same gradients of a weighted sum of it."""
    weight = jax.random.normal(jax.random.key(2), plain.apply(variables, x).shape)

    def value_and_grads(module):
        loss = lambda v, x: (weight * module.apply(v, x)).sum()
        return module.apply(variables, x), jax.grad(loss, argnums=(0, 1))(variables, x)

    found, wanted = value_and_grads(own), value_and_grads(plain)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, atol), found, wanted)


def check_half_precision(own, plain, x):
    """Both, made for bfloat16, give bfloat16, and nearly the same."""
    variables = plain.init(jax.random.key(1), x)
    found, wanted = own.apply(variables, x), plain.apply(variables, x)
    assert found.dtype == wanted.dtype == jax.numpy.bfloat16
    np.testing.assert_allclose(found.astype(float), wanted.astype(float), atol=0.03)
