"""Blocks: the parts of the student between values through which everything flows, each with its like in the teacher."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from ...ir.clone import clone
from ...ir.graph import Graph, Value
from ...ir.ops import LAYERS
from ...ir.types import DType
from ...ir.view import cut_values

LAYERS_EACH = 3
"""The fewest layers of a block: fewer leave nothing to repair that the walk has not repaired."""
APART = 2
"""The fewest layers between two values that are compared on the way: more hints cost more than they tell."""
LARGEST = 1 << 18
"""Numbers of a sample up to which a value is compared on the way: what is larger takes longer than its layers."""
FED = "optc.block"
"""The input of a part of a graph."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """From value `begin` to `end` of the student, and the same of the teacher; `moving` are the constants between."""

    begin: Value
    end: Value
    taught_begin: Value
    taught_end: Value
    moving: tuple[Value, ...]


def blocks(student: Graph, teacher: Graph, moving: Collection[Value]) -> list[Block]:
    """The blocks of `student`, in order, up to the last value that both have under one name and in one shape.

    None where several inputs flow around each other, and none that holds nothing of `moving`.
    """
    pairs = _shared(student, teacher)
    cuts = {value for value, _ in pairs}
    within: list[Value] = []
    parts: list[Block] = []
    begin, layers = (pairs[0] if pairs and pairs[0][0].producer is None else None), 0
    taught = dict(pairs)
    for node in student:
        layers += node.op in LAYERS
        within += [v for v in node.inputs if v is not None and v in moving]
        if begin is None or node.output not in cuts or layers < LAYERS_EACH:
            continue
        end = node.output
        if within:
            parts.append(Block(begin[0], end, begin[1], taught[end], tuple(dict.fromkeys(within))))
        begin, layers, within = (end, taught[end]), 0, []
    return parts


def landmarks(student: Graph, teacher: Graph) -> list[tuple[Value, Value]]:
    """Feature maps of `student` through which everything flows, each with its like in `teacher`: what the last operator
    before a layer makes, at least `APART` layers after the one before, and of no more than `LARGEST` numbers."""
    taught = dict(_shared(student, teacher))
    marks: list[tuple[Value, Value]] = []
    latest: Value | None = None
    layers = 0
    for node in student:
        if node.op in LAYERS:
            if latest is not None:
                marks.append((latest, taught[latest]))
                latest, layers = None, 0
            layers += 1
        if node.output in taught and layers >= APART and _is_map(node.output):
            latest = node.output
    return marks


def _is_map(value: Value) -> bool:
    sizes = [size for size in (value.shape or ())[1:] if isinstance(size, int)]
    return len(sizes) > 1 and math.prod(sizes) <= LARGEST and not value.is_output


def _shared(student: Graph, teacher: Graph) -> list[tuple[Value, Value]]:
    theirs = {value.name: value for value in cut_values(teacher)}
    return [(v, theirs[v.name]) for v in cut_values(student) if v.name in theirs and _alike(v, theirs[v.name])]


def _alike(value: Value, other: Value) -> bool:
    """Whether both hold floats of one known shape, but for the number of samples."""
    shape, theirs = value.shape, other.shape
    if shape is None or theirs is None or value.dtype is not DType.FLOAT or other.dtype is not DType.FLOAT:
        return False
    return len(shape) > 1 and shape[1:] == theirs[1:] and all(isinstance(size, int) for size in shape[1:])


def part(graph: Graph, begin: Value, end: Value) -> tuple[Graph, dict[Value, Value]]:
    """A copy of what lies between two values of `graph`, which reads the first as its one input `FED` and returns the
    second; and of every value its copy."""
    copies: dict[Value, Value] = {}
    copy = clone(graph, copies)
    for index in reversed(range(len(copy.outputs))):
        copy.remove_output(index)
    fed = copy.add_input(FED, begin.type)
    copies[begin].replace_uses(fed)
    copy.add_output(copies[end], "optc.answer").type = end.type
    copy.sweep()
    for index in reversed(range(len(copy.inputs))):
        if copy.inputs[index] is not fed and not copy.inputs[index].uses:
            copy.remove_input(index)
    return copy, copies
