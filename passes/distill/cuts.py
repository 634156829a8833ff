"""Blocks: the parts of the student between values through which everything flows, each with its like in the teacher."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ...ir.clone import clone
from ...ir.graph import Graph, Value
from ...ir.ops import LAYERS
from ...ir.types import DType
from ...ir.view import cut_values

LAYERS_EACH = 3
"""The fewest layers of a block: fewer leave nothing to repair that the walk has not repaired."""
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
    theirs = {value.name: value for value in cut_values(teacher)}
    pairs = [(v, theirs[v.name]) for v in cut_values(student) if v.name in theirs and _alike(v, theirs[v.name])]
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
