"""Control flow as plain nodes: what a library, which runs one plan, can compute.

    If      both branches are computed, and Where takes the results of the one that was meant
    Scan    the body once for each step
    Loop    the body once for each trip; where the body itself may end the loop, all trips are computed, and values
            stay as they were behind the one that ended it

The same numbers: what is computed and not taken has no effect. Written in forms that operator sets from 11 on have in
common.

Does not fire where the number of trips, or a size, is known only when the model runs, where the body may end a loop
that gathers a result of each trip, where what is not taken divides whole numbers, which may be by zero, on sequences,
on operators that draw numbers, nor where more than `MOST` nodes would come.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....ir.clone import inline
from ....ir.graph import Graph
from ....ir.node import Node, Value
from ....ir.randomness import is_random
from ....ir.types import TensorType
from .writer import Writer

MOST = 20_000
"""Nodes that a loop may become."""
_ALL = 4 * MOST
"""Nodes of a graph in which loops are laid out: those that come out of a loop may be loops."""


def unroll(node: Node) -> bool:
    """Put the nodes of the bodies in the place of a node, whose types are known; whether that was possible."""
    rule = {"If": _if, "Loop": _loop, "Scan": _scan}.get(node.op)
    if rule is None or node.domain or node.graph is None or any(is_random(body) for body in node.bodies):
        return False
    if len(node.graph) > _ALL:
        return False
    write = _Writer(node, by="control")
    results = rule(write)
    return results is not None and write.put(*results)


def _sizes(value: Value) -> tuple[int, ...] | None:
    return value.static_shape if isinstance(value.type, TensorType) else None


class _Writer(Writer):
    """Adds nodes in front of one that holds bodies."""

    def choose(self, condition: Value, one: Value, other: Value) -> Value:
        """`one` where the condition, a bool of rank 0, is true, else `other`."""
        return one if one is other else self.add("Where", condition, one, other)

    def body(self, name: str) -> Graph:
        """A body, whose constants become those of the graph, that all of its copies read them."""
        body = self.node.attributes[name].value
        assert isinstance(body, Graph)
        for value in tuple(body.constants):
            if value.constant is not None and value.uses:
                value.replace_uses(self.graph.constant(value.constant, value.name))
        return body

    def copy(self, body: Graph, inputs: Sequence[Value]) -> list[Value]:
        """What the body gives for these inputs, from a copy of its nodes."""
        values = dict(zip(body.inputs, inputs, strict=True))
        inline(body, values, self.node)
        return [values.get(output.value, output.value) for output in body.outputs]

    def stack(self, parts: Sequence[Value], axis: int) -> Value:
        """The parts side by side along a new axis."""
        pieces = [self._widened(part, axis) for part in parts]
        return pieces[0] if len(pieces) == 1 else self.add("Concat", *pieces, axis=axis)

    def _widened(self, value: Value, axis: int) -> Value:
        if self.graph.opset() < 13:
            return self.add("Unsqueeze", value, axes=[axis])
        return self.add("Unsqueeze", value, self.ints(axis))


def _if(write: _Writer) -> list[Value] | None:
    node = write.node
    condition = node.inputs[0]
    branches = [write.body(name) for name in ("then_branch", "else_branch")]
    for one, other in zip(*(branch.outputs for branch in branches), strict=True):
        sizes = _sizes(one.value)
        if sizes is None or sizes != _sizes(other.value) or one.value.dtype is not other.value.dtype:
            return None
    if condition is None or any(map(_may_fail, branches)):
        return None
    truth = write.reshape(condition)
    taken, left = (write.copy(branch, ()) for branch in branches)
    return [write.choose(truth, one, other) for one, other in zip(taken, left, strict=True)]


def _may_fail(body: Graph) -> bool:
    """Whether a body divides whole numbers: by zero, that ends the process."""
    divisions = [node.output.dtype for node in body.walk() if node.op in ("Div", "Mod") and not node.domain]
    return any(dtype is None or not dtype.is_float for dtype in divisions)


def _nodes(body: Graph) -> int:
    """The nodes of a body, those of bodies in it included; at least one."""
    return max(1, sum(1 for _ in body.walk()))


def _whole(value: Value | None) -> int | None:
    """The number that a constant holds."""
    return None if value is None or value.constant is None else int(value.constant.numpy().reshape(-1)[0])


def _loop(write: _Writer) -> list[Value] | None:
    node = write.node
    trips, start = _whole(node.input(0)), node.input(1)
    body = write.body("body")
    states = [value for value in node.inputs[2:] if value is not None]
    gathered = node.outputs[len(states) :]
    goes_on = body.outputs[0].value
    always = _is_true(goes_on, body) and (start is None or bool(_whole(start)))
    if trips is None or not 0 < trips * _nodes(body) <= MOST or len(states) != len(node.inputs) - 2:
        return None
    sizes = [(_sizes(one), _sizes(output.value)) for one, output in zip(states, body.outputs[1:])]
    kept = all(one is not None and one == other for one, other in sizes)
    if not always and (gathered or _may_fail(body) or not kept):
        return None
    truth = write.constant(True, np.bool_)
    active = truth if start is None else write.reshape(start)
    parts: list[list[Value]] = []
    for trip in range(trips):
        number = write.constant(trip)
        again, *results = write.copy(body, [number, truth, *states])
        fresh = results[: len(states)]
        parts.append(results[len(states) :])
        if always:
            states = fresh
            continue
        states = [write.choose(active, new, old) for new, old in zip(fresh, states, strict=True)]
        active = write.add("And", active, write.reshape(again))
    stacked = [write.stack(one, 0) for one in zip(*parts, strict=True)]
    return [*states, *stacked]


def _is_true(value: Value, body: Graph) -> bool:
    """Whether what tells a loop to go on is true whenever the loop is."""
    while value.producer is not None and value.producer.op in ("Identity", "Cast") and value.producer.inputs[0]:
        value = value.producer.inputs[0]
    return value is body.inputs[1] or bool(_whole(value))


def _scan(write: _Writer) -> list[Value] | None:
    node = write.node
    count = node.get_int("num_scan_inputs")
    body = write.body("body")
    if write.graph.opset() < 9 or None in node.inputs or not count:
        return None
    operands = [value for value in node.inputs if value is not None]
    states, scanned = operands[: len(operands) - count], operands[len(operands) - count :]
    shapes = [value.shape for value in scanned]
    axes = node.get_ints("scan_input_axes", (0,) * count)
    ranked = [shape for shape in shapes if shape]
    if len(ranked) != count:
        return None
    axes = tuple(axis % len(shape) for axis, shape in zip(axes, ranked, strict=True))
    lengths = {shape[axis] for axis, shape in zip(axes, ranked, strict=True)}
    steps = lengths.pop()
    if lengths or not isinstance(steps, int) or not 0 < steps * _nodes(body) <= MOST:
        return None
    gathered = node.outputs[len(states) :]
    ranks = [len(value.shape or ()) for value in gathered]
    out_axes = node.get_ints("scan_output_axes", (0,) * len(gathered))
    if any(axis < 0 and not rank for axis, rank in zip(out_axes, ranks, strict=True)):
        return None
    backward = node.get_ints("scan_input_directions", (0,) * count)
    parts: list[list[Value]] = []
    for step in range(steps):
        slices = [
            write.add("Gather", value, write.constant(steps - 1 - step if back else step), axis=axis)
            for value, axis, back in zip(scanned, axes, backward, strict=True)
        ]
        results = write.copy(body, [*states, *slices])
        states = results[: len(states)]
        parts.append(results[len(states) :])
    out_backward = node.get_ints("scan_output_directions", (0,) * len(gathered))
    stacked = []
    for one, axis, rank, back in zip(zip(*parts, strict=True), out_axes, ranks, out_backward, strict=True):
        stacked.append(write.stack(one[::-1] if back else one, axis % rank if axis < 0 else axis))
    return [*states, *stacked]
