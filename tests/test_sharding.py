"""The mesh, the rules, and that what belongs together is split alike."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from jaxssl.bench import small
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import named_leaves
from jaxssl.devices import sharding
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
        ((".*", "fsd"), "'fsd' is no rule; did you mean 'fsdp'"),
        ((".*", ("modle",)), "does not fit a of shape .* did you mean 'model'"),
        (
            (".*", (None, "fsdp")),
            r"does not fit a of shape \(8, 6\): mesh.fsdp=4 does not divide 6",
        ),
        (("[", "fsdp"), "regex"),
        ((".*", 3), "3 is no rule"),
        ("tensor_paralel", "'tensor_paralel'; expected .* did you mean 'tensor_parallel'"),
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


def vit(folder, *, teacher=False, **changes):
    """The tiny config with a ViT: LeJEPA, or DINO with its EMA teacher."""
    config = tiny.load(folder, **{"optimizer.name": "sgd", **changes})
    with config.unlocked():
        config.encoder = dict(
            name="vit", width=32, depth=2, heads=4, patch=4, image_size=8, pool="mean", scan=teacher
        )
        config.student.projector = dict(name="mlp", widths=(16, 8), norm="layer")
        if teacher:
            config.student.prototypes = dict(
                name="prototypes", count=16, weight_norm=True, reads="projection", output="scores"
            )
            config.teachers.ema = dict(
                rule="ema", follows=("encoder", "projector", "prototypes"), decay=0.9
            )
            config.losses = dict(
                dino=dict(
                    fn="dino",
                    student="scores",
                    teacher="ema/scores",
                    pairs="all",
                    center=dict(memory="center", momentum=0.9),
                    student_temperature=0.1,
                    teacher_temperature=0.04,
                )
            )
    return config


TENSOR = {
    "mesh.data": 2,
    "mesh.fsdp": 2,
    "mesh.model": 2,
    "mesh.rules": ("tensor_parallel", (".*", "fsdp")),
}


def test_the_rule_set_is_one_override(tmp_path):
    text = "--config.mesh.rules=('tensor_parallel', ('.*', 'fsdp'))"
    assert configs.load(str(tiny.write(tmp_path)), [text]).mesh.rules == TENSOR["mesh.rules"]


def test_columns_then_rows_and_the_rest_over_fsdp():
    block = "encoder/transformer/block0/"
    shapes = {
        block + "attention/qkv/kernel": (8, 24),
        block + "attention/qkv/bias": (24,),
        block + "attention/out/kernel": (8, 8),
        block + "attention/out/bias": (8,),
        block + "ffn/up/kernel": (8, 32),
        block + "ffn/gate_up/kernel": (8, 48),
        block + "ffn/down/kernel": (32, 8),
        "encoder/transformer/blocks/ffn/down/kernel": (3, 32, 8),
        "encoder/transformer/blocks/ffn/up/kernel": (3, 8, 32),
        "projector/linear0/kernel": (8, 16),
    }
    found = specs(shapes, *TENSOR["mesh.rules"], fsdp=2, model=2)
    assert found == {
        block + "attention/qkv/kernel": PartitionSpec("fsdp", "model"),
        block + "attention/qkv/bias": PartitionSpec("model"),
        block + "attention/out/kernel": PartitionSpec("model", "fsdp"),
        block + "attention/out/bias": PartitionSpec("fsdp"),
        block + "ffn/up/kernel": PartitionSpec("fsdp", "model"),
        block + "ffn/gate_up/kernel": PartitionSpec("fsdp", "model"),
        block + "ffn/down/kernel": PartitionSpec("model", "fsdp"),
        "encoder/transformer/blocks/ffn/down/kernel": PartitionSpec(None, "model", "fsdp"),
        "encoder/transformer/blocks/ffn/up/kernel": PartitionSpec(None, "fsdp", "model"),
        "projector/linear0/kernel": PartitionSpec(None, "fsdp"),
    }
    # Without an axis to split over they are the rules of fsdp.
    alone = specs(shapes, *TENSOR["mesh.rules"], fsdp=2)
    assert alone == specs(shapes, (".*", "fsdp"), fsdp=2)


def test_a_width_that_the_axis_does_not_divide():
    shapes = {"encoder/block0/ffn/up/kernel": (8, 30)}
    line = r"'columns' does not fit encoder/.*: mesh.model=4 does not divide 30"
    with pytest.raises(ConfigError, match=line):
        specs(shapes, "tensor_parallel", fsdp=2, model=4)


def test_heads_that_the_axis_would_cut(tmp_path):
    with pytest.raises(
        ConfigError, match=r"mesh.model: 8 does not divide the 4 heads of attention"
    ):
        Program(vit(tmp_path, **{**TENSOR, "mesh.data": 1, "mesh.fsdp": 1, "mesh.model": 8}))


@pytest.mark.parametrize("teacher", [False, True])
def test_tensor_parallel_is_one_device(tmp_path, teacher):
    one = Program(vit(tmp_path, teacher=teacher), devices=jax.devices()[:1])
    many = Program(vit(tmp_path, teacher=teacher, **TENSOR))
    found = {name: s.spec for name, s in named_leaves(many.shardings).items()}
    split = [name for name in found if name.endswith("/qkv/kernel")]
    assert len(split) >= 2 and all(found[n][-2:] == ("fsdp", "model") for n in split)
    assert any(n.startswith("teachers/") for n in split) == teacher
    begun = one.init()
    copy = jax.device_put(jax.tree.map(jnp.copy, begun), many.shardings)
    (log, last), (log_many, last_many) = (
        small.trajectory(program, state, program.batches(0), 3)
        for program, state in ((one, begun), (many, copy))
    )
    for row, other in zip(log, log_many, strict=True):
        assert other == pytest.approx(row, rel=1e-5, abs=1e-7)
    for name, leaf in last.items():
        if name.startswith(("params/", "teachers/", "extra/")):
            close = 1e-5 * np.abs(leaf).max() + 1e-7
            np.testing.assert_allclose(last_many[name], leaf, atol=close, err_msg=name)


def test_the_sums_of_a_split_block_are_all_that_its_devices_exchange(tmp_path):
    """Of a forward and a backward pass: a sum for each branch; no hidden unit is gathered.

    The columns of queries, keys and values, in this order, are not those of whole heads, so these
    alone are gathered; kernels never are.
    """
    alone = {**TENSOR, "mesh.fsdp": 1, "mesh.rules": ("tensor_parallel",)}
    text = Program(vit(tmp_path, **alone), devices=jax.devices()[:4]).step.as_text()
    gathered = re.findall(r"= \S*? ?all-gather(?:-start)?\(.*?op_name=\"([^\"]*)\"", text)
    assert gathered and all("/attention/" in name for name in gathered), gathered
    sums = re.findall(r"all-reduce(?:-start)?\(.*?op_name=\"([^\"]*)\"", text)
    for i in range(2):
        for layer in ("attention/out", "ffn/down", "ffn/up", "attention/qkv"):
            assert any(f"block{i}/{layer}/dot_general" in name for name in sums), (i, layer)
    assert not re.search(r"all-gather(?:-start)?\([^)]*parameter", text)


def test_a_queue_may_be_split(tmp_path):
    def config(**changes):
        config = tiny.load(tmp_path, **{"optimizer.name": "sgd", **changes})
        with config.unlocked():
            config.teachers.ema = dict(rule="ema", decay=0.9)
            config.losses = dict(
                contrast=dict(
                    fn="info_nce_queue",
                    student="projection",
                    teacher="ema/projection",
                    pairs="cross",
                    queue=dict(memory="queue", size=128, layout="columns"),
                    temperature=0.2,
                )
            )
        return config

    rules = ((r"^extra/.*rows$", (None, "fsdp")), (".*", "fsdp"))
    one = Program(config(), devices=jax.devices()[:1])
    many = Program(config(**{"mesh.fsdp": 4, "mesh.rules": rules}))
    begun = one.init()
    state = jax.device_put(jax.tree.map(jnp.copy, begun), many.shardings)
    (queue,) = [x for n, x in named_leaves(state.extra).items() if n.endswith("rows")]
    assert {s.data.size for s in queue.addressable_shards} == {queue.size // 4}
    log, last = small.trajectory(one, begun, one.batches(0), 3)
    log_many, last_many = small.trajectory(many, state, many.batches(0), 3)
    for row, other in zip(log, log_many, strict=True):
        assert other == pytest.approx(row, rel=1e-5, abs=1e-7)
    (name,) = [n for n in last if n.startswith("extra/") and n.endswith("rows")]
    np.testing.assert_allclose(last_many[name], last[name], atol=1e-5)
