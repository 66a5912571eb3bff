"""A run saved on eight devices goes on with fewer, and with more processes, as if nothing were."""

import jax
import numpy as np
import pytest
import tiny
from test_processes import assert_same, two_processes

from jaxssl.bench import small
from jaxssl.config import load as configs
from jaxssl.program import Program
from jaxssl.run import train
from jaxssl.run.checkpoint import Checkpoints

BEFORE, AFTER = 2, 3


def config(folder, **changes):
    """Plain descent: Adam would divide rounding by rounding."""
    return tiny.load(folder, **{"optimizer.name": "sgd", "mesh.fsdp": -1, "mesh.data": 1} | changes)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder, checkpoints, metrics of the steps that follow, the last state), on eight devices."""
    folder = tmp_path_factory.mktemp("saved")
    program = Program(config(folder))
    state, batches = program.init(), program.batches(0)
    for _ in range(BEFORE):
        state, _ = program.step(state, next(batches))
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.save(state, wait=True)
    yield folder, checkpoints, *small.trajectory(program, state, batches, AFTER)
    checkpoints.close()


@pytest.mark.parametrize("devices", [4, 2, 1])
def test_a_run_goes_on_with_fewer_devices(saved, devices):
    folder, checkpoints, log, last = saved
    program = Program(config(folder), devices=jax.devices()[:devices])
    state = checkpoints.restore(program.shapes, program.shardings)
    assert int(state.step) == BEFORE
    kernel = state.params["projector"]["linear0"]["kernel"]
    assert {s.data.size for s in kernel.addressable_shards} == {kernel.size // devices}
    fewer, end = small.trajectory(program, state, program.batches(BEFORE), AFTER)
    for row, other in zip(log, fewer, strict=True):
        assert other == pytest.approx(row, rel=1e-5, abs=1e-7)
    assert end.keys() == last.keys()
    for name, leaf in last.items():
        close = 1e-5 * max(0.1, np.abs(leaf).max()) if leaf.dtype.kind == "f" else 0
        np.testing.assert_allclose(end[name], leaf, atol=close, rtol=0, err_msg=name)


@pytest.mark.slow
def test_a_run_goes_on_with_two_processes(tmp_path):
    """About 60 s: pytest -m slow tests/test_elastic.py."""
    split = ("mesh.data=1", "mesh.fsdp=-1", "train.steps=10")
    given = [f"--config.{text}" for text in split]
    one, two = tmp_path / "one", tmp_path / "two"
    for workdir in (one, two):
        train.run(configs.load(str(tiny.write(tmp_path)), given), workdir)
    (two / "checkpoints" / "10").rename(tmp_path / "last")  # step 5 is left
    for process in two_processes(tmp_path, "two", *split):
        tiny.finish(process)
    assert_same(tiny.rows(two), tiny.rows(one))
