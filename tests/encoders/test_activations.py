"""Activations are the exact functions, and keep little for their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jaxssl.encoders.activations import gelu, swiglu

X = np.linspace(-12, 12, 4001)


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 2e-6), (jnp.bfloat16, 0.02)])
def test_gelu_and_its_gradient(dtype, tolerance):
    x = jnp.asarray(X, dtype)
    at = np.asarray(x, np.float64)
    share = scipy.special.erfc(-at / 2**0.5) / 2
    density = np.exp(-(at**2) / 2) / (2 * np.pi) ** 0.5
    y, grad = gelu(x), jax.vmap(jax.grad(gelu))(x)
    assert y.dtype == grad.dtype == dtype
    # Relative to the largest of a kind: bfloat16 holds three digits.
    for found, wanted in ((y, at * share), (grad, share + at * density)):
        error = np.abs(np.asarray(found, np.float64) - wanted)
        assert (error <= tolerance * np.maximum(1, np.abs(wanted))).all()


def test_swiglu():
    x = jax.random.normal(jax.random.key(0), (3, 8))
    a, b = np.split(np.asarray(x), 2, axis=-1)
    np.testing.assert_allclose(swiglu(x), a * scipy.special.expit(a) * b, rtol=1e-5)


@pytest.mark.parametrize("fn", [gelu, swiglu])
def test_a_bias_is_added_before(fn):
    x, bias = jax.random.normal(jax.random.key(0), (3, 8)), jnp.linspace(-1, 1, 8)
    np.testing.assert_allclose(fn(x, bias), fn(x + bias), rtol=1e-6)


@pytest.mark.parametrize("fn", [gelu, swiglu])
def test_a_gradient_keeps_the_input_alone(fn):
    x = jnp.ones((3, 8))
    kept = jax.tree.leaves(jax.vjp(fn, x)[1])
    assert sum(leaf.size for leaf in kept if hasattr(leaf, "size") and leaf.ndim) == x.size
