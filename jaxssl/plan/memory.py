"""Bytes on a device: the state's parts, the compiled step's needs, and what did not fit."""

import math
import re
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxssl.plan.flops import programs

PARTS = ("params", "optimizer", "teachers", "extra")
REMEDY = (
    "raise mesh.fsdp or train.microbatches, set encoder.remat=full, or lower train.global_batch"
)
_SCALE = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"([\d.]+)\s*([KMGT]?)(?:i?B)?\b")


class OutOfMemory(RuntimeError):
    """The step does not fit into a device's memory: one line, with the largest buffers."""


class Buffer(NamedTuple):
    """A large array of a program: its bytes on a device, its shape and what makes it."""

    bytes: float
    shape: str
    source: str


def of_state(shapes: Any, shardings: Any) -> dict[str, float]:
    """Bytes on one device of each part of the state."""
    return {part: of_tree(getattr(shapes, part), getattr(shardings, part)) for part in PARTS}


def of_tree(shapes: Any, shardings: Any) -> float:
    """Bytes of a tree on one device."""
    leaves = zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True)
    return float(sum(_bytes(s.shard_shape(x.shape), x.dtype) for x, s in leaves))


def of_step(compiled: Any) -> dict[str, float]:
    """The compiler's own account of one device: arguments, outputs, temporaries, code, peak.

    The peak is all of them less the outputs that take the place of an argument.
    """
    found = compiled.memory_analysis()
    parts = {
        "arguments": float(found.argument_size_in_bytes),
        "outputs": float(found.output_size_in_bytes - found.alias_size_in_bytes),
        "temporaries": float(found.temp_size_in_bytes),
        "code": float(found.generated_code_size_in_bytes),
    }
    return {**parts, "peak": sum(parts.values())}


def is_out_of_memory(error: Exception) -> bool:
    """Whether the compiler says that a program does not fit."""
    return "RESOURCE_EXHAUSTED" in str(error) or "Ran out of memory" in str(error)


def out_of_memory(message: str, traced: list[Buffer]) -> str:
    """One line: what is needed and there, the three largest buffers, and what to change.

    Args:
      message: the compiler's, which may list its largest buffers.
      traced: the largest arrays of the traced program, shown where it lists none.
    """
    needed, there = requirement(message)
    says = f"needs {needed} of {there}" if needed else message.splitlines()[0]
    buffers = listed(message)[:3]
    what = "largest buffers" if buffers else "largest arrays before optimisation"
    text = ", ".join(
        f"{b.bytes / 2**30:.2f} GiB {b.shape}{f' ({b.source})' if b.source else ''}"
        for b in buffers or traced[:3]
    )
    return f"out of memory on a device: {says}; {what}: {text or 'not told'}; {REMEDY}"


def requirement(message: str) -> tuple[str, str]:
    """(what is needed, what there is) as the compiler says it; ("", "") where it does not.

    >>> requirement("total memory required for HLO temporaries (32.00G) exceeds HBM (15.75G)")
    ('32.00G', '15.75G')
    """
    for pattern in (
        r"[Uu]sed ([\d.]+[KMGT]?) of ([\d.]+[KMGT]?) hbm",
        r"required[^()]*\(([\d.]+[KMGT]?)\) exceeds[^()]*\(([\d.]+[KMGT]?)\)",
    ):
        found = re.search(pattern, message)
        if found:
            return found[1], found[2]
    return "", ""


def listed(message: str) -> list[Buffer]:
    """The buffers that an out-of-memory message lists, the largest first."""
    found = []
    for entry in re.split(r"\n\s*\d+\. Size: ", message)[1:]:
        size = _SIZE.match(entry)
        if size is None:
            continue
        shape = re.search(r"Shape: ([a-z]\w*\[[\d,]*\])", entry)
        source = re.search(r'op_name="([^"]*)"', entry) or re.search(r"Operator: (\S+)", entry)
        found.append(
            Buffer(
                float(size[1]) * _SCALE[size[2]],
                shape[1] if shape else "",
                "/".join(source[1].split("/")[-2:]) if source else "",
            )
        )
    return sorted(found, key=lambda b: -b.bytes)


def largest_arrays(jaxpr: Any, devices: int, n: int = 3) -> list[Buffer]:
    """The largest arrays of a traced program as if split over all devices, each shape once."""
    found: dict[str, Buffer] = {}
    for eqn in _equations(jaxpr):
        for out in eqn.outvars:
            aval = out.aval
            if not hasattr(aval, "shape") or not hasattr(aval.dtype, "itemsize"):
                continue
            shape = f"{aval.dtype.name}[{','.join(map(str, aval.shape))}]"
            size = _bytes(aval.shape, aval.dtype) / devices
            found.setdefault(shape, Buffer(size, shape, eqn.primitive.name))
    return sorted(found.values(), key=lambda b: -b.bytes)[:n]


def _equations(jaxpr: Any) -> Any:
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in programs(eqn):
            yield from _equations(inner)


def _bytes(shape: tuple[int, ...], dtype: Any) -> int:
    # A key is its raw words.
    size = np.dtype(dtype).itemsize if not jax.dtypes.issubdtype(dtype, jax.dtypes.extended) else 8
    return math.prod(shape) * size
