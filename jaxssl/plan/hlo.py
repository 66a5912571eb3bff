"""A compiled program's text: its instructions, how often each runs, its products and traffic."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from jaxssl.plan.flops import taps

BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2}
BYTES |= {"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16}
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](\{[^{}]*\})?")
_SLICING = ("dynamic-slice", "slice", "gather")
# These move nothing: they name what is there, or wait for what another instruction began.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional"}
_FREE |= {"partition-id", "replica-id", "iota", "call", "after-all", "opt-barrier"}


class Array(NamedTuple):
    """One array of a shape: its element type, sizes, and whether it lies in on-chip memory."""

    dtype: str
    shape: tuple[int, ...]
    on_chip: bool

    @property
    def bytes(self) -> float:
        """Its size; padding of tiles is not seen."""
        return math.prod(self.shape) * BYTES.get(self.dtype, 0)


class Instruction(NamedTuple):
    """One line of the text."""

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str

    def attribute(self, pattern: str) -> str:
        """The first group of a regular expression in the attributes; "" where there is none."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else ""


class Run(NamedTuple):
    """An instruction, how often a step runs it, and the computation that holds it."""

    instruction: Instruction
    times: int
    computation: str


class Module:
    """The text of a compiled program, as one device runs it.

    Args:
      text: what `compiled.as_text()` gives.

    Attributes:
      computations: name -> its instructions by name.
      entry: the name of the first.
      unknown_loops: names of loops whose number of turns the text does not tell; one is counted.
    """

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        self.unknown_loops: list[str] = []
        inside = ""
        for line in text.splitlines():
            header = _HEADER.match(line)
            if header:
                inside = header[2]
                self.computations[inside] = {}
                self.entry = inside if header[1] else self.entry
            elif inside and (found := _LINE.match(line)):
                instruction = _instruction(found)
                self.computations[inside][instruction.name] = instruction
            elif line.startswith("}"):
                inside = ""

    def runs(self, fused: bool = True) -> Iterator[Run]:
        """Every instruction of a step, loops multiplied; those inside fusions where `fused`."""
        self.unknown_loops = []
        yield from self._runs(self.entry, 1, fused)

    def _runs(self, name: str, times: int, fused: bool) -> Iterator[Run]:
        for x in self.computations.get(name, {}).values():
            yield Run(x, times, name)
            if x.opcode == "while":
                yield from self._runs(
                    x.attribute(r"body=%?([\w.\-]+)"), times * self._turns(x), fused
                )
            elif x.opcode == "conditional":
                for branch in _branches(x):
                    yield from self._runs(branch, times, fused)
            elif x.opcode == "call":
                yield from self._runs(x.attribute(r"to_apply=%?([\w.\-]+)"), times, fused)
            elif fused or x.opcode == "async-start":
                yield from self._runs(x.attribute(r"calls=%?([\w.\-]+)"), times, fused)

    def _turns(self, loop: Instruction) -> int:
        known = loop.attribute(r'known_trip_count"?:\{"?n"?:"?(\d+)')
        if known:
            return int(known)
        # A loop counts from 0 up to the one whole number of its condition, by what the body adds.
        condition = self.computations.get(loop.attribute(r"condition=%?([\w.\-]+)"), {}).values()
        limits = [x for x in condition if x.opcode == "constant" and x.arrays[0].shape == ()]
        if len(limits) == 1 and limits[0].operands and limits[0].operands[0].isdecimal():
            body = self.computations.get(loop.attribute(r"body=%?([\w.\-]+)"), {})
            places = [x.attribute(r"index=(\d+)") for x in condition]
            return -(-int(limits[0].operands[0]) // _stride(body, [int(p) for p in places if p]))
        self.unknown_loops.append(loop.name)
        return 1

    def product_flops(self) -> float:
        """FLOPs of matrix products and convolutions that one device executes in a step."""
        return sum(
            run.times * self._product(run.instruction, run.computation)
            for run in self.runs()
            if run.instruction.opcode in ("dot", "convolution")
        )

    def _product(self, x: Instruction, computation: str) -> float:
        known = self.computations[computation]
        left, right = (known[name].arrays[0].shape for name in x.operands[:2])
        out = x.arrays[0].shape
        if x.opcode == "dot":
            over = x.attribute(r"lhs_contracting_dims=\{([\d,]*)\}")
            return 2.0 * math.prod(out) * math.prod(left[int(i)] for i in over.split(",") if i)
        labels = re.split("_|->", x.attribute(r"dim_labels=(\S+?),?(?:\s|$)"))
        at = lambda shape, which, name: shape[labels[which].index(name)]
        pairs = 1.0
        window = lambda field, axis, default: _of_axis(x, field, axis, default)
        for axis in range(sum(name.isdigit() for name in labels[2])):
            pairs *= taps(
                size=at(left, 0, str(axis)),
                kernel=at(right, 1, str(axis)),
                out=at(out, 2, str(axis)),
                stride=int(window("stride", axis, "1")),
                low=int(window("pad", axis, "0_0").split("_")[0]),
                dilation=int(window("lhs_dilate", axis, "1")),
                kernel_dilation=int(window("rhs_dilate", axis, "1")),
            )
        return 2.0 * at(out, 2, "b") * at(out, 2, "f") * at(right, 1, "i") * pairs

    def traffic(self) -> float:
        """Bytes that one device reads from and writes to its main memory in a step: an estimate.

        Each instruction, a fusion being one, reads its operands and writes its outputs, but for
        those that the compiler put into on-chip memory; slices read and write their own size.
        """
        total = 0.0
        for x, times, computation in self.runs(fused=False):
            if x.opcode not in _FREE and not x.opcode.endswith("-done"):
                total += times * self._moved(x, self.computations[computation])
        return total

    def _moved(self, x: Instruction, known: dict[str, Instruction]) -> float:
        if x.opcode.endswith("-start"):  # a copy or slice between memories: to, from, context
            return _outside(x.arrays[:1]) + _outside(x.arrays[1:2])
        read = [_outside(known[name].arrays) if name in known else 0.0 for name in x.operands]
        written = _outside(x.arrays)
        if x.opcode in _SLICING:
            return written + min(read[0], _size(x.arrays)) if read else written
        if x.opcode == "dynamic-update-slice":
            update = known[x.operands[1]].arrays if x.operands[1] in known else ()
            return read[1] + min(written, _size(update))
        body = self.computations.get(x.attribute(r"calls=%?([\w.\-]+)"), {})
        for i, part in _slices_of_parameters(body).items():
            if i < len(read):
                read[i] = min(read[i], part)
        updates = [y for y in body.values() if y.opcode == "dynamic-update-slice"]
        if updates:  # in place: what is written is the update
            whole = sum(_size(y.arrays) for y in updates)
            part = sum(_size(body[y.operands[1]].arrays) for y in updates if y.operands[1] in body)
            written = max(0.0, written - whole) + min(written, part)
        return sum(read) + written


def arrays(text: str) -> tuple[Array, ...]:
    """The arrays of a shape, a tuple's one after the other.

    >>> [a.bytes for a in arrays("(f32[2,3]{1,0}, bf16[4]{0:T(8)S(1)})")]
    [24, 8]
    """
    return tuple(
        Array(dtype, tuple(int(n) for n in sizes.split(",") if n), "S(1)" in layout)
        for dtype, sizes, layout in _ARRAY.findall(text)
        if dtype in BYTES
    )


def _instruction(found: re.Match[str]) -> Instruction:
    name, shape, opcode, rest = found.groups()
    depth, end = 1, len(rest)
    for i, c in enumerate(rest):
        depth += (c == "(") - (c == ")")
        if not depth:
            end = i
            break
    inside = rest[:end]
    # An operand may have its shape before its name; a constant and a parameter hold a number.
    names = re.findall(r"%([\w.\-]+)", inside) or [inside.split(" ")[-1]]
    return Instruction(name, arrays(shape), opcode, tuple(names), rest[end + 1 :])


def _branches(x: Instruction) -> list[str]:
    listed = x.attribute(r"branch_computations=\{([^}]*)\}")
    if listed:
        return [name.strip().lstrip("%") for name in listed.split(",")]
    return re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", x.attributes)


def _stride(body: dict[str, Instruction], places: list[int]) -> int:
    """What a turn adds to the counter, at the one place of the carry that the condition reads."""
    result = list(body.values())[-1:]
    if len(places) != 1 or not result or len(result[0].operands) <= places[0]:
        return 1
    counter = body.get(result[0].operands[places[0]])
    if counter is None or counter.opcode != "add":
        return 1
    terms = [body[name] for name in counter.operands if name in body]
    added = [x.operands[0] for x in terms if x.opcode == "constant"]
    return int(added[0]) if len(added) == 1 and added[0].isdecimal() and int(added[0]) else 1


def _of_axis(x: Instruction, field: str, axis: int, default: str) -> str:
    values = x.attribute(rf"window=\{{[^}}]*\b{field}=([\w\-]+)")
    return values.split("x")[axis] if values else default


def _outside(found: tuple[Array, ...]) -> float:
    return sum(a.bytes for a in found if not a.on_chip)


def _size(found: tuple[Array, ...]) -> float:
    return sum(a.bytes for a in found)


def _slices_of_parameters(body: dict[str, Instruction]) -> dict[int, float]:
    """Parameters of a fusion that it reads or updates in slices alone -> the bytes of those."""
    found: dict[int, float] = {}
    for parameter in body.values():
        if parameter.opcode != "parameter":
            continue
        users = [y for y in body.values() if parameter.name in y.operands]
        parts = []
        for y in users:
            if y.opcode in _SLICING and y.operands[0] == parameter.name:
                parts.append(_size(y.arrays))
            elif y.opcode == "dynamic-update-slice" and y.operands[0] == parameter.name:
                parts.append(0.0)
        if users and len(parts) == len(users):
            found[int(parameter.operands[0])] = sum(parts)
    return found
