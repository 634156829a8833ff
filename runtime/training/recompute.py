"""Less memory for more time: what lies within a segment of the forward pass is computed again when its gradients are.

The forward pass is cut into about as many segments as the root of its layers, each of as many numbers, where little
flows across (Chen et al. 2016, "Training deep nets with sublinear memory cost"). What crosses is kept. Of all else the
gradients read a second copy, which begins from what crosses, and only once the derivative has arrived at the segment's
end: nothing, taken from that derivative, is added to what the copy reads, so that a runtime neither computes it early
nor takes it for the first one.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.graph import Graph, Node, Value
from ...ir.ops import LAYERS
from ...ir.types import DType

OPEN = 1
"""What an open size counts as: the samples, as a rule."""


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Nodes of the forward pass, in order; `end` is what the last of them makes."""

    nodes: tuple[Node, ...]
    end: Value


def segments(graph: Graph, loss: Value) -> list[Segment]:
    """The segments of what `loss` is computed from, but for the last, whose values are needed at once."""
    nodes = _before(graph, loss)
    place = {node: i for i, node in enumerate(nodes)}
    crossing = _crossing(nodes, place)
    sums = list(itertools.accumulate(sum(_size(value) for value in node.outputs) for node in nodes))
    count = math.isqrt(sum(node.op in LAYERS for node in nodes))
    cut: list[int] = []
    for i in range(1, count):
        low, high = (bisect.bisect_left(sums, sums[-1] * (i + shift) / count) for shift in (-0.5, 0.5))
        fit = [p for p in range(max(low, cut[-1] + 1 if cut else 0), high) if _ends(nodes[p])]
        if fit:
            cut.append(min(fit, key=lambda p: (crossing[p], -p)))
    starts = [0, *(p + 1 for p in cut)]
    return [Segment(tuple(nodes[start : p + 1]), nodes[p].output) for start, p in zip(starts, cut)]


def recompute(graph: Graph, loss: Value, parts: Sequence[Segment], arrived: Mapping[Value, Value]) -> int:
    """Let the gradients in `graph` read copies of what lies within `parts`; returns how many nodes have one.

    `arrived` are the derivatives at the ends of the segments; a segment without one stays as it is.
    """
    forward = set(_before(graph, loss))
    count = 0
    for part in parts:
        if part.end in arrived:
            count += _Copying(graph, forward, part, arrived[part.end]).run()
    graph.sweep()
    graph.sort()
    return count


class _Copying:
    def __init__(self, graph: Graph, forward: set[Node], part: Segment, derivative: Value) -> None:
        self.graph = graph
        self.forward = forward
        self.nodes = [node for node in part.nodes if node.graph is graph and not node.bodies]
        self.inside = set(self.nodes)
        self.copies: dict[Value, Value] = {}
        self.derivative = derivative
        self.last = derivative.producer
        """The node behind which the next one stands: all do behind what computes the derivative, and before what reads
        them."""
        self.nothing: Value | None = None

    def run(self) -> int:
        hidden = [v for node in self.nodes for v in node.outputs if self._hidden(v)]
        for node in self.nodes:
            self._copy(node)
        for value in hidden:
            for use in tuple(value.uses):
                user, index = use
                if isinstance(user, Node) and user not in self.forward and user.graph is self.graph:
                    user.set_input(index, self.copies[value])
        return len(hidden)

    def _hidden(self, value: Value) -> bool:
        """Whether a value is read within the segment alone, and by gradients."""
        mine = all(user in self.inside for user in value.users if user in self.forward)
        return mine and not value.is_output and any(user not in self.forward for user in value.users)

    def _copy(self, node: Node) -> None:
        inputs = [None if value is None else self._read(value) for value in node.inputs]
        copy = self.last = self.graph.add(
            node.op, inputs, node.attributes, outputs=len(node.outputs), domain=node.domain, origin=node.origin,
            types=[value.type for value in node.outputs], after=self.last,
        )  # fmt: skip
        self.copies.update(zip(node.outputs, copy.outputs))

    def _read(self, value: Value) -> Value:
        """What a copy reads in place of `value`: a copy as well, or what was kept, once the derivative is there."""
        if value in self.copies:
            return self.copies[value]
        kept = value.producer is not None or value in self.graph.inputs
        if not kept or value.dtype is not DType.FLOAT or _is_parameter(value):
            return value
        late = self.copies[value] = self._add("Add", value, self._nothing())
        late.type = value.type
        return late

    def _add(self, op: str, *inputs: Value) -> Value:
        self.last = self.graph.add(op, inputs, after=self.last)
        return self.last.output

    def _nothing(self) -> Value:
        """A zero that is known only when the derivative is."""
        if self.nothing is None:
            first, second, whole = (self.graph.constant(np.array([number], np.int64)) for number in (0, 1, -1))
            one = self._add("Slice", self._add("Reshape", self.derivative, whole), first, second, first)
            self.nothing = self._add("Mul", one, self.graph.constant(np.zeros(1, np.float32)))
        return self.nothing


def _is_parameter(value: Value) -> bool:
    return value.producer is None and value.static_shape is not None


def _before(graph: Graph, loss: Value) -> list[Node]:
    """The nodes that `loss` is computed from, in the order of the graph."""
    needed = {loss}
    nodes = []
    for node in reversed(list(graph)):
        if any(value in needed for value in node.outputs):
            nodes.append(node)
            needed.update(v for v in (*node.inputs, *node.captures) if v is not None)
    return nodes[::-1]


def _crossing(nodes: Sequence[Node], place: Mapping[Node, int]) -> list[int]:
    """After each node, how many numbers of a sample are read again later."""
    change = [0] * (len(nodes) + 1)
    for i, node in enumerate(nodes):
        for value in node.outputs:
            last = max((place[user] for user in value.users if user in place), default=i)
            change[i] += _size(value)
            change[last] -= _size(value)
    totals, total = [], 0
    for one in change[:-1]:
        total += one
        totals.append(total)
    return totals


def _size(value: Value) -> int:
    return math.prod(size if isinstance(size, int) else OPEN for size in value.shape or ())


def _ends(node: Node) -> bool:
    return len(node.outputs) == 1 and node.output.dtype is DType.FLOAT and bool(node.output.shape) and not node.bodies
