"""The minimum spanning tree against SciPy's, its known lengths and where its gradient goes."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform

from jaxssl import losses


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


regularizer = jax.jit(losses.tree_length_regularizer)


def length(z):
    return -float(regularizer(jnp.asarray(z, jnp.float32))) * len(z)


@pytest.mark.parametrize("samples, width", [(2, 3), (64, 16)])
def test_the_edges_are_scipys(samples, width):
    z = normal(samples, samples, width)
    tree = minimum_spanning_tree(squareform(pdist(z.astype(np.float64)))).tocoo()
    expected = {frozenset(map(int, edge)) for edge in zip(tree.row, tree.col)}
    edges = np.asarray(jax.jit(losses.minimum_spanning_tree)(z))
    assert {frozenset(map(int, edge)) for edge in edges} == expected
    np.testing.assert_allclose(length(z), tree.data.sum(), rtol=1e-5)
    # Each edge leads from the tree to a new sample.
    inside = {0}
    for old, new in edges:
        assert old in inside and new not in inside
        inside.add(int(new))


def polygon(n):
    angles = 2 * np.pi * np.arange(n) / n
    return np.stack([np.cos(angles), np.sin(angles)], 1)


@pytest.mark.parametrize(
    "z, expected",
    [
        (polygon(3), 2 * 3**0.5),
        (polygon(4), 3 * 2**0.5),
        ([[0.0], [1.0], [3.0]], 3.0),
        (np.ones((5, 2)), 0.0),
    ],
)
def test_known_lengths(z, expected):
    np.testing.assert_allclose(length(z), expected, rtol=1e-6)


def test_length_scales_and_sees_no_rotation_shift_order_or_copy():
    z = normal(0, 16, 4)
    rotation = np.linalg.qr(normal(1, 4, 4))[0]
    expected = length(z)
    order = np.random.default_rng(2).permutation(16)
    for other, factor in [
        (3 * z, 3),
        (z @ rotation + 2, 1),
        (z[order], 1),
        (np.concatenate([z, z]), 1),
        (np.concatenate([z, z], 1), 2**0.5),
    ]:
        np.testing.assert_allclose(length(other), factor * expected, rtol=1e-4)


def test_gradient_pushes_a_leaf_away_and_moves_no_centre():
    grad = jax.jit(jax.grad(losses.tree_length_regularizer))
    np.testing.assert_allclose(grad(jnp.array([[0.0], [1.0], [3.0]])) * 3, [[1], [0], [-1]])
    np.testing.assert_allclose(grad(jnp.array(normal(0, 16, 4))).sum(0), 0, atol=1e-6)


def test_points_that_coincide_have_a_zero_gradient():
    both = lambda z: losses.tree_length_regularizer(z + 1) + losses.soft_sphere(z)
    assert not np.any(jax.jit(jax.grad(both))(jnp.zeros((4, 3))))


def test_soft_sphere():
    z = jnp.array(3 * polygon(5), jnp.float32)
    np.testing.assert_allclose(losses.soft_sphere(z), 4, rtol=1e-5)
    np.testing.assert_allclose(losses.soft_sphere(z / 3), 0, atol=1e-10)


def test_eight_devices_are_one():
    both = lambda z: losses.tree_length_regularizer(z) + losses.soft_sphere(z)
    golden.check_devices(both, [normal(0, 32, 4)], [0])


def test_memory_is_linear_in_the_samples():
    z = jax.ShapeDtypeStruct((1024, 64), jnp.float32)
    fn = jax.jit(jax.grad(losses.tree_length_regularizer))
    used = fn.lower(z).compile().memory_analysis().temp_size_in_bytes
    assert used < 16 * 1024 * 64 * 4


def test_a_curve_spreads_over_the_sphere():
    t = np.linspace(0, 1, 64)[:, None]
    start = np.concatenate([t, t**2, 0 * t], 1) + 0.01 * normal(0, 64, 3)
    loss = lambda z: losses.tree_length_regularizer(z) + losses.soft_sphere(z)

    @jax.jit
    def descend(z):
        step = lambda i, z: z - 3.2 * (1 - i / 400) * jax.grad(loss)(z)
        return jax.lax.fori_loop(0, 400, step, z)

    def spread(z):
        """Length of the mean direction, and the least share of an axis, 1/3 on a whole sphere."""
        u = np.asarray(z / np.linalg.norm(z, axis=1, keepdims=True))
        return np.linalg.norm(u.mean(0)), np.linalg.eigvalsh(u.T @ u / len(u))[0]

    mean, share = spread(start)
    assert mean > 0.9 and share < 0.05
    mean, share = spread(np.asarray(descend(jnp.array(start, jnp.float32))))
    assert mean < 0.2 and share > 0.25
