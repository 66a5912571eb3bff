"""Compiled programs as text: loops, collectives, products, traffic."""

# ruff: noqa: E501 (the text of compilers has long lines)

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxssl.plan import collectives
from jaxssl.plan.flops import count
from jaxssl.plan.hlo import Module

# Loops, fusions and tuples as compilers write them; 8 devices.
TEXT = """HloModule step, is_scheduled=true

%body (p: (s32[], f32[64,32])) -> (s32[], f32[64,32]) {
  %p = (s32[], f32[64,32]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %w = f32[8,32]{1,0} get-tuple-element(%p), index=1
  %all-gather.1 = f32[64,32]{1,0} all-gather(%w), channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}, metadata={op_name="jit(step)/blocks/qkv" stack_frame_id=1}
  ROOT %t = (s32[], f32[64,32]{1,0}) tuple(%i, %all-gather.1)
}

%condition (p: (s32[], f32[64,32])) -> pred[] {
  %p = (s32[], f32[64,32]{1,0}) parameter(0)
  %limit = s32[]{:T(128)} constant(12)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%all-reduce-scatter.2 (p: f32[64,32]) -> f32[8,32] {
  %p = f32[64,32]{1,0} parameter(0)
  %all-reduce.5 = f32[64,32]{1,0} all-reduce(%p), channel_id=2, replica_groups=[1,8]<=[8], to_apply=%add
  ROOT %slice = f32[8,32]{1,0} dynamic-slice(%all-reduce.5, %p), dynamic_slice_sizes={8,32}
}

ENTRY %main (a: f32[64,32]) -> f32[64,32] {
  %a = f32[64,32]{1,0:T(8,128)} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[64,32]{1,0}) tuple(%zero, %a)
  %while.1 = (s32[], f32[64,32]{1,0}) while(%start), condition=%condition, body=%body
  %while.2 = (s32[], f32[64,32]{1,0}) while(%start), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %scattered = f32[8,32]{1,0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.2
  %all-reduce-start.1 = (bf16[100]{0}, bf16[100]{0}) all-reduce-start(%a, %a), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  %all-reduce-done.1 = (bf16[100]{0}, bf16[100]{0}) all-reduce-done(%all-reduce-start.1)
  %collective-permute-start.1 = (f32[64,32]{1,0}, f32[64,32]{1,0}, u32[], u32[]) collective-permute-start(%a), source_target_pairs={{0,1}}
  %collective-permute-done.1 = f32[64,32]{1,0} collective-permute-done(%collective-permute-start.1)
  %all-gather-start.9 = (f32[8,32]{1,0}, f32[64,32]{1,0}) all-gather-start(%scattered), replica_groups=mesh['axis_0'=2,'axis_1'=8] {'axis_1'}, dimensions={0}
  ROOT %all-gather-done.9 = f32[64,32]{1,0} all-gather-done(%all-gather-start.9)
}
"""


def test_collectives_of_a_text():
    whole, share = 64 * 32 * 4, 7 / 8
    found = collectives.by_kind(collectives.find(Module(TEXT), 8))
    # 12 turns from the condition, 3 from the known count, and one begun and ended outside.
    assert found["all-gather"] == {"count": 16, "bytes": pytest.approx(16 * share * whole)}
    # An all-reduce and a slice of it in one fusion are a reduce-scatter.
    assert found["reduce-scatter"] == {"count": 1, "bytes": pytest.approx(share * whole)}
    assert found["all-reduce"]["count"] == 1
    assert found["collective-permute"] == {"count": 1, "bytes": whole}
    assert "all-to-all" not in found


CHAIN = """HloModule step, is_scheduled=true

%begun (p: f32[8,32]) -> f32[64,32] {
  %p = f32[8,32]{1,0} parameter(0)
  ROOT %all-gather.1 = f32[64,32]{1,0} all-gather(%p), channel_id=7, replica_groups=[1,8]<=[8], dimensions={0}, frontend_attributes={chain_id="0"}
}

%beside (p: f32[8,32]) -> f32[64,32] {
  %p = f32[8,32]{1,0} parameter(0)
  ROOT %all-gather.2 = f32[64,32]{1,0} all-gather(%p), channel_id=7, replica_groups=[1,8]<=[8], dimensions={0}, frontend_attributes={chain_id="0"}
}

%body (p: (s32[], f32[8,32])) -> (s32[], f32[8,32]) {
  %p = (s32[], f32[8,32]{1,0}) parameter(0)
  %w = f32[8,32]{1,0} get-tuple-element(%p), index=1
  %part = f32[64,32]{1,0} fusion(%w), kind=kCustom, calls=%beside
  ROOT %t = (s32[], f32[8,32]{1,0}) tuple(%p, %w)
}

%condition (p: (s32[], f32[8,32])) -> pred[] {
  ROOT %p = pred[] parameter(0)
}

ENTRY %main (a: f32[8,32]) -> f32[64,32] {
  %a = f32[8,32]{1,0} parameter(0)
  %begin = f32[64,32]{1,0} fusion(%a), kind=kCustom, calls=%begun
  %start = (s32[], f32[8,32]{1,0}) tuple(%a, %a)
  %while.1 = (s32[], f32[8,32]{1,0}) while(%start), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %other = f32[64,32]{1,0} all-gather(%a), channel_id=8, replica_groups=[1,8]<=[8], dimensions={0}
}
"""


