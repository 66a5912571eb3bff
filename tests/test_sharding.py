"""The mesh, the rules, and that what belongs together is split alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from jaxssl import sharding
from jaxssl.errors import ConfigError
from jaxssl.naming import named_leaves
from jaxssl.program import Program


def mesh(batch=32, devices=8, **sizes):
    wanted = ConfigDict({"data": -1, "fsdp": 1, "model": 1} | sizes)
    return sharding.make_mesh(wanted, batch, jax.devices()[:devices])


def specs(shapes, *rules, smallest=1, **sizes):
    """name -> PartitionSpec."""
    tree = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    config = ConfigDict({"rules": rules, "min_shard_elements": smallest})
    found = sharding.state_shardings(mesh(**({"fsdp": 4} | sizes)), tree, config)
    return {name: s.spec for name, s in found.items()}


@pytest.mark.parametrize(
    "sizes, devices, shape",
    [
        ({}, 8, (8, 1, 1)),
        ({}, 1, (1, 1, 1)),
        ({"fsdp": 4}, 8, (2, 4, 1)),
        ({"data": 1, "fsdp": -1}, 8, (1, 8, 1)),
        ({"data": 2, "fsdp": 2, "model": 2}, 8, (2, 2, 2)),
    ],
)
def test_one_axis_takes_the_devices_that_are_left(sizes, devices, shape):
    found = mesh(devices=devices, **sizes)
    assert tuple(found.shape[axis] for axis in sharding.AXES) == shape


@pytest.mark.parametrize(
    "sizes, batch, line",
    [
        ({"data": 3}, 32, "does not fill the 8 devices; set one axis to -1"),
        ({"data": 4}, 32, "does not fill the 8 devices"),
        ({"fsdp": 3}, 32, "does not fill the 8 devices"),
        ({"data": -1, "fsdp": -1}, 32, "one -1"),
        ({"data": 0}, 32, "sizes >= 1"),
        ({}, 30, r"train\.global_batch: 30 .* 8 devices .* 24 or 32"),
        ({}, 4, r"train\.global_batch: 4 .* 8 or 16"),
        ({"fsdp": 2, "model": 2}, 30, "4 devices"),
    ],
)
def test_meshes_that_do_not_fit(sizes, batch, line):
    with pytest.raises(ConfigError, match=line):
        mesh(batch, **sizes)


def test_fsdp_splits_the_largest_axis_that_can_be_split():
    found = specs(
        {"a": (8, 16), "b": (16, 8), "c": (7, 8), "d": (7, 9), "e": (), "f": (4,)}, (".*", "fsdp")
    )
    assert found["a"] == PartitionSpec(None, "fsdp")
    assert found["b"] == PartitionSpec("fsdp")
    assert found["c"] == PartitionSpec(None, "fsdp")
    assert found["d"] == found["e"] == PartitionSpec()
    assert found["f"] == PartitionSpec("fsdp")


def test_small_leaves_are_replicated():
    found = specs({"a": (8, 8), "b": (8, 9)}, (".*", "fsdp"), smallest=65)
    assert found == {"a": PartitionSpec(), "b": PartitionSpec("fsdp")}


def test_the_first_rule_that_matches_wins():
    rules = (("^head", "replicate"), ("kernel$", (None, "model")), (".*bias", "fsdp"))
    shapes = {"head/kernel": (4, 4), "net/kernel": (4, 4), "net/bias": (4,), "net/scale": (4,)}
    found = specs(shapes, *rules, model=2)
    assert found == {
        "head/kernel": PartitionSpec(),
        "net/kernel": PartitionSpec(None, "model"),
        "net/bias": PartitionSpec("fsdp"),
        "net/scale": PartitionSpec(),  # no rule
    }


@pytest.mark.parametrize(
    "rule, line",
    [
        ((".*", "fsd"), "'fsd'; expected 'replicate', 'fsdp' or a tuple"),
        ((".*", ("modle",)), "does not fit a of shape"),
        ((".*", (None, "fsdp")), "does not fit a of shape"),  # 4 does not divide 6
        (("[", "fsdp"), "regex"),
        ((".*", 3), "3 is no rule"),
        ("fsdp", "'fsdp'; expected"),
    ],
)
def test_rules_that_do_not_fit(rule, line):
    with pytest.raises(ConfigError, match=line) as caught:
        specs({"a": (8, 6)}, rule)
    assert "mesh.rules" in str(caught.value)


def test_batches_are_split_over_data_and_fsdp():
    here = mesh(fsdp=2, model=2)
    x = jax.device_put(np.arange(8.0).reshape(8, 1), sharding.batch_sharding(here))
    assert {shard.data.shape for shard in x.addressable_shards} == {(2, 1)}

    def doubled(x):
        return sharding.batch_sharded({"y": jnp.tile(x, (1, 3)) * 2})["y"]

    with jax.set_mesh(here):
        whole = jnp.arange(8.0).reshape(8, 1)  # on one device
        y = jax.jit(doubled)(whole)
    assert {shard.data.shape for shard in y.addressable_shards} == {(2, 3)}
    np.testing.assert_array_equal(y, np.tile(2 * np.arange(8.0)[:, None], (1, 3)))
    # Without a mesh it is the identity.
    np.testing.assert_array_equal(doubled(jnp.arange(8.0).reshape(8, 1)), y)


def test_moments_and_teachers_are_split_like_their_params(tmp_path):
    config = tiny.load(tmp_path, **{"mesh.fsdp": 4})
    with config.unlocked():
        config.teachers.ema = dict(rule="ema", decay=0.9)
        config.losses.prediction = dict(
            fn="view_mean_prediction", student="projection", teacher="ema/projection", pairs="all"
        )
    program = Program(config)
    found = {name: s.spec for name, s in named_leaves(program.shardings).items()}
    params = {n.removeprefix("params/"): s for n, s in found.items() if n.startswith("params/")}
    assert sum("fsdp" in str(spec) for spec in params.values()) > len(params) / 2
    for name, spec in params.items():
        others = [
            other
            for other in found
            if other.endswith("/" + name) and not other.startswith(("params/", "extra/"))
        ]
        assert len(others) == 3, others  # the teacher and two moments
        assert all(found[other] == spec for other in others), name
    # And so are the arrays themselves: each device holds a quarter.
    state = program.init()
    kernel = state.params["projector"]
    teacher = state.teachers["ema"]["projector"]
    for name, leaf in named_leaves(kernel).items():
        if leaf.ndim == 2:
            for array in (leaf, named_leaves(teacher)[name]):
                assert {s.data.size for s in array.addressable_shards} == {leaf.size // 4}
