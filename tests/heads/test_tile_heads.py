"""Heads that see all tiles of an image: the set of permutations, jigsaw, relative location."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import heads
from jaxssl.config.errors import ConfigError
from jaxssl.heads.jigsaw import permutation_set

RNG = np.random.default_rng(0)
TILES = np.float32(RNG.normal(size=(5, 4, 6)))
NINE = np.float32(RNG.normal(size=(5, 9, 6)))
JIGSAW = dict(name="jigsaw", tiles=4, permutations=6, width=8, norm="none")


def make(config, x, dtype=jnp.float32):
    head = heads.build(config, dtype=dtype)
    shapes = jax.eval_shape(lambda key: head.init(key, x, train=False), jax.random.key(0))
    rng = np.random.default_rng(1)
    return head, jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape)), shapes)


@functools.partial(jax.jit, static_argnums=0)
def evaluate(head, variables, x, **fields):
    return head.apply(variables, x, train=False, **fields)


def hamming(orders):
    return np.array([(a != b).sum() for a, b in itertools.combinations(orders, 2)])


@pytest.mark.smoke
def test_permutations_are_distinct_and_far_apart():
    orders = permutation_set(5, 30)
    assert orders.shape == (30, 5)
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(5), (30, 1)))
    assert len(np.unique(orders, axis=0)) == 30
    np.testing.assert_array_equal(orders[0], np.arange(5))
    every = np.array(list(itertools.permutations(range(5))))
    picks = [RNG.choice(len(every), 30, replace=False) for _ in range(20)]
    assert hamming(orders).mean() >= max(hamming(every[pick]).mean() for pick in picks)


@pytest.mark.parametrize("tiles", [4, 9])
def test_the_first_permutations_differ_in_every_place(tiles):
    assert (hamming(permutation_set(tiles, tiles)) == tiles).all()


def test_the_set_is_the_same_every_time_and_another_by_seed():
    permutation_set.cache_clear()
    first = permutation_set(5, 12)
    permutation_set.cache_clear()
    np.testing.assert_array_equal(first, permutation_set(5, 12))
    np.testing.assert_array_equal(first[:7], permutation_set(5, 7))
    assert (first != permutation_set(5, 12, 1)).any()


def test_all_permutations_can_be_asked_for():
    assert len(np.unique(permutation_set(4, 24), axis=0)) == math.factorial(4)


def test_order_puts_the_tiles_in_their_permuted_places():
    head, variables = make(JIGSAW, TILES)
    order = np.array([5, 0, 3, 1, 3])
    got = evaluate(head, variables, TILES, order=order)
    assert got.shape == (5, 6)
    moved = np.stack([x[p] for x, p in zip(TILES, permutation_set(4, 6)[order])])
    np.testing.assert_allclose(got, evaluate(head, variables, moved), rtol=1e-4, atol=1e-4)
    identity = evaluate(head, variables, TILES, order=np.zeros(5, int))
    np.testing.assert_allclose(identity, evaluate(head, variables, TILES), rtol=1e-5, atol=1e-5)
    assert np.abs(got[2:] - identity[2:]).max() > 1e-2


def test_tiles_share_their_layer_and_keep_their_places():
    head, variables = make(JIGSAW, TILES)
    params = variables["params"]
    tile, last = params["tile"]["linear0"], params["classify"]["linear0"]
    hidden = np.maximum(TILES @ tile["kernel"] + tile["bias"], 0).reshape(5, -1)
    expected = hidden @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(evaluate(head, variables, TILES), expected, rtol=1e-4, atol=1e-4)


def test_chance_is_the_logarithm_of_the_number_of_permutations():
    for count, chance in [(100, 4.60517), (1, 0.0)]:
        head, variables = make(JIGSAW | dict(tiles=5, permutations=count), NINE[:, :5])
        still = jax.tree.map(np.zeros_like, variables)
        logits = evaluate(head, still, NINE[:, :5], order=np.zeros(5, int))
        np.testing.assert_allclose(-jax.nn.log_softmax(logits), chance, atol=1e-5)


def test_batch_norm_of_the_tiles_is_over_batch_and_tiles():
    head, variables = make(JIGSAW | dict(norm="batch"), TILES)
    assert "bias" not in variables["params"]["tile"]["linear0"]
    stats = variables["batch_stats"]["tile"]["norm0"]
    stats |= {"mean": np.zeros(8, np.float32), "var": np.ones(8, np.float32)}
    apply = lambda v, x: head.apply(v, x, train=True, mutable=["batch_stats"])
    _, new = jax.jit(apply)(variables, TILES)
    means = (TILES @ variables["params"]["tile"]["linear0"]["kernel"]).mean((0, 1))
    got = new["batch_stats"]["tile"]["norm0"]["mean"]
    np.testing.assert_allclose(got, 0.1 * means, rtol=1e-3, atol=1e-5)


RELATIVE = dict(name="relative", hidden=(8,), norm="none")


def test_each_neighbour_is_compared_with_the_centre_alone():
    head, variables = make(RELATIVE, NINE)
    got = evaluate(head, variables, NINE)
    assert got.shape == (5, 8, 8)
    first, last = (variables["params"]["classify"][f"linear{i}"] for i in range(2))
    for row, tile in enumerate([0, 1, 2, 3, 5, 6, 7, 8]):
        pair = np.concatenate([NINE[:, 4], NINE[:, tile]], axis=-1)
        hidden = np.maximum(pair @ first["kernel"] + first["bias"], 0)
        expected = hidden @ last["kernel"] + last["bias"]
        np.testing.assert_allclose(got[:, row], expected, rtol=1e-3, atol=1e-4)


def test_transposing_the_image_transposes_the_neighbours():
    head, variables = make(RELATIVE, NINE)
    transposed = NINE.reshape(5, 3, 3, 6).transpose(0, 2, 1, 3).reshape(5, 9, 6)
    got = evaluate(head, variables, transposed)
    # Reading order around the centre: 0 1 2 / 3 . 4 / 5 6 7.
    swapped = [0, 3, 5, 1, 6, 2, 4, 7]
    np.testing.assert_allclose(
        got, evaluate(head, variables, NINE)[:, swapped], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(("config", "x"), [(JIGSAW, TILES), (RELATIVE, NINE)])
def test_all_views_of_a_sample_come_together_in_bfloat16_too(config, x):
    head, variables = make(config, x, jnp.bfloat16)
    assert head.joins_views
    assert evaluate(head, variables, x).dtype == jnp.bfloat16
    with pytest.raises(ConfigError, match=r"found views \(5, 3, 6\), expected \[B, "):
        head.apply(variables, x[:, :3], train=False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(tiles=10), "student.puzzle.tiles: found 10, expected 2 to 9"),
        (dict(permutations=25), "student.puzzle.permutations: found 25, expected 1 to 24"),
        (dict(width=0), "student.puzzle.width: found"),
        (dict(norm="bach"), "student.puzzle.norm: .*'batch'"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        heads.build(JIGSAW | fields, dtype=jnp.float32, field="student.puzzle")
