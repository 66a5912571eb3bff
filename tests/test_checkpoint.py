"""Checkpoints: what is saved is what is restored, on any devices, and nothing less is taken."""

import errno
import os
import pathlib
import resource
import socket
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from orbax.checkpoint._src.checkpointers import async_checkpointer

from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import named_leaves
from jaxssl.run import manifest
from jaxssl.run.checkpoint import CheckpointNotWritten, Checkpoints
from jaxssl.run.workdir import claimed
from jaxssl.state import State

ROOT = pathlib.Path(__file__).resolve().parent.parent

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


# ---------------------------------------------------------------------- damage
def payload(folder):
    """The largest file of arrays of a checkpoint."""
    return max(folder.glob("state/ocdbt.process_*/d/*"), key=lambda p: p.stat().st_size)


def cut_short(folder):
    path = payload(folder)
    data = path.read_bytes()
    half = len(data) // 2
    path.write_bytes(data[:half])
    return path, f"found {half} bytes, expected {len(data)}"


def one_bit_flipped(folder):
    path = payload(folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path, "found blake2b"


def a_file_missing(folder):
    path = payload(folder)
    size = path.stat().st_size
    path.unlink()
    return path, f"found no file, expected {size} bytes"


def no_description(folder):
    path = folder / "state" / "_METADATA"
    path.unlink()
    return path, "found no file"


def no_mark_of_the_end(folder):
    for path in folder.rglob("commit_success.txt"):
        path.unlink()
    return folder, ""


def a_spoilt_manifest(folder):
    path = folder / manifest.NAME
    path.write_bytes(path.read_bytes()[:-9])
    return path, "found no manifest in it"


DAMAGE = [
    cut_short,
    one_bit_flipped,
    a_file_missing,
    no_description,
    no_mark_of_the_end,
    a_spoilt_manifest,
]


def saved(checkpoints, *steps, keep=4):
    here = checkpoints(keep)
    for step in steps:
        here.save(state(step=step), wait=True)
    return here


@pytest.mark.parametrize("spoil", DAMAGE)
@pytest.mark.parametrize("opened", ["before", "after"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(checkpoints, spoil, opened):
    here = saved(checkpoints, 1, 2, 3)
    if opened == "after":
        here.close()
    path, found = spoil(here.folder / "3")
    if opened == "after":
        here = checkpoints(4)
    like = shapes_and_shardings(state())
    recovered = here.recover(*like)
    assert recovered.step == 2
    assert_equal(recovered.state, state(step=2))
    (note,) = recovered.notes
    assert str(path) in note and found in note and "going on from step 2" in note
    assert "set aside as 3.damaged" in note and "\n" not in note
    assert here.steps() == [1, 2] and (here.folder / "3.damaged").is_dir()
    here.save(state(step=3), wait=True)
    again = here.recover(*like)
    assert (again.step, again.notes) == (3, ())
    assert_equal(again.state, state(step=3))
    # Damaged once more, it does not take the place of the first.
    spoil(here.folder / "3")
    assert "3.damaged.2" in here.recover(*like).notes[0]


@pytest.mark.parametrize("spoil", [cut_short, one_bit_flipped])
def test_where_damage_is_an_error_nothing_is_moved(checkpoints, spoil):
    here = saved(checkpoints, 1, 2)
    path, found = spoil(here.folder / "2")
    like = shapes_and_shardings(state())
    with pytest.raises(ConfigError, match="to go on from step 1, move") as caught:
        here.recover(*like, strict=True)
    assert str(path) in str(caught.value) and found in str(caught.value)
    with pytest.raises(ConfigError, match="other steps: 1") as caught:
        here.restore(*like)  # a reader is never given another step than it asks for
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert here.steps() == [1, 2]
    assert_equal(here.restore(*like, step=1), state(step=1))


def test_no_checkpoint_is_good(checkpoints):
    here = checkpoints()
    like = shapes_and_shardings(state())
    assert here.recover(*like) is None
    here = saved(checkpoints, 1, 2)
    spoilt = [cut_short(here.folder / "1")[0], a_file_missing(here.folder / "2")[0]]
    with pytest.raises(ConfigError, match="to start anew, move") as caught:
        here.recover(*like)
    assert all(str(path) in str(caught.value) for path in spoilt)
    assert here.steps() == [1, 2]  # as they were, for whoever can mend them


def test_a_config_that_does_not_fit_is_no_damage(checkpoints):
    here = checkpoints()
    here.save(state(step=1), wait=True)
    here.save(state(step=2, columns=4), wait=True)
    with pytest.raises(ConfigError, match=r"/2: extra/queue is float32\(64, 4\), expected"):
        here.recover(*shapes_and_shardings(state()))
    assert here.steps() == [1, 2]


def test_killed_between_the_rename_and_the_seal_it_is_used(checkpoints, monkeypatch):
    here = saved(checkpoints, 1)
    monkeypatch.setattr(manifest, "seal", lambda folder: None)
    here.save(state(step=2), wait=True)
    assert manifest.sealed(here.folder / "1") and not manifest.sealed(here.folder / "2")
    like = shapes_and_shardings(state())
    recovered = here.recover(*like)
    assert (recovered.step, recovered.notes) == (2, ())
    assert_equal(recovered.state, state(step=2))


@pytest.mark.parametrize("spoil", [cut_short, a_file_missing, no_description])
def test_without_a_manifest_what_cannot_be_read_is_damaged(checkpoints, spoil):
    here = checkpoints()
    for step in (1, 2):  # wide enough that arrays have a file of their own
        here.save(state(step=step, columns=300), wait=True)
    (here.folder / "2" / manifest.NAME).unlink()
    spoil(here.folder / "2")
    recovered = here.recover(*shapes_and_shardings(state(columns=300)))
    assert recovered.step == 1 and str(here.folder / "2") in recovered.notes[0]


def test_sealing_does_not_hold_up_the_loop(checkpoints, monkeypatch):
    let, seal = threading.Event(), manifest.seal

    def slow(folder):
        assert let.wait(60)
        seal(folder)

    monkeypatch.setattr(manifest, "seal", slow)
    here = checkpoints()
    here.save(state(step=1))  # returns although nothing is sealed yet
    assert not manifest.sealed(here.folder / "1")
    let.set()
    here.wait()
    assert manifest.sealed(here.folder / "1") and manifest.damage(here.folder / "1") == ""


def test_going_back_makes_an_earlier_one_the_newest(checkpoints):
    here = saved(checkpoints, 1, 2, 3)
    here.save(state(step=4))  # under way
    here.discard_after(2)
    assert here.latest() == 2
    like = shapes_and_shardings(state())
    assert here.recover(*like).step == 2
    here.save(state(step=3, columns=3), wait=True)
    assert here.steps() == [1, 2, 3]
    aside = {path.name for path in here.folder.glob("*.discarded")}
    assert aside == {"3.discarded", "4.discarded"}
    here.discard_after(3)  # nothing to discard: what is aside stays
    assert {path.name for path in here.folder.glob("*.discarded")} == aside
    here.discard_after(1)
    assert {path.name for path in here.folder.glob("*.discarded")} == {
        "2.discarded",
        "3.discarded",
    }
    assert here.latest() == 1 and here.recover(*like).step == 1


# ---------------------------------------------------------------------- a full disk
@pytest.fixture
def full_disk(monkeypatch):
    """Turns the disk of Orbax's background thread full, and empty again."""
    finish = async_checkpointer._background_wait_for_commit_futures

    def no_room():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(directory, futures, commit, **options):
        finish(directory, futures, no_room, **options)

    def turn(full):
        name = "_background_wait_for_commit_futures"
        monkeypatch.setattr(async_checkpointer, name, fail if full else finish)

    return turn


def whole(here, *steps):
    """Whether these are the checkpoints, good, and nothing else lies there."""
    assert sorted(path.name for path in here.folder.iterdir()) == sorted(map(str, steps))
    assert here.steps() == list(steps)
    for step in steps:
        assert manifest.damage(here.folder / str(step)) == ""
        assert_equal(here.restore(*shapes_and_shardings(state()), step), state(step=step))


def test_a_full_disk_costs_only_the_checkpoint_that_does_not_fit(checkpoints, full_disk):
    here = saved(checkpoints, 1, 2, keep=2)
    full_disk(True)
    here.save(state(step=3))
    with pytest.raises(CheckpointNotWritten) as caught:
        here.wait()
    text = str(caught.value)
    assert caught.value.step == 3 and "\n" not in text
    for part in (str(here.folder), "step 3", "No space left on device", "iB free", "make room"):
        assert part in text
    whole(here, 1, 2)
    full_disk(False)
    here.save(state(step=3), wait=True)
    whole(here, 2, 3)


def test_a_failure_is_told_by_the_next_save_which_is_made(checkpoints, full_disk):
    here = saved(checkpoints, 1)
    full_disk(True)
    here.save(state(step=2))
    while here._writing.is_alive():
        time.sleep(0.01)
    full_disk(False)
    with pytest.raises(CheckpointNotWritten, match="step 2 was not written"):
        here.save(state(step=3))
    here.wait()  # told once
    whole(here, 1, 3)


def test_a_failure_is_told_at_the_end(checkpoints, full_disk):
    here = saved(checkpoints, 1)
    full_disk(True)
    here.save(state(step=2))
    with pytest.raises(CheckpointNotWritten, match="step 2"):
        here.close()
    whole(checkpoints(), 1)


def test_a_save_that_fails_before_it_is_in_the_background(checkpoints, monkeypatch):
    here = saved(checkpoints, 1)

    def fail(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(here._checkpointer, "save_async", fail)
        with pytest.raises(CheckpointNotWritten, match="Permission denied"):
            here.save(state(step=2))
    here.save(state(step=2), wait=True)
    whole(here, 1, 2)


def test_a_write_that_the_system_refuses(checkpoints):
    """A real one, under the limit of a file's size that a process can be given."""
    here = saved(checkpoints, 1)
    wide = state(step=2, columns=300)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointNotWritten, match="File too large"):
            here.save(wide, wait=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    whole(here, 1)
    here.save(wide, wait=True)
    assert here.latest() == 2


# ---------------------------------------------------------------------- several processes
TOGETHER = """
import pathlib, sys
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxssl.devices import agreement
from jaxssl.run.checkpoint import CheckpointNotWritten, Checkpoints
from jaxssl.config.errors import ConfigError
from jaxssl.state import State
from jaxssl.run.workdir import claimed

port, index, folder = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=index)
mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

def state(step):
    whole, split = (NamedSharding(mesh, PartitionSpec(*names)) for names in ((), ("data",)))
    make = jax.jit(
        lambda: (jnp.int32(step), jnp.arange(64.0) + step, jax.random.key(step)),
        out_shardings=(whole, split, whole),
    )
    number, w, key = make()
    return State(step=number, params={"w": w}, teachers={}, extra={}, optimizer={}, key=key)

here = Checkpoints(folder, 3)
for step in (1, 2):
    here.save(state(step), wait=True)
if index == 0:
    path = next((folder / "2").glob("state/ocdbt.process_1/d/*"))
    path.write_bytes(path.read_bytes()[:-1])
like = state(0)
shapes, shardings = jax.eval_shape(lambda: like), jax.tree.map(lambda x: x.sharding, like)
found = here.recover(shapes, shardings)
print("recovered", found.step, *found.notes)
values = [float(x) for shard in found.state.params["w"].addressable_shards for x in shard.data]
assert values == [x + 1.0 for x in range(32 * index, 32 * index + 32)], values
print("text", agreement.first_text("from 1" if index == 1 else ""))
try:
    with claimed(folder.parent / "taken"):
        print("claimed")
except ConfigError as error:
    print("refused", error)
with claimed(folder.parent / "free", make=True):
    print("claimed", (folder.parent / "free").is_dir())
here.discard_after(0)
print("left", here.steps())
here.close()
"""


def test_two_processes_decide_alike(tmp_path):
    """What is damaged, and who may use a workdir: found by one, known to both."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    with claimed(tmp_path / "taken", make=True):
        pair = [
            subprocess.Popen(
                [sys.executable, str(script), str(port), str(index), str(tmp_path / "checkpoints")],
                env=os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in range(2)
        ]
        ends = [process.communicate(timeout=300) for process in pair]
    for process, (_, err) in zip(pair, ends):
        assert process.returncode == 0, err[-3000:]
    said = [tiny.without_gloo(out) for out, _ in ends]
    assert said[0] == said[1]
    recovered, text, refused, made, left = said[0]
    assert recovered.startswith("recovered 1 damaged checkpoint: ") and "2.damaged" in recovered
    assert text == "text from 1"
    assert refused.startswith("refused ") and f"process {os.getpid()} on host" in refused
    assert (made, left) == ("claimed True", "left []")
