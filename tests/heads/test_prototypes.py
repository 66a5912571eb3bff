"""Prototype scores: normalisation of inputs and rows, gradients, precision, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import heads
from jaxssl.config.errors import ConfigError

X = np.float32(np.random.default_rng(0).normal(2, 3, (6, 4)))
VECTORS = np.float32(np.random.default_rng(1).normal(0, 5, (3, 4)))


def scores(vectors=VECTORS, x=X, dtype=jnp.float32, **fields):
    head = heads.build({"name": "prototypes", "count": len(vectors)} | fields, dtype=dtype)
    return head.apply({"params": {"vectors": vectors}}, x, train=True)


def rows(a):
    return a / np.linalg.norm(a, axis=-1, keepdims=True)


def test_scores_are_products_with_the_rows():
    plain = scores(normalize_input=False)
    np.testing.assert_allclose(plain, X @ VECTORS.T, rtol=1e-5)
    np.testing.assert_allclose(scores(), rows(X) @ VECTORS.T, rtol=1e-5)
    cosines = scores(weight_norm=True)
    np.testing.assert_allclose(cosines, rows(X) @ rows(VECTORS).T, rtol=1e-4, atol=1e-6)


def test_weight_norm_leaves_no_gradient_along_a_row():
    grad = jax.grad(lambda v: jnp.sin(scores(v, weight_norm=True)).sum())(VECTORS)
    np.testing.assert_allclose((grad * VECTORS).sum(-1), 0, atol=1e-5)
    assert np.abs(grad).max() > 1e-3


def test_starts_with_rows_of_about_unit_length():
    head = heads.build({"name": "prototypes", "count": 32}, dtype=jnp.float32)
    vectors = head.init(jax.random.key(0), X, train=False)["params"]["vectors"]
    assert vectors.shape == (32, 4)
    assert np.square(vectors).sum(-1).mean() == pytest.approx(1, abs=0.2)


def test_zeros_have_finite_gradients():
    both = jax.grad(lambda x, v: scores(v, x, weight_norm=True).sum(), (0, 1))
    for grad in both(np.zeros_like(X), np.zeros_like(VECTORS)):
        assert np.isfinite(grad).all()


def test_bfloat16_factors_give_float32_scores():
    half = scores(dtype=jnp.bfloat16, weight_norm=True)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, scores(weight_norm=True), atol=2e-2)
    assert not np.array_equal(half, half.astype(jnp.bfloat16))


def test_leading_axes_pass_through():
    np.testing.assert_allclose(scores(x=X.reshape(2, 3, 4)).reshape(6, 3), scores(), rtol=1e-5)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"count": 0}, r"student\.scores\.count: found"),
        ({}, r"student\.scores\.count: missing"),
        ({"count": 2, "weightnorm": True}, "did you mean 'weight_norm'"),
    ],
)
def test_errors_name_the_field(config, text):
    with pytest.raises(ConfigError, match=text):
        heads.build({"name": "prototypes"} | config, dtype=jnp.float32, field="student.scores")
