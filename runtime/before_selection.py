"""What a selection selects from: values of their own, on which a student is judged before rows are picked.

NonMaxSuppression, TopK and the like make a step out of every small change: a score that moves by a thousandth moves a
row past the threshold, or past another row. What they read changes as little as the student does, and of every row. So
where the student is a graph that holds these values too, they are judged as outputs are, slice by slice, and the
selection, which is the same in both, is not. Where it does not, rows are matched (`rows.py`).

The values are those that nodes behind a selection, and the selections themselves, read of what comes before: scores,
boxes that are gathered later. A condition is followed back to the numbers that are compared in it, and a class to the
scores that it is the largest of.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir.graph import Graph, Node, Value
from .columns import Array
from .rows import picking

_FOLLOWED = frozenset(
    {
        "And", "ArgMax", "Cast", "Equal", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Not", "Or",
        "Reshape", "Squeeze", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""What makes conditions and classes of numbers."""


def selected_from(teacher: Graph, student: Graph) -> tuple[list[Value], list[Value]] | None:
    """The values that selections in `teacher` select from, and those of `student`; `None` where either cannot be told,
    or there is no selection."""
    before = _read_of(teacher)
    if not before:
        return None
    named = {value.name: value for node in student for value in node.outputs}
    after = [_counterpart(value, named) for value in before]
    present = [value for value in after if value is not None]
    return (before, present) if len(present) == len(before) else None


def _read_of(graph: Graph) -> list[Value]:
    """What nodes that select, and those behind them, read of what comes before, as numbers; none where some of it is no
    number."""
    data, behind = picking(graph)
    values: dict[Value, None] = {}
    for node, picks in behind.items():
        if not picks:
            continue
        for value in node.inputs:
            maker = None if value is None else value.producer
            if value is None or maker is None or not data.get(maker, False) or behind.get(maker, False):
                continue
            numbers = _numbers(value, data)
            if numbers is None:
                return []
            values.update(dict.fromkeys(numbers))
    return list(values)


def _numbers(value: Value, data: dict[Node, bool]) -> list[Value] | None:
    if value.dtype is not None and value.dtype.is_float:
        return [value]
    maker = value.producer
    if maker is None or maker.op not in _FOLLOWED or maker.domain:
        return None
    numbers: list[Value] = []
    for read in maker.inputs:
        if read is None or read.producer is None or not data.get(read.producer, False):
            continue
        part = _numbers(read, data)
        if part is None:
            return None
        numbers += part
    return numbers


def _counterpart(value: Value, named: dict[str, Value]) -> Value | None:
    """What the readers of `value` read in the student; `None` where that is no number, or another kind of value."""
    other = named.get(value.name)
    if other is None or other.dtype is not value.dtype:
        return None
    codes = [user for user in other.users if user.op == "QuantizeLinear"]
    if not codes:
        return other
    readers = codes[0].output.users
    return readers[0].output if len(codes) == 1 and all(u.op == "DequantizeLinear" for u in readers) else None


def as_table(arrays: Sequence[Array]) -> Array | None:
    """Of tensors that say something of the same rows, boxes and scores of one sample, one (1, rows, columns): so boxes
    are judged where there is a score. `None` for a single tensor, and for those that have no rows in common."""
    flat = [array.reshape([size for size in array.shape if size != 1] or [1]) for array in arrays]
    common = set.intersection(*(set(array.shape) for array in flat)) if len(flat) > 1 else set()
    rows = max(common, default=0)
    columns = [a.reshape(-1, 1) if a.ndim == 1 else a.T if a.shape[0] != rows else a for a in flat]
    if not common or any(a.ndim != 2 or len(a) != rows or a.dtype.kind != "f" for a in columns):
        return None
    return np.concatenate(columns, axis=1)[None]


def both(graph: Graph, values: Sequence[Value]) -> list[Value]:
    """The outputs of `graph`, and `values` behind them."""
    return [*(output.value for output in graph.outputs), *values]
