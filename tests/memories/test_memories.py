"""Queue, neighbours, bank, center, second moment: what they hold, how they move, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxssl import memories
from jaxssl.config.errors import ConfigError
from jaxssl.memories import MemoryInput
from jaxssl.method import Info

INFO = Info({}, num_samples=32, num_classes=0, steps=8, steps_per_epoch=4, global_batch=8)
KEY = jax.random.key(0)
KINDS = [
    dict(memory="queue", size=32),
    dict(memory="queue", size=32, per_view=True, layout="columns"),
    dict(memory="neighbor", size=16),
    dict(memory="bank"),
    dict(memory="center"),
    dict(memory="second_moment"),
]


def build(views=2, **config):
    return memories.build(config, views=views, info=INFO, field="losses.a.past")


def stack_of(step, views=2):
    return np.random.default_rng(step).normal(size=(views, 8, 4)).astype(np.float32)


def seen(step, views=2):
    index = jnp.asarray(np.random.default_rng(99 + step).permutation(32)[:8])
    return MemoryInput(jnp.asarray(stack_of(step, views)), {"index": index}, KEY, jnp.int32(step))


def after(memory, steps, views=2):
    """The states before and after each step."""
    states, update = [memory.init(KEY, (views, 8, 4))], jax.jit(memory.update)
    for step in range(steps):
        states.append(update(states[-1], seen(step, views)))
    return states


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("config", KINDS)
def test_eight_devices_remember_what_one_does(config):
    memory = build(**config)
    many = one = memory.init(KEY, (2, 8, 4))
    read, update = jax.jit(memory.read), jax.jit(memory.update)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split = MemoryInput(
        NamedSharding(mesh, PartitionSpec(None, "data")),
        {"index": NamedSharding(mesh, PartitionSpec("data"))},
        *[NamedSharding(mesh, PartitionSpec())] * 2,
    )
    for step in range(3):
        one = update(one, seen(step))
        with jax.set_mesh(mesh):
            many = update(many, jax.device_put(seen(step), split))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many)):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)
        assert not a.weak_type
    with jax.set_mesh(mesh):
        found = read(many, jax.device_put(seen(3), split))
    np.testing.assert_allclose(found, read(one, seen(3)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("config", KINDS)
def test_what_is_read_comes_from_earlier_steps_alone(config):
    memory = build(**config)
    *_, state = after(memory, 1)
    if config["memory"] == "neighbor":  # asks by this step's embeddings, answers with earlier ones
        rows = np.asarray(state["rows"][0])
        for row in np.asarray(memory.read(state, seen(1))).reshape(-1, 4):
            assert (rows == row).all(1).any()
    else:
        np.testing.assert_array_equal(memory.read(state, seen(1)), memory.read(state, seen(2)))


@pytest.mark.parametrize(
    "config", [c for c in KINDS if c["memory"] in ("queue", "neighbor", "bank")]
)
def test_rows_keep_unit_length(config):
    for state in after(build(**config), 2):
        rows = state if config["memory"] == "bank" else state["rows"]
        np.testing.assert_allclose(np.linalg.norm(rows, axis=-1), 1, rtol=1e-5)


def test_a_queue_forgets_the_oldest_and_its_pointer_wraps():
    states = after(build(memory="queue", size=32), 3)
    assert [int(s["at"]) for s in states] == [0, 16, 0, 16]
    rows = [np.asarray(s["rows"][0]) for s in states]
    # A step's rows in the order of its samples, the views of a sample side by side.
    added = [unit(stack_of(step).transpose(1, 0, 2).reshape(16, 4)) for step in range(3)]
    np.testing.assert_array_equal(rows[1][16:], rows[0][16:])
    np.testing.assert_allclose(rows[2], np.r_[added[0], added[1]], rtol=1e-5)
    np.testing.assert_allclose(rows[3], np.r_[added[2], added[1]], rtol=1e-5)


def test_layouts_and_a_queue_for_each_view():
    rows, columns, apart = (
        build(memory="queue", size=16, **fields)
        for fields in ({}, {"layout": "columns"}, {"per_view": True, "normalize": False})
    )
    read = lambda memory: np.asarray(memory.read(after(memory, 2)[-1], seen(2)))
    np.testing.assert_array_equal(read(columns), read(rows).T)
    expected = np.concatenate([stack_of(0), stack_of(1)], axis=1)
    np.testing.assert_array_equal(read(apart), expected)


@pytest.mark.parametrize(
    "config, views, message",
    [
        (dict(memory="queue", size=20), 2, "multiple of the 16 .* such as 16"),
        (dict(memory="queue", size=30), 1, "multiple of the 8 .* such as 32"),
        (dict(memory="queue", size=12, per_view=True), 2, "multiple of the 8 .* such as"),
        (dict(memory="neighbor", size=12), 2, "multiple of the 8 .* such as"),
    ],
)
def test_a_size_that_the_batch_does_not_divide_is_refused(config, views, message):
    pattern = rf"^losses\.a\.past\.size: found {config['size']}, expected a {message}.*$"
    with pytest.raises(ConfigError, match=pattern) as raised:
        build(views=views, **config)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "config, message",
    [
        (dict(memory="quee"), "memory: found 'quee'.*did you mean 'queue'"),
        (dict(memory="queue"), "size: missing"),
        (dict(memory="queue", size=0), r"size: found \(0,\)"),
        (dict(memory="queue", size=16, layout="row"), "layout: found 'row'.*did you mean 'rows'"),
        (dict(memory="bank", momentum=1.5), "momentum: found 1.5, expected 0 to 1"),
        (dict(memory="center", momentum=-1), "momentum: found -1, expected 0 to 1"),
    ],
)
def test_bad_fields_are_named(config, message):
    with pytest.raises(ConfigError, match=rf"^losses\.a\.past\.{message}"):
        build(**config)


def test_a_neighbour_is_the_nearest_of_the_first_views_earlier_embeddings():
    memory = build(memory="neighbor", size=16)
    state = after(memory, 2)[-1]
    rows = unit(np.r_[stack_of(0)[0], stack_of(1)[0]])
    nearest = (unit(stack_of(2)) @ rows.T).argmax(-1)
    np.testing.assert_allclose(memory.read(state, seen(2)), rows[nearest], rtol=1e-5)
    # An embedding that is in the queue is its own neighbour.
    again = np.asarray(memory.read(state, seen(1)))
    np.testing.assert_allclose(again[0], unit(stack_of(1)[0]), rtol=1e-5)


def test_only_the_rows_of_the_batch_move_in_a_bank():
    first, last = (np.asarray(s) for s in after(build(memory="bank", momentum=0.25), 1))
    index = np.asarray(seen(0).batch["index"])
    others = np.setdiff1d(np.arange(32), index)
    np.testing.assert_array_equal(last[others], first[others])
    moved = unit(0.25 * first[index] + 0.75 * unit(stack_of(0).mean(0)))
    np.testing.assert_allclose(last[index], moved, rtol=1e-5)


def test_running_mean_and_second_moment():
    center = after(build(memory="center", momentum=0.9), 2)[-1]
    means = [stack_of(step).mean((0, 1)) for step in range(2)]
    np.testing.assert_allclose(center, 0.09 * means[0] + 0.1 * means[1], rtol=1e-4, atol=1e-6)
    moment = np.asarray(after(build(memory="second_moment", momentum=0.0), 2)[-1])
    u = unit(stack_of(1)).reshape(16, 4)
    np.testing.assert_allclose(moment, u.T @ u / 16, rtol=1e-4, atol=1e-6)
    assert np.trace(moment) == pytest.approx(1, rel=1e-5)
