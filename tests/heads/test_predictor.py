"""The predictor: its blocks, its noisy positions, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import heads
from jaxssl.config.errors import ConfigError
from jaxssl.encoders import positions

FIELDS = dict(name="predictor", target_width=5, grid=(2, 4), width=8, depth=1, heads=2)
RNG = np.random.default_rng(0)
X = np.float32(RNG.normal(size=(4, 3, 6)))
WHOLE = np.float32(RNG.normal(size=(4, 8, 6)))
ORDERS = np.stack([RNG.permutation(8) for _ in range(4)]).astype(np.int32)
TOKENS, TARGETS = ORDERS[:, :3], ORDERS[:, 2:].reshape(4, 3, 2)
KEYS = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(3), 4)))


def make(dtype=jnp.float32, **fields):
    head = heads.build(FIELDS | fields, dtype=dtype)
    shapes = jax.eval_shape(lambda key: head.init(key, WHOLE, train=False), jax.random.key(0))
    rng = np.random.default_rng(1)
    return head, jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape)), shapes)


@functools.partial(jax.jit, static_argnums=0, static_argnames="train")
def predict(head, variables, x, tokens=None, targets=None, key=None, train=True):
    return head.apply(variables, x, train=train, tokens=tokens, targets=targets, key=key)


@functools.partial(jax.jit, static_argnums=0, static_argnames="train")
def inputs(head, variables, x, tokens, targets, key=None, train=True):
    return head.apply(
        variables, x, train=train, tokens=tokens, targets=targets, key=key, method="inputs"
    )


@pytest.mark.smoke
def test_each_block_is_a_pass_of_its_own():
    head, variables = make()
    got = predict(head, variables, X, TOKENS, TARGETS)
    assert got.shape == (4, 3, 2, 5)

    def one_pass(variables):
        bound = head.bind(variables)
        context, asked = bound.inputs(X, train=True, tokens=TOKENS, targets=TARGETS, key=None)
        both = jnp.concatenate([context, asked[:, 1]], axis=1)
        last = variables["params"]["prediction"]
        y = bound.norm(bound.transformer(both)[0])[:, 3:]
        return y @ last["kernel"] + last["bias"]

    alone = jax.jit(one_pass)(variables)
    np.testing.assert_allclose(got[:, 1], alone, rtol=1e-3, atol=1e-4)


def test_targets_are_as_wide_as_the_context_unless_told():
    head, variables = make(target_width=None)
    assert predict(head, variables, X, TOKENS, TARGETS).shape == (4, 3, 2, X.shape[-1])


def test_permuting_the_blocks_permutes_the_predictions():
    head, variables = make()
    got = predict(head, variables, X, TOKENS, TARGETS)
    moved = predict(head, variables, X, TOKENS, TARGETS[:, [2, 0, 1]])
    np.testing.assert_allclose(moved, got[:, [2, 0, 1]], rtol=1e-4, atol=1e-4)
    assert np.abs(got[:, 0] - got[:, 1]).max() > 1e-2


def test_what_enters_is_content_plus_position():
    head, variables = make()
    context, asked = inputs(head, variables, X, TOKENS, TARGETS)
    params, table = variables["params"], positions.sincos2d(8, (2, 4), (2, 4))
    embedded = X @ params["embedding"]["kernel"] + params["embedding"]["bias"]
    np.testing.assert_allclose(context, embedded + table[TOKENS], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(asked, params["mask_token"] + table[TARGETS], rtol=1e-5, atol=1e-6)


def test_without_noise_it_is_the_plain_predictor_whose_mask_token_is_the_bias():
    noisy, variables = make(noise=0.25)
    assert "mask_token" not in variables["params"]
    params = variables["params"]
    plain = heads.build(FIELDS, dtype=jnp.float32)
    same = {"params": params | {"mask_token": params["embedding"]["bias"]}}
    # Evaluation draws none, even where the block holds a key.
    got = predict(noisy, variables, X, TOKENS, TARGETS, KEYS, train=False)
    np.testing.assert_array_equal(got, predict(plain, same, X, TOKENS, TARGETS))


@pytest.mark.parametrize("tied", [True, False])
def test_noise_has_the_mean_and_the_covariance_of_its_equation(tied):
    # noise is a standard deviation: a variance of .25 would make this 4 times larger.
    width, count = 8, 20_000
    head, variables = make(noise=0.25, tied=tied)
    kernel = np.zeros((2, width), np.float32)
    kernel[:, :2] = [[1, 1], [0, 1]]
    name = "embedding" if tied else "noise_embedding"
    bias = np.float32(RNG.normal(size=width))
    params = variables["params"] | {"embedding": {"kernel": kernel * 3, "bias": bias}}
    params[name] = params.get(name, {}) | {"kernel": kernel}
    keys = jax.random.key_data(jax.random.split(jax.random.key(0), 2))
    x, tokens = np.ones((2, 1, 2), np.float32), np.zeros((2, 1), int)
    targets = np.zeros((2, 5, count), int)
    _, asked = inputs(head, {"params": params}, x, tokens, targets, keys)
    offset = np.asarray(asked) - positions.sincos2d(width, (2, 4), (2, 4))[0] - bias
    sample = offset.reshape(-1, width)
    np.testing.assert_allclose(sample.mean(0), 0, atol=5e-3)
    expected = np.zeros((width, width))
    expected[:2, :2] = [[0.0625, 0.0625], [0.0625, 0.125]]
    np.testing.assert_allclose(np.cov(sample.T), expected, atol=2e-3)


def test_noise_is_fresh_per_token_block_and_key_and_leaves_the_context_alone():
    head, variables = make(noise=0.25)
    same_place = np.zeros((4, 3, 2), int)
    context, asked = inputs(head, variables, X, TOKENS, same_place, KEYS)
    rows = np.asarray(asked).reshape(-1, 8)
    assert len(np.unique(rows, axis=0)) == len(rows)
    again = inputs(head, variables, X, TOKENS, same_place, KEYS)[1]
    np.testing.assert_array_equal(again, asked)
    quiet, _ = inputs(head, variables, X, TOKENS, same_place, train=False)
    np.testing.assert_array_equal(context, quiet)
    # A sample's noise hangs on its own key alone.
    alone = inputs(head, variables, X[:1], TOKENS[:1], same_place[:1], KEYS[:1])[1]
    np.testing.assert_allclose(alone, asked[:1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_noise_trains_the_matrix_that_it_passes(tied):
    head, variables = make(noise=0.25, tied=tied)

    def spread(params, seed):
        key = jax.random.key_data(jax.random.split(jax.random.key(seed), 4))
        asked = head.apply(
            {"params": params},
            X,
            train=True,
            tokens=TOKENS,
            targets=TARGETS,
            key=key,
            method="inputs",
        )[1]
        return jnp.square(asked).sum()

    grads = jax.jit(jax.grad(spread))(variables["params"], 0)
    name = "embedding" if tied else "noise_embedding"
    assert np.abs(grads[name]["kernel"]).max() > 1e-3
    # A free matrix takes the noise off the embedding of the context.
    assert bool(np.any(grads["embedding"]["kernel"])) == tied
    assert np.abs(grads["embedding"]["bias"]).max() > 1e-3


@pytest.mark.parametrize("fields", [{}, {"noise": 0.1}, {"noise": 0.1, "tied": False}])
def test_parameters_do_not_depend_on_the_masks(fields):
    head = heads.build(FIELDS | fields, dtype=jnp.float32)
    plain = lambda key: head.init_with_output(key, WHOLE, train=False)
    out, bare = jax.eval_shape(plain, jax.random.key(0))
    assert out.shape == (4, 1, 8, 5)
    full = lambda key: head.init(key, X, train=True, tokens=TOKENS, targets=TARGETS, key=KEYS)
    assert jax.tree.map(jnp.shape, bare) == jax.tree.map(
        jnp.shape, jax.eval_shape(full, jax.random.key(0))
    )


def test_bfloat16_output_and_three_axes():
    head, variables = make(jnp.bfloat16, noise=0.25, grid=(2, 2, 2))
    assert predict(head, variables, X, TOKENS, TARGETS, KEYS).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("fields", "call", "message"),
    [
        (dict(noise=0.2), dict(targets=TARGETS), "found noise without `key`"),
        (dict(), dict(targets=TARGETS[:, 0]), r"found targets of shape \(4, 2\), expected \[4"),
        (dict(), dict(tokens=None), "without their indices"),
    ],
)
def test_what_does_not_fit_is_refused(fields, call, message):
    head, variables = make(**fields)
    with pytest.raises(ConfigError, match=message):
        predict(head, variables, X, **(dict(tokens=TOKENS) | call))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(noise=-0.1), "student.predictor.noise: found -0.1"),
        (dict(target_width=0), "student.predictor.target_width: found"),
        (dict(heads=3), "student.predictor.heads: found 3, expected a divisor of width = 8"),
        (dict(width=10), "student.predictor.width: found 10, expected a multiple of 4"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        heads.build(FIELDS | fields, dtype=jnp.float32, field="student.predictor")
