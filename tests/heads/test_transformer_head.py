"""The transformer head: its mean, its query, its positions, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import heads
from jaxssl.config.errors import ConfigError
from jaxssl.encoders import positions

FIELDS = dict(name="transformer_head", width=8, depth=1, heads=2, grid=3)
X = np.float32(np.random.default_rng(0).normal(size=(4, 9, 8)))
QUERY = np.float32(np.random.default_rng(1).normal(size=(4, 8)))


def make(x=X, dtype=jnp.float32, **fields):
    head = heads.build(FIELDS | fields, dtype=dtype)
    variables = head.init(jax.random.key(0), x, train=False)
    # Kernels near zero would make attention a mean, whatever its inputs.
    return head, jax.tree.map(lambda leaf: 5 * leaf if leaf.ndim > 1 else leaf, variables)


def reference(head, variables, x, query):
    """Blocks, norm and mean written out, from the head's own parts."""
    bound = head.bind(variables)
    places = variables["params"]["position_embedding"]
    x = x + places
    if query is not None:
        x = np.concatenate([query[:, None], x], axis=1)
    y = np.asarray(bound.norm(bound.transformer(x)[0]))
    return y[:, -9:].sum(1) / 9


@pytest.mark.parametrize("query", [None, QUERY])
def test_the_mean_is_over_the_tokens_and_not_over_the_query(query):
    head, variables = make()
    got = head.apply(variables, X, train=False, query=query)
    np.testing.assert_allclose(got, reference(head, variables, X, query), rtol=1e-4, atol=1e-5)


def test_the_query_changes_what_is_found():
    head, variables = make()
    plain = head.apply(variables, X, train=False)
    asked = head.apply(variables, X, train=False, query=QUERY)
    assert np.abs(plain - asked).max() > 1e-2


def test_tokens_have_places_and_a_query_has_none():
    head, variables = make()
    assert variables["params"]["position_embedding"].shape == (9, 8)
    moved = head.apply(variables, X[:, ::-1], train=False)
    assert np.abs(moved - head.apply(variables, X, train=False)).max() > 1e-2


def test_maps_of_other_sizes_get_interpolated_places():
    head, variables = make()
    small = X[:, :4]
    bound = head.bind(variables)
    table = variables["params"]["position_embedding"]
    x = small + positions.interpolate(table, (3, 3), (2, 2))
    expected = bound.norm(bound.transformer(x)[0]).mean(1)
    got = head.apply(variables, small, train=False)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_the_reduced_mean_is_the_mean_of_the_reduced_map():
    wide = np.float32(np.random.default_rng(0).normal(size=(4, 9, 20)))
    head, variables = make(wide)
    reduce = lambda x: head.apply(variables, x, method="reduce")
    np.testing.assert_allclose(reduce(wide.mean(1)), reduce(wide).mean(1), rtol=1e-3, atol=1e-4)
    same, variables = make()
    assert "reduction" not in variables["params"]
    np.testing.assert_array_equal(same.apply(variables, X, method="reduce"), X)


def test_bfloat16_output_and_float32_parameters():
    head, variables = make(dtype=jnp.bfloat16)
    assert head.apply(variables, X, train=False).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("x", "query", "message"),
    [
        (X[:, :8], None, r"found tokens \(4, 8, 8\), expected a square map"),
        (X, QUERY[:, :5], r"found a query of shape \(4, 5\), expected \(4, 8\)"),
    ],
)
def test_what_does_not_fit_is_refused(x, query, message):
    head, variables = make()
    with pytest.raises(ConfigError, match=message):
        head.apply(variables, x, train=False, query=query)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(heads=3), "student.search_a.heads: found 3, expected a divisor of 8"),
        (dict(grid=(2, 2, 2)), "student.search_a.grid: found"),
        (dict(depth=0), "student.search_a.depth: found"),
        (dict(widths=3), "student.search_a.widths: .*did you mean 'width'"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        heads.build(FIELDS | fields, dtype=jnp.float32, field="student.search_a")
