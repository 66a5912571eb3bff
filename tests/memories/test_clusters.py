"""k-means inside the step: what it finds, when it runs, devices, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxssl import memories
from jaxssl.config.errors import ConfigError
from jaxssl.memories import MemoryInput, clusters
from jaxssl.method import Info

INFO = Info({}, num_samples=32, num_classes=0, steps=8, steps_per_epoch=4, global_batch=8)
KEY = jax.random.key(0)


def unit(x):
    return np.float32(x / np.linalg.norm(x, axis=-1, keepdims=True))


def blobs(seed, groups=4, each=8):
    """Unit rows around the axes of R^groups, and the axis of each."""
    labels = np.arange(groups * each) % groups
    noise = np.random.default_rng(seed).normal(0, 0.1, (len(labels), groups))
    return unit(np.eye(groups)[labels] + noise), labels


def make(**fields):
    config = {"memory": "clusters", "count": 4} | fields
    memory = memories.build(config, views=2, info=INFO, field="losses.a.clusters")
    return memory, memory.init(KEY, (2, 8, 4))


def seen(step, tables, index):
    return MemoryInput(
        jnp.asarray(tables[:, index]), {"index": jnp.asarray(index)}, KEY, jnp.int32(step)
    )


def through(memory, state, steps, tables):
    update = jax.jit(memory.update)
    for step in range(steps):
        state = update(state, seen(step, tables, np.arange(8) + step % 4 * 8))
    return state


TABLES = np.stack([blobs(0)[0], blobs(1)[0]])


def test_k_means_finds_blobs_from_any_start_that_has_one_row_of_each():
    rows, labels = blobs(0)
    best = 0
    for seed in range(4):
        key = jax.random.key(seed)
        centroids, codes = clusters.k_means(key, rows[None], jnp.ones(32), 1, 4, 10)
        np.testing.assert_allclose(np.linalg.norm(centroids, axis=-1), 1, rtol=1e-5)
        np.testing.assert_array_equal(codes[0], clusters.nearest(rows, centroids[0]))
        joint = np.zeros((4, 4))
        np.add.at(joint, (labels, codes[0]), 1)
        best = max(best, joint.max(1).sum())
    assert best == 32


def test_iterations_bring_rows_nearer_to_their_centroids():
    rows = unit(np.random.default_rng(0).normal(size=(64, 5)))

    def closeness(iterations):
        centroids, codes = clusters.k_means(KEY, rows[None], jnp.ones(64), 1, 6, iterations)
        return float((rows * np.asarray(centroids[0])[codes[0]]).sum(-1).mean())

    values = [closeness(n) for n in (0, 1, 2, 8)]
    assert values == sorted(values) and values[-1] > values[0] + 0.01


def test_rows_that_do_not_count_move_nothing():
    rows, _ = blobs(0)
    weights = jnp.asarray(np.arange(32) < 16, jnp.float32)
    changed = np.where(np.arange(32)[:, None] < 16, rows, -rows)
    a, codes = clusters.k_means(KEY, rows[None], weights, 2, 4, 5)
    b, _ = clusters.k_means(KEY, changed[None], weights, 2, 4, 5)
    np.testing.assert_array_equal(a, b)
    assert (np.asarray(codes)[:, 16:] == -1).all() and (np.asarray(codes)[:, :16] >= 0).all()


def test_nearest_looks_past_the_first_block():
    rows = unit(np.random.default_rng(0).normal(size=(16, 8)))
    centroids = unit(np.random.default_rng(1).normal(size=(clusters.BLOCK + 90, 8)))
    found = np.asarray(clusters.nearest(rows, centroids))
    np.testing.assert_array_equal(found, (rows @ centroids.T).argmax(1))
    assert (found >= clusters.BLOCK).any()


def test_more_clusters_than_rows_leave_some_empty():
    rows = unit(np.random.default_rng(0).normal(size=(4, 5)))
    centroids, codes = clusters.k_means(KEY, rows[None], jnp.ones(4), 1, 6, 3)
    assert sorted(np.asarray(codes[0]).tolist()) == [0, 1, 2, 3]
    assert not np.any(centroids[0][4:])
    # Even of rows that point away from every centroid, none is in an empty cluster.
    lonely = clusters.nearest(-centroids[0][:1], centroids[0] * jnp.eye(6)[:, :1])
    assert lonely.tolist() == [0]


def test_the_first_step_clusters_its_own_batch():
    memory, state = make(count=3, heads=2)
    look = seen(0, TABLES, np.arange(8))
    centroids, codes = jax.jit(memory.read)(state, look)
    assert centroids.shape == (2, 3, 4) and codes.shape == (2, 8)
    for head in range(2):
        expected = clusters.nearest(TABLES[head][:8], centroids[head])
        np.testing.assert_array_equal(codes[head], expected)
        assert len(set(np.asarray(codes[head]).tolist())) > 1
    after = jax.jit(memory.update)(state, look)
    np.testing.assert_array_equal(after["centroids"], centroids)


def test_every_epoch_clusters_the_table():
    memory, state = make(heads=2)
    first = through(memory, state, 1, TABLES)
    before = through(memory, state, 3, TABLES)
    np.testing.assert_array_equal(before["centroids"], first["centroids"])
    assert (np.asarray(before["codes"]) == -1).all()
    after = through(memory, state, 4, TABLES)
    assert np.abs(after["centroids"] - first["centroids"]).max() > 1e-3
    np.testing.assert_allclose(after["table"][:, :32], TABLES, rtol=1e-5)
    # Clustering h is of the embeddings of view h, and is what the next epoch's batches get.
    index = np.array([3, 17, 8, 30, 1, 2, 25, 31])
    centroids, codes = memory.read(after, seen(4, -TABLES, index))
    np.testing.assert_array_equal(centroids, after["centroids"])
    for head in range(2):
        expected = clusters.nearest(TABLES[head][index], centroids[head])
        np.testing.assert_array_equal(codes[head], expected)


def test_only_the_rows_of_a_batch_change():
    memory, state = make()
    index = np.array([3, 17, 8, 30, 1, 2, 25, 31])
    after = memory.update(state, seen(1, TABLES, index))
    same = np.setdiff1d(np.arange(len(after["seen"])), index)
    np.testing.assert_array_equal(after["table"][:, same], state["table"][:, same])
    np.testing.assert_allclose(after["table"][:, index], TABLES[:, index], rtol=1e-5)
    assert after["seen"].sum() == 8


def test_one_device_is_eight():
    memory, state = make(heads=2)
    one = through(memory, state, 4, TABLES)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        sharded = lambda *spec: NamedSharding(mesh, PartitionSpec(*spec))
        rows = {"table": sharded(None, "data"), "codes": sharded(None, "data")}
        rows |= {"seen": sharded("data"), "centroids": sharded()}
        split = {name: jax.device_put(state[name], rows[name]) for name in state}
        eight = through(memory, split, 4, TABLES)
    np.testing.assert_allclose(eight["centroids"], one["centroids"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(eight["codes"], one["codes"])


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"count": 33}, r"losses\.a\.clusters\.count: found 33, expected at most the 32"),
        ({"heads": 0}, r"losses\.a\.clusters\.heads: found"),
        ({"every": 0.0}, r"losses\.a\.clusters\.every: found 0"),
        ({"counts": 3}, "did you mean 'count'"),
    ],
)
def test_errors_name_the_field(fields, text):
    with pytest.raises(ConfigError, match=text):
        make(**fields)
