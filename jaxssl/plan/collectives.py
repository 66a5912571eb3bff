"""What chips send to each other in a step, read off the compiled program."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from jaxssl.plan.hlo import Instruction, Module

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")


class Collective(NamedTuple):
    """One collective of the program.

    Attributes:
      kind: of `KINDS`.
      times: how often a step runs it.
      bytes: that a device sends, and receives, each time.
      group: how many devices take part together.
      source: the operation of the model that it serves, as the compiler names it.
    """

    kind: str
    times: int
    bytes: float
    group: int
    source: str


def find(module: Module, devices: int) -> list[Collective]:
    """Every collective of a compiled program, those inside loops with their turns.

    A device of a group of k sends, of an array of n bytes whole: (k - 1) / k n to gather or to
    reduce-scatter it or to exchange its parts, twice that to all-reduce it, n to permute it.
    """
    found = []
    chains: dict[tuple[str, str], Collective] = {}
    for run in module.runs():
        x = run.instruction
        kind = x.opcode.removesuffix("-start").removeprefix("ragged-")
        if kind not in KINDS:
            continue
        # Compilers for TPUs write a reduce-scatter as a fusion of an all-reduce and a slice.
        if kind == "all-reduce" and re.match(r"all[-_]reduce[-_]scatter", run.computation):
            kind = "reduce-scatter"
        group = group_size(x.attributes, devices)
        size = _whole(module, run.computation, x, kind)
        share = (group - 1) / group
        each = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(kind, share) * size
        source = x.attribute(r'op_name="([^"]*)"')
        one = Collective(kind, run.times, each, group, source)
        # Compilers for TPUs spread one over several fusions, to be done beside their work, some of
        # them in loops of their own: a chain of instructions with one channel.
        chain = x.attribute(r'chain_id="(\d+)"'), x.attribute(r"channel_id=(\d+)")
        if all(chain):
            least = min(chains.get(chain, one).times, one.times)
            one = one._replace(times=least)
            chains[chain] = one
        else:
            found.append(one)
    return found + list(chains.values())


def group_size(attributes: str, devices: int) -> int:
    """How many devices take part in a collective together, from its `replica_groups`.

    >>> [group_size(f"replica_groups={g}", 8) for g in ("{{0,1},{2,3}}", "[2,4]<=[8]", "{}")]
    [2, 4, 8]
    """
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", attributes)
    if listed:
        return len(listed[1].split(","))
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]<=", attributes)
    if iota:
        return int(iota[2])
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", attributes)
    if mesh:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        # An axis, or a part of one: 'x' or 'x':(before)size.
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part or sizes[name]) for name, part in axes)
    return devices


def _whole(module: Module, computation: str, x: Instruction, kind: str) -> float:
    """Bytes of the whole array: of an output, but of a reduce-scatter of what goes in."""
    known = module.computations[computation]
    inputs = [a for name in x.operands if name in known for a in known[name].arrays]
    if kind == "reduce-scatter" or not x.opcode.endswith("-start"):
        arrays: Sequence[Any] = inputs if kind == "reduce-scatter" and inputs else x.arrays
        return float(sum(a.bytes for a in arrays))
    # The output of a start holds what goes in and what comes out.
    if kind == "all-reduce" or kind == "all-to-all":
        return float(sum(a.bytes for a in inputs))
    return (
        float(max(a.bytes for a in x.arrays))
        if len(inputs) < 2
        else float(sum(a.bytes for a in x.arrays) - sum(a.bytes for a in inputs))
    )


def by_kind(found: Sequence[Collective]) -> dict[str, dict[str, float]]:
    """kind -> how often a step runs one, and the bytes a device sends for them."""
    return {
        kind: {
            "count": sum(c.times for c in found if c.kind == kind),
            "bytes": sum(c.times * c.bytes for c in found if c.kind == kind),
        }
        for kind in KINDS
        if any(c.kind == kind for c in found)
    }


def largest(found: Sequence[Collective], n: int = 5) -> list[dict[str, Any]]:
    """The `n` that send the most in a step, calls from one place together."""
    places: dict[tuple[str, str], list[Collective]] = {}
    for c in found:
        places.setdefault((c.kind, c.source), []).append(c)
    rows = [
        {
            "kind": kind,
            "source": source,
            "count": sum(c.times for c in cs),
            "bytes": sum(c.times * c.bytes for c in cs),
        }
        for (kind, source), cs in places.items()
    ]
    return sorted(rows, key=lambda row: -float(row["bytes"]))[:n]


def fsdp_minimum(state: Any, shardings: Any, bytes_per_number: int) -> float:
    """Bytes that a device must send where params are split.

    Each is gathered twice, for the forward and for the backward pass, and its gradient is
    scattered; what teachers hold is gathered once. Leaves that are not split count nothing.

    Args:
      state: shapes of params and teachers.
      shardings: of the state.
      bytes_per_number: as they are sent.
    """
    total = 0.0
    for times, part, split in (
        (3, state.params, shardings.params),
        (1, state.teachers, shardings.teachers),
    ):
        for leaf, sharding in zip(jax.tree.leaves(part), jax.tree.leaves(split), strict=True):
            shards = math.prod(leaf.shape) // max(1, math.prod(sharding.shard_shape(leaf.shape)))
            total += times * math.prod(leaf.shape) * bytes_per_number * (shards - 1) / shards
    return total