def test_a_collective_that_is_spread_over_fusions_is_one():
    found = collectives.by_kind(collectives.find(Module(CHAIN), 8))
    assert found["all-gather"] == {"count": 2, "bytes": pytest.approx(2 * 7 / 8 * 64 * 32 * 4)}


def test_the_largest_collectives_are_named_by_what_they_serve():
    first = collectives.largest(collectives.find(Module(TEXT), 8))[0]
    assert first["source"] == "jit(step)/blocks/qkv" and first["count"] == 15


def test_a_loop_that_is_unrolled_counts_in_strides():
    strides = "%two = s32[] constant(2)\n  %next = s32[] add(%i, %two)\n  ROOT %t"
    text = TEXT.replace("ROOT %t", strides, 1).replace("tuple(%i,", "tuple(%next,")
    assert text.count("%next") == 2
    found = collectives.by_kind(collectives.find(Module(text), 8))
    assert found["all-gather"]["count"] == 12 // 2 + 3 + 1


def test_a_loop_of_unknown_length_is_counted_once_and_named():
    text = TEXT.replace("constant(12)", "parameter(1)")
    module = Module(text)
    found = collectives.by_kind(collectives.find(module, 8))
    assert found["all-gather"]["count"] == 1 + 3 + 1
    assert module.unknown_loops == ["while.1"]


@pytest.mark.parametrize(
    "groups, size",
    [
        ("{{0,2,4},{1,3,5}}", 3),
        ("[4,2]<=[2,4]T(1,0)", 2),
        ("mesh['axis_0'=32,'axis_1'=8] {'axis_0'}", 32),
        ("mesh['a'=4,'b'=8] {'a','b':(2)4}", 16),
        ("{}", 8),
    ],
)
def test_group_sizes(groups, size):
    assert collectives.group_size(f", replica_groups={groups}, dimensions={{0}}", 8) == size


def test_the_least_that_sharded_params_must_send():
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))
    shapes = {"split": jax.ShapeDtypeStruct((16, 4), jnp.float32)}
    shapes["whole"] = jax.ShapeDtypeStruct((100,), jnp.float32)
    split = {"split": NamedSharding(mesh, P("fsdp")), "whole": NamedSharding(mesh, P())}
    state, shardings = (
        SimpleNamespace(params=tree, teachers={"ema": tree["split"]}) for tree in (shapes, split)
    )
    # Params: gathered twice, gradients scattered; the teacher gathered once.
    assert collectives.fsdp_minimum(state, shardings, 2) == pytest.approx(4 * 64 * 2 * 7 / 8)


@pytest.fixture(scope="module")
def scanned():
    """A gradient through scanned layers whose params are split over 8 devices, compiled here."""
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))

    def loss(ws, x):
        body = lambda x, w: (jnp.tanh(x @ w), None)
        return jnp.mean(jax.lax.scan(body, x, ws)[0] ** 2)

    place = lambda *sizes, spec: jax.ShapeDtypeStruct(
        sizes, jnp.float32, sharding=NamedSharding(mesh, spec)
    )
    args = place(5, 16, 16, spec=P(None, "fsdp")), place(32, 16, spec=P("fsdp"))
    fn = jax.grad(loss)
    return Module(jax.jit(fn).lower(*args).compile().as_text()), count(fn, *args).model


def test_the_compiled_products_of_all_devices_are_those_of_the_trace(scanned):
    module, traced = scanned
    assert traced == 5 * 2 * 32 * 16 * 16 * 3
    assert module.product_flops() * 8 == pytest.approx(traced, rel=0.15)


def test_the_collectives_of_scanned_layers_are_counted_for_each(scanned):
    found = collectives.find(scanned[0], 8)
    assert sum(c.times for c in found) >= 5
    assert not scanned[0].unknown_loops


def test_traffic_of_a_slice_is_that_of_the_slice():
    text = """HloModule m
ENTRY %main (a: f32[1000,8], i: s32[]) -> f32[1,8] {
  %a = f32[1000,8]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %b = f32[1000,8]{1,0:T(8,128)S(1)} copy(%a)
  ROOT %s = f32[1,8]{1,0} dynamic-slice(%a, %i, %i), dynamic_slice_sizes={1,8}
}
"""
    # The copy reads all and writes to on-chip memory; the slice reads and writes a row.
    assert Module(text).traffic() == 1000 * 8 * 4 + 2 * 8 * 4


def test_products_as_convolutions_of_a_window():
    """A batch of matrix products, as compilers for TPUs write it: 3 of [5, 7] x [7, 11]."""
    text = """HloModule m
ENTRY %main (a: f32[3,5,7], b: f32[3,7,11]) -> f32[3,5,11] {
  %a = f32[3,5,7]{2,1,0} parameter(0)
  %b = f32[3,7,11]{2,1,0} parameter(1)
  ROOT %c = f32[3,5,11]{2,1,0} convolution(%a, %b), window={size=3 stride=2 lhs_dilate=3}, dim_labels=0bf_0io->0bf, metadata={op_name="x"}
}
"""
    assert Module(text).product_flops() == 3 * 2 * 5 * 7 * 11


def test_a_dot_names_what_it_contracts():
    compiled = jax.jit(lambda a, b: jnp.einsum("bij,bjk->bik", a, b)).lower(
        np.ones((2, 3, 4), np.float32), np.ones((2, 4, 5), np.float32)
    )
    assert Module(compiled.compile().as_text()).product_flops() == 2 * 2 * 3 * 4 * 5
