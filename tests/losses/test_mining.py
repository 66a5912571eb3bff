"""The neighbours that are mined: which, how often, and what changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError

KEYS = jax.random.split(jax.random.key(5), 64)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_the_nearest_by_cosine_whatever_the_norms():
    pool = normal(0, 16, 8)
    order = np.random.default_rng(0).permutation(16)
    anchors = pool[order] * jnp.linspace(0.1, 9, 16)[:, None] + 0.01 * normal(1, 16, 8)
    found = losses.mine_neighbors(anchors, pool, KEYS[:16], k=1)
    np.testing.assert_array_equal(found, order)
    scaled = losses.mine_neighbors(3 * anchors, pool * normal(2, 16, 1) ** 2, KEYS[:16], k=1)
    np.testing.assert_array_equal(scaled, order)


def test_the_draw_is_uniform_over_the_k_nearest():
    angles = jnp.linspace(0, 3, 6)
    pool = jnp.stack([jnp.cos(angles), jnp.sin(angles)], 1)
    anchor = jnp.broadcast_to(pool[:1], (4000, 2))
    keys = jax.random.split(jax.random.key(1), 4000)
    for k in (3, 6):
        found = losses.mine_neighbors(anchor, pool, keys, k=k)
        counts = np.bincount(found, minlength=6)
        assert not counts[k:].any()
        expected = 4000 / k
        # Chi-square with at most 5 degrees of freedom: above 20.5 once in a thousand.
        assert ((counts[:k] - expected) ** 2 / expected).sum() < 20.5


def test_a_draw_follows_its_key_and_not_its_place():
    pool, anchors = normal(0, 32, 8), normal(1, 64, 8)
    found = losses.mine_neighbors(anchors, pool, KEYS, k=5)
    order = np.random.default_rng(0).permutation(64)
    moved = losses.mine_neighbors(anchors[order], pool, KEYS[order], k=5)
    np.testing.assert_array_equal(moved, np.asarray(found)[order])


def test_an_excluded_candidate_is_never_mined():
    pool = normal(0, 8, 4)
    found = losses.mine_neighbors(pool, pool, KEYS[:8], k=7, exclude=jnp.eye(8, dtype=bool))
    assert (np.asarray(found) != np.arange(8)).all()
    np.testing.assert_array_equal(losses.mine_neighbors(pool, pool, KEYS[:8], k=1), np.arange(8))


@pytest.mark.parametrize("k", [0, 5])
def test_more_neighbours_than_candidates_are_refused(k):
    with pytest.raises(ConfigError, match=f"k: found {k}, expected 1 to 4"):
        losses.mine_neighbors(jnp.ones((2, 3)), jnp.ones((4, 3)), KEYS[:2], k=k)
