"""Topologies, chips, memory, and the bounds that follow."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from jaxssl.config.errors import ConfigError
from jaxssl.devices import sharding
from jaxssl.plan import chips, largest, memory, roofline

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install 'jaxssl[plan]'",
)


def refused(name):
    with pytest.raises(ConfigError) as error:
        chips.resolve(name)
    text = str(error.value)
    assert "\n" not in text and text.startswith(f"--topology={name}: ")
    return text


def test_cpus_are_those_that_are_here():
    found = chips.resolve("cpu:4")
    assert len(found.devices) == found.chips == 4 and found.hosts == 1
    assert found.chip is None and found.per_device is None
    assert "JAX_NUM_CPU_DEVICES=4096" in refused("cpu:4096")


@pytest.mark.parametrize("name", ["cpu:x", "cpu:0", "cpu"])
def test_cpus_have_a_number(name):
    assert "expected cpu:N" in refused(name)


def test_a_bad_topology_is_one_line_with_the_near_name():
    assert "did you mean 'v5e:16x16'?" in refused("v5e-16x16")
    # In the cloud's naming, v5p counts cores and v5e chips.
    assert refused("v5p-128").endswith("a slice v5p-128 has 64 chips: v5p:4x4x4")
    assert refused("v5e-256").endswith("a slice v5e-256 has 256 chips: v5e:16x16")


@needs_libtpu
def test_an_unknown_kind_is_one_line_with_the_near_name():
    assert "did you mean 'v5e:4x4'?" in refused("v5x:4x4")
    assert "host" in refused("v5e:3x5")


@needs_libtpu
@pytest.mark.parametrize(
    "name, devices, count, hosts",
    [
        ("v4:2x2x1", 4, 4, 1),
        ("v5e:4x4", 16, 16, 4),
        ("v5p:4x4x4", 64, 64, 16),
        ("v6e:2x2", 4, 4, 1),
        ("tpu7x:2x2x1", 8, 4, 1),
    ],
)
def test_every_kind_in_the_table_is_one_that_the_compiler_knows(name, devices, count, hosts):
    found = chips.resolve(name)
    assert (len(found.devices), found.chips, found.hosts) == (devices, count, hosts)
    assert found.chip.kind == name.partition(":")[0]
    # A chip's memory and rates are shared by its devices.
    assert found.per_device.memory * devices == found.chip.memory * count
    assert found.per_device.flops * devices == found.chip.flops * count


@needs_libtpu
def test_a_mesh_may_cut_through_the_axes_of_the_torus():
    devices = chips.resolve("v5p:4x8x8").devices
    mesh = sharding.make_mesh(ConfigDict({"data": 16, "fsdp": 16, "model": 1}), 1024, devices)
    assert dict(mesh.shape) == {"data": 16, "fsdp": 16, "model": 1}
    assert {d.id for d in mesh.devices.flat} == {d.id for d in devices}


def test_devices_without_public_figures_have_none():
    assert chips.figures(jax.devices("cpu")[0]) is None


def test_the_figures_are_in_the_same_units():
    for chip in (*chips.CHIPS.values(), *chips.GPUS.values()):
        assert 2**34 <= chip.memory < 2**38
        assert 1e14 < chip.flops < 1e16 and 8e11 < chip.hbm < 1e13
        assert 1e11 < chip.ici < chip.hbm, chip.kind


def test_suggested_slices_have_the_chips_that_their_place_says():
    counts = {kind: [chips.chips_of(s) for s in names] for kind, names in chips.SLICES.items()}
    assert counts["v5e"] == [1, 4, 8, 16, 32, 64, 128, 256]
    assert counts["v5p"] == [4, 8, 16, 32, 64, 128, 256, 512, 1024]


def test_the_bound_is_the_slowest_of_three():
    chip = chips.Chip("x", 1.0, flops=100.0, hbm=10.0, ici=2.0, source="")
    work = dict(model_flops=60.0, executed_flops=80.0, traffic=4.0, sent=1.0)
    found = roofline.bound(chip, **work)
    assert (found.seconds, found.limit, found.mfu) == (0.8, "compute", pytest.approx(0.75))
    found = roofline.bound(chip, **{**work, "sent": 4.0})
    assert (found.seconds, found.limit, found.mfu) == (2.0, "links", pytest.approx(0.3))
    found = roofline.bound(chip, **{**work, "traffic": 40.0})
    assert (found.seconds, found.limit) == (4.0, "memory")


@pytest.mark.parametrize("limit", [0, 7, 8, 100, 1000, 5000, 10**6])
@pytest.mark.parametrize("start", [8, 128, 4096])
def test_the_largest_size_that_fits(limit, start):
    tried = []

    def fits(n):
        tried.append(n)
        return n <= limit

    found = largest.search(fits, start, unit=8, most=20_000)
    assert found % 8 == 0 and found <= min(limit, 20_000)
    assert len(tried) == len(set(tried)) and all(n % 8 == 0 for n in tried)
    # One more sixteenth does not fit, or there are no more samples.
    best = min(limit, 20_000) // 8 * 8
    assert found == best or (best - found) <= max(8, found / 16)


def test_the_compilers_list_of_buffers_is_one_line():
    message = """RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. \
Used 20.50G of 15.75G hbm.

Total hbm usage >= 20.75G:
    program   20.50G

Largest program allocations in hbm:

  1. Size: 512.00M
     Operator: op_name="jit(step)/vit/blocks/ffn/up/dot_general"
     Shape: bf16[64,257,5120]{2,1,0:T(8,128)(2,1)}
     Unpadded size: 510.00M
     ==========================
  2. Size: 8.00G
     Operator: op_name="jit(step)/vit/blocks/attention/softmax"
     Shape: f32[64,16,257,257]{3,2,1,0:T(8,128)}
     ==========================
  3. Size: 1.50G
     Shape: f32[64,257,1280]{2,1,0}
  4. Size: 16.0K
     Shape: f32[1280]{0}
"""
    line = memory.out_of_memory(message, [])
    assert "\n" not in line and "needs 20.50G of 15.75G" in line
    sizes = ["8.00 GiB f32[64,16,257,257] (attention/softmax)", "1.50 GiB f32[64,257,1280]"]
    assert ", ".join([*sizes, "0.50 GiB bf16[64,257,5120] (up/dot_general)"]) in line
    assert "f32[1280]" not in line
    assert all(name in line for name in ("mesh.fsdp", "train.microbatches", "encoder.remat"))


def test_where_the_compiler_lists_no_buffer_the_traced_ones_are_told():
    message = (
        "RESOURCE_EXHAUSTED: E1000: out of memory on HBM, the total memory required for HLO "
        "temporaries (32.00G) exceeds available HBM (15.75G).\nSee a page."
    )
    fn = lambda x: jnp.sum(jnp.sin(x)[:, None] * jnp.ones((1, 3)))
    x = jax.ShapeDtypeStruct((2**28,), jnp.float32)
    arrays = memory.largest_arrays(jax.make_jaxpr(fn)(x).jaxpr, devices=2)
    assert arrays[0].bytes == 3 * 2**28 * 4 / 2
    line = memory.out_of_memory(message, arrays)
    assert "\n" not in line and "needs 32.00G of 15.75G" in line
    assert "1.50 GiB float32[268435456,3]" in line
