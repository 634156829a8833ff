"""Which rows of a layer stand for the same thing in the teacher and in the student.

Where a network selects rows by what it computes (experts by a router, regions by their scores, NonZero), the k-th row
of the teacher and the k-th of the student may be different tokens, or there may be more of the one than of the other.
Rows are paired only where every selection before the layer came out the same; elsewhere the student's rows stand alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ...ir.graph import Graph, Node, Value
from ...ir.ops import SIZES
from ...storage.spill import Data

_SELECTED_BY = {
    "CenterCropPad": (1,), "Compress": (1,), "ConstantOfShape": (0,), "Expand": (1,), "Gather": (1,),
    "GatherElements": (1,), "GatherND": (1,), "If": (0,), "Loop": (0, 1), "OneHot": (1,), "Pad": (1,),
    "Range": (0, 1, 2), "Reshape": (1,), "Resize": (2, 3), "ReverseSequence": (1,), "Slice": (1, 2, 3, 4),
    "Split": (1,), "Tile": (1,), "TopK": (1,), "Upsample": (1,),
}  # fmt: skip
"""The inputs that say which elements an operator takes, or how many."""

_SELECTING = {"NonZero": 0, "NonMaxSuppression": 0, "TopK": 1, "Unique": 1}
"""Operators that select by the values they are given, with the output that tells what."""

_WRITING = frozenset({"ScatterND", "ScatterElements", "Scatter"})
"""Operators whose rows are those of their first input, whatever is written into them."""


def selections(graph: Graph, layers: Iterable[Node]) -> dict[Value, tuple[Value, ...]]:
    """For every value behind a selection that depends on what one of `layers` answers: those selections, in order."""
    rest = set(layers)
    computed: set[Value] = set()  # what layers that may change decide about
    behind: dict[Value, tuple[Value, ...]] = {}
    for node in graph:
        inputs = [v for v in (*node.inputs, *node.captures) if v is not None]
        if node.op in SIZES and not node.domain:
            changes = any(v in behind for v in inputs)
        else:
            changes = node in rest or any(v in computed for v in inputs)
        sources = inputs[:1] if node.op in _WRITING else inputs
        before = dict.fromkeys(choice for v in sources for choice in behind.get(v, ()))
        by = [] if node.domain else [node.input(at) for at in _SELECTED_BY.get(node.op, ())]
        before.update(dict.fromkeys(v for v in by if v is not None and v in computed))
        if changes and node.op in _SELECTING and len(node.outputs) > _SELECTING[node.op]:
            before[node.outputs[_SELECTING[node.op]]] = None
        for value in node.outputs:
            if changes:
                computed.add(value)
            if before:
                behind[value] = tuple(before)
    return behind


def digest(selected: Sequence[Data]) -> bytes:
    """What tells one outcome of selections from another: of their shapes and numbers."""
    state = hashlib.sha256()
    for array in selected:
        state.update(repr((array.shape, array.dtype.str)).encode())
        state.update(np.ascontiguousarray(array).tobytes())
    return state.digest()


class Selections:
    """What the student selected, batch by batch: each selection is looked at once, when it is computed."""

    def __init__(self, behind: Mapping[Value, tuple[Value, ...]]) -> None:
        self._behind = behind
        self._digests: dict[tuple[Value, int], bytes] = {}

    def before(self, value: Value) -> tuple[Value, ...]:
        """The selections before `value`."""
        return self._behind.get(value, ())

    def wanted(self, value: Value) -> list[Value]:
        """Those of them that were not looked at yet."""
        return [choice for choice in self.before(value) if (choice, 0) not in self._digests]

    def take(self, value: Value, batch: int, values: Mapping[Value, Data], *, final: bool = True) -> bytes:
        """The outcome of all selections before `value` in a batch; `values` has those that are `wanted`. What is not
        `final` may change yet, and is looked at again."""
        new = {choice: digest([values[choice]]) for choice in self.before(value) if choice in values}
        if final:
            self._digests.update({(choice, batch): one for choice, one in new.items()})
        return b"".join(new.get(choice) or self._digests[choice, batch] for choice in self.before(value))
