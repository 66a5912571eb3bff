"""The decoder: places of shuffled tokens, mask tokens, the class query, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxssl import heads
from jaxssl.config.errors import ConfigError
from jaxssl.heads.token_grid import spread

FIELDS = dict(name="decoder", patch_values=5, grid=(2, 4), width=8, depth=1, heads=2)
RNG = np.random.default_rng(0)
X = np.float32(RNG.normal(size=(8, 3, 6)))
WHOLE = np.float32(RNG.normal(size=(8, 8, 6)))
TOKENS = np.stack([RNG.permutation(8)[:3] for _ in range(8)]).astype(np.int32)


def make(dtype=jnp.float32, **fields):
    head = heads.build(FIELDS | fields, dtype=dtype)
    shapes = jax.eval_shape(lambda key: head.init(key, WHOLE, train=False), jax.random.key(0))
    rng = np.random.default_rng(1)
    return head, jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape)), shapes)


@functools.partial(jax.jit, static_argnums=0)
def evaluate(head, variables, x, tokens=None):
    return head.apply(variables, x, train=False, tokens=tokens)


def test_tokens_go_to_their_own_places_whatever_their_order():
    blank = np.full(6, 9, np.float32)
    got = jax.jit(spread, static_argnums=2)(X, TOKENS, 8, blank)
    expected = np.tile(blank, (8, 8, 1))
    for row, places, values in zip(expected, TOKENS, X):
        row[places] = values
    np.testing.assert_array_equal(got, expected)


def test_gradients_reach_each_kept_token_and_the_mask_token_once_per_hidden_place():
    weight = np.float32(RNG.normal(size=(8, 8, 6)))
    loss = lambda x, blank: (weight * spread(x, TOKENS, 8, blank)).sum()
    to_x, to_blank = jax.jit(jax.grad(loss, (0, 1)))(X, np.zeros(6, np.float32))
    kept = np.stack([w[places] for w, places in zip(weight, TOKENS)])
    np.testing.assert_allclose(to_x, kept, rtol=1e-6)
    np.testing.assert_allclose(to_blank, weight.sum((0, 1)) - kept.sum((0, 1)), rtol=1e-4)


@pytest.mark.smoke
def test_the_order_of_kept_tokens_changes_nothing():
    head, variables = make()
    got = evaluate(head, variables, X, TOKENS)
    assert got.shape == (8, 8, 5)
    shuffled = evaluate(head, variables, X[:, [2, 0, 1]], TOKENS[:, [2, 0, 1]])
    np.testing.assert_allclose(got, shuffled, rtol=1e-4, atol=1e-4)
    moved = evaluate(head, variables, X[:, [2, 0, 1]], TOKENS)
    assert np.abs(got - moved).max() > 1e-2


def test_all_tokens_shuffled_are_the_whole_grid():
    head, variables = make()
    order = np.stack([RNG.permutation(8) for _ in range(8)])
    shuffled = np.take_along_axis(WHOLE, order[..., None], axis=1)
    np.testing.assert_allclose(
        evaluate(head, variables, shuffled, order),
        evaluate(head, variables, WHOLE),
        rtol=1e-4,
        atol=1e-4,
    )


def test_sharded_over_the_batch_it_is_the_same():
    head, variables = make()
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    x, tokens = jax.device_put(X, rows), jax.device_put(TOKENS, rows)

    def apply(variables, x, tokens):
        out = head.apply(variables, x, train=False, tokens=tokens)
        return out, jax.grad(lambda x: jnp.sin(spread(x, tokens, 8, jnp.ones(6))).sum())(x)

    compiled = jax.jit(apply, out_shardings=rows).lower(variables, x, tokens).compile()
    # Every sample stays on its device.
    assert "all-gather" not in compiled.as_text()
    got, _ = compiled(variables, x, tokens)
    expected = evaluate(head, variables, X, TOKENS)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_a_class_query_stands_in_front_and_takes_part():
    head, variables = make(class_token=True)
    got = evaluate(head, variables, X, TOKENS)
    assert got.shape == (8, 9, 5)
    variables["params"]["class_query"] = -variables["params"]["class_query"]
    other = evaluate(head, variables, X, TOKENS)
    assert np.abs(got[:, 0] - other[:, 0]).max() > 1e-2
    assert np.abs(got[:, 1:] - other[:, 1:]).max() > 1e-3


@pytest.mark.parametrize(
    ("fields", "learned"),
    [
        (dict(), False),
        (dict(posemb="learned"), True),
        (dict(grid=(2, 2, 2)), False),
        (dict(grid=(2, 2, 2), posemb="learned"), True),
    ],
)
def test_positions_are_fixed_or_learned_on_grids_of_two_and_three_axes(fields, learned):
    head, variables = make(**fields)
    assert ("position_embedding" in variables["params"]) == learned
    constant = np.ones_like(WHOLE)
    got = evaluate(head, variables, constant)
    # Tokens of equal content differ by their places alone.
    assert np.abs(got - got[:, :1]).max() > 1e-2
    assert len(np.unique(np.round(got[0], 3), axis=0)) == 8


def test_bfloat16_output_and_float32_parameters():
    head, variables = make(jnp.bfloat16, class_token=True)
    assert evaluate(head, variables, X, TOKENS).dtype == jnp.bfloat16
    shapes = jax.eval_shape(lambda key: head.init(key, WHOLE, train=False), jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("x", "tokens", "message"),
    [
        (X, None, r"found tokens \(8, 3, 6\) without their indices, expected \[B, 8, D\]"),
        (X, TOKENS[:, :2], r"found indices of shape \(8, 2\), expected \(8, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused(x, tokens, message):
    head, variables = make()
    with pytest.raises(ConfigError, match=message):
        evaluate(head, variables, x, tokens)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(heads=3), "student.decoder.heads: found 3, expected a divisor of width = 8"),
        (dict(grid=(2, 2, 2, 2)), "student.decoder.grid: found"),
        (dict(posemb="sincos3d"), "student.decoder.posemb: found 'sincos3d', expected 'learned'"),
        (dict(width=6), "student.decoder.width: found 6, expected a multiple of 4"),
        (dict(patch_values=0), "student.decoder.patch_values: found"),
        (dict(dept=2), "student.decoder.dept: .*did you mean 'depth'"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        heads.build(FIELDS | fields, dtype=jnp.float32, field="student.decoder")
