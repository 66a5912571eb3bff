"""Checkpoints: what is saved is what is restored, on any devices, and nothing less is taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxssl.checkpoint import Checkpoints
from jaxssl.errors import ConfigError
from jaxssl.naming import named_leaves
from jaxssl.state import State

ROWS = 64


def mesh(devices):
    types = (AxisType.Auto,)
    return jax.make_mesh((devices,), ("data",), axis_types=types, devices=jax.devices()[:devices])


def state(devices=8, step=0, columns=3, dtype=jnp.float32):
    """A state whose matrices are split over the devices and whose scalars are everywhere."""
    values = np.arange(ROWS * columns).reshape(ROWS, columns) + step
    split = NamedSharding(mesh(devices), PartitionSpec("data"))
    whole = NamedSharding(mesh(devices), PartitionSpec())
    matrix = lambda scale: jax.device_put(jnp.asarray(scale * values, dtype), split)
    return State(
        step=jax.device_put(jnp.int32(step), whole),
        params={"net": {"w": matrix(1.0)}},
        teachers={"ema": {"net": {"w": matrix(0.5)}}},
        extra={"queue": matrix(2.0), "seen": jax.device_put(jnp.arange(5), whole)},
        optimizer={"main": ({"mu": matrix(3.0)}, ())},
        key=jax.device_put(jax.random.key(step + 7), whole),
    )


def shapes_and_shardings(like):
    return jax.eval_shape(lambda: like), jax.tree.map(lambda leaf: leaf.sharding, like)


def assert_equal(a, b):
    raw = lambda s: named_leaves(s.replace(key=jax.random.key_data(s.key)))
    a, b = raw(a), raw(b)
    assert a.keys() == b.keys()
    for name, leaf in a.items():
        assert leaf.dtype == b[name].dtype, name
        np.testing.assert_array_equal(leaf, b[name], err_msg=name)


@pytest.fixture
def checkpoints(tmp_path):
    """Makes checkpoint folders' owners, all closed at the end."""
    made = []

    def make(keep=2, name="checkpoints"):
        made.append(Checkpoints(tmp_path / name, keep))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_restored_onto_other_devices_it_is_the_same(checkpoints, devices):
    saved = state(devices=8, step=3)
    here = checkpoints()
    here.save(saved, wait=True)
    shapes, shardings = shapes_and_shardings(state(devices=devices))
    restored = here.restore(shapes, shardings)
    assert_equal(restored, saved)
    for name, leaf in named_leaves(restored).items():
        assert leaf.sharding == named_leaves(shardings)[name], name
    # The key goes on with the same stream.
    np.testing.assert_array_equal(
        jax.random.normal(restored.key, (4,)), jax.random.normal(saved.key, (4,))
    )


@pytest.mark.parametrize(
    "other, line",
    [
        (dict(columns=4), r"extra/queue is float32\(64, 3\), expected float32\(64, 4\)"),
        (dict(dtype=jnp.bfloat16), r"extra/queue is float32\(64, 3\), expected bfloat16"),
    ],
)
def test_a_leaf_of_another_shape_or_dtype_is_named(checkpoints, other, line):
    here = checkpoints()
    here.save(state(step=1), wait=True)
    with pytest.raises(ConfigError, match=line) as caught:
        here.restore(*shapes_and_shardings(state(**other)))
    assert "\n" not in str(caught.value)


def test_a_leaf_too_many_or_too_few_is_named(checkpoints):
    here = checkpoints()
    here.save(state(step=1), wait=True)
    like = state()
    with pytest.raises(ConfigError, match="no leaf extra/more, expected one"):
        here.restore(*shapes_and_shardings(like.replace(extra={**like.extra, "more": like.step})))
    with pytest.raises(ConfigError, match="a leaf teachers/ema/net/w, expected none"):
        here.restore(*shapes_and_shardings(like.replace(teachers={})))


def test_nothing_saved(checkpoints):
    here = checkpoints()
    assert here.latest() is None
    with pytest.raises(ConfigError, match="no checkpoint"):
        here.restore(*shapes_and_shardings(state()))


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_are_kept(checkpoints, keep):
    here = checkpoints(keep)
    for step in (1, 2, 3, 4, 5):
        here.save(state(step=step))  # in a row: none is skipped because another is being written
    here.save(state(step=5))  # twice is once
    here.wait()
    found = sorted(int(path.name) for path in here.folder.iterdir())
    assert found == list(range(6 - keep, 6))
    assert here.latest() == 5
    shapes, shardings = shapes_and_shardings(state())
    for step in found:
        assert_equal(here.restore(shapes, shardings, step), state(step=step))


def test_training_on_while_it_is_written_changes_nothing(checkpoints):
    """The state's buffers are donated to the next step, which writes over them."""
    here = checkpoints(keep=4)
    now = state()
    big = jax.device_put(jnp.ones((8, 100_000)), now.params["net"]["w"].sharding)
    now = now.replace(params={"net": {"w": big}})

    def advance(s):
        w = {"net": {"w": s.params["net"]["w"] * 1.5}}
        return s.replace(step=s.step + 1, params=w)

    step = jax.jit(advance, donate_argnums=0)
    wanted = {}
    for _ in range(4):
        now = step(now)
        wanted[int(now.step)] = np.array(now.params["net"]["w"])
        here.save(now)
        for _ in range(3):
            now = step(now)
    here.wait()
    like = shapes_and_shardings(now)
    for number, values in wanted.items():
        restored = here.restore(*like, step=number)
        np.testing.assert_array_equal(restored.params["net"]["w"], values)


def test_a_checkpoint_that_was_cut_short_is_not_taken(checkpoints):
    here = checkpoints()
    for step in (1, 2):
        here.save(state(step=step), wait=True)
    here.close()
    # What a kill leaves: files under the temporary name.
    temporary = here.folder / "3.orbax-checkpoint-tmp"
    (here.folder / "2").rename(temporary)
    (temporary / "commit_success.txt").unlink(missing_ok=True)
    again = checkpoints()
    assert again.latest() == 1
    assert_equal(again.restore(*shapes_and_shardings(state())), state(step=1))
    again.save(state(step=3), wait=True)
    assert again.latest() == 3
