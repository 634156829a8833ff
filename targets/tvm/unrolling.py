"""Loops whose number of rounds is known written out, and branches taken side by side.

    Loop, Scan   ->   the nodes of the body, once for each round
    If           ->   the nodes of both branches, and Where between what they give

Exact where a branch has no effect but its result. Does not fire where the rounds depend on data, where the results of
branches differ in size, nor where a branch divides whole numbers: what is not taken may divide by zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir.clone import inline
from ...ir.graph import Graph
from ...ir.node import Node, Value
from ...ir.types import TensorType

MOST = 2000
"""Nodes that one loop is written out into."""


def unroll(node: Node) -> bool:
    """Replace a Loop, Scan or If; whether that was possible."""
    if node.domain or node.op not in _RULES or node.graph is None:
        return False
    results = _RULES[node.op](node)
    if results is None:
        return False
    for old, new in zip(node.outputs, results, strict=True):
        if new.type is None:
            new.type = old.type
        old.replace_uses(new)
    node.graph.remove(node)
    return True


def _body(node: Node, name: str) -> Graph:
    body = node.attributes[name].value
    assert isinstance(body, Graph)
    return body


def _round(body: Graph, inputs: Sequence[Value], node: Node) -> list[Value]:
    """One copy of the body before the node: what it gives."""
    values = dict(zip(body.inputs, inputs, strict=True))
    inline(body, values, node)
    return [values.get(output.value, output.value) for output in body.outputs]


def _fits(body: Graph, rounds: int) -> bool:
    return rounds * max(1, sum(1 for _ in body.walk())) <= MOST


def _stacked(node: Node, parts: list[Value], axis: int) -> Value | None:
    """What every round gives, along a new axis."""
    graph = node.graph
    assert graph is not None
    if not parts:
        return None
    axes = graph.constant(np.array([axis], np.int64))
    if graph.opset() < 13:
        wide = [graph.add("Unsqueeze", [part], {"axes": [axis]}, before=node).output for part in parts]
    else:
        wide = [graph.add("Unsqueeze", [part, axes], before=node).output for part in parts]
    return graph.add("Concat", wide, {"axis": axis}, before=node).output


def _loop(node: Node) -> list[Value] | None:
    body, limit, go_on = _body(node, "body"), node.input(0), node.input(1)
    if limit is None or limit.constant is None or (go_on is not None and go_on.constant is None):
        return None
    rounds = int(np.ravel(limit.constant.numpy())[0])
    if go_on is not None and go_on.constant is not None and not np.ravel(go_on.constant.numpy())[0]:
        rounds = 0
    again = body.outputs[0].value
    while again.producer is not None and again.producer.op == "Identity" and again.producer.inputs[0] is not None:
        again = again.producer.inputs[0]
    always = again is body.inputs[1] or (again.constant is not None and bool(np.ravel(again.constant.numpy())[0]))
    if not always or rounds < 0 or not _fits(body, rounds) or any(value is None for value in node.inputs[2:]):
        return None
    graph = node.graph
    assert graph is not None
    state = [value for value in node.inputs[2:] if value is not None]
    collected: list[list[Value]] = [[] for _ in body.outputs[1 + len(state) :]]
    for step in range(rounds):
        inputs = [graph.constant(np.array(step, np.int64)), graph.constant(np.array(True)), *state]
        _, *results = _round(body, inputs, node)
        state, made = results[: len(state)], results[len(state) :]
        for parts, one in zip(collected, made, strict=True):
            parts.append(one)
    stacks = [_stacked(node, parts, 0) for parts in collected]
    return None if None in stacks else [*state, *(one for one in stacks if one is not None)]


def _scan(node: Node) -> list[Value] | None:
    body, count, graph = _body(node, "body"), node.get_int("num_scan_inputs"), node.graph
    assert graph is not None
    if graph.opset() < 9 or any(value is None for value in node.inputs):
        return None
    values = [value for value in node.inputs if value is not None]
    state, read = values[: len(values) - count], values[len(values) - count :]
    ranks = [len(value.shape or ()) for value in read]
    axes = [
        axis % max(rank, 1) for axis, rank in zip(node.get_ints("scan_input_axes", (0,) * count), ranks, strict=True)
    ]
    backward = node.get_ints("scan_input_directions", (0,) * count)
    lengths = {None if value.shape is None else value.shape[axis] for value, axis in zip(read, axes, strict=True)}
    rounds = lengths.pop()
    if lengths or not isinstance(rounds, int) or not _fits(body, rounds):
        return None
    collected: list[list[Value]] = [[] for _ in body.outputs[len(state) :]]
    for step in range(rounds):
        slices = []
        for value, axis, back in zip(read, axes, backward, strict=True):
            at = graph.constant(np.array(rounds - 1 - step if back else step, np.int64))
            slices.append(graph.add("Gather", [value, at], {"axis": axis}, before=node).output)
        results = _round(body, [*state, *slices], node)
        state, made = results[: len(state)], results[len(state) :]
        for parts, one in zip(collected, made, strict=True):
            parts.append(one)
    out_axes = node.get_ints("scan_output_axes", (0,) * len(collected))
    out_back = node.get_ints("scan_output_directions", (0,) * len(collected))
    stacks = []
    for parts, axis, back, value in zip(collected, out_axes, out_back, node.outputs[len(state) :], strict=True):
        rank = len(value.shape or ())
        if axis < 0 and not rank:
            return None
        stacks.append(_stacked(node, parts[::-1] if back else parts, axis % rank if axis < 0 else axis))
    return None if None in stacks else [*state, *(one for one in stacks if one is not None)]


def _branch(node: Node) -> list[Value] | None:
    condition, graph = node.inputs[0], node.graph
    assert graph is not None
    branches = [_body(node, name) for name in ("then_branch", "else_branch")]
    for body in branches:
        if any(inner.op in ("Div", "Mod") and _whole(inner) for inner in body.walk()) or not _fits(body, 1):
            return None
    types = [[output.type or output.value.type for output in body.outputs] for body in branches]
    for one, other in zip(*types, strict=True):
        alike = isinstance(one, TensorType) and isinstance(other, TensorType) and one.dtype is other.dtype
        if not alike or one.static_shape is None or one.static_shape != other.static_shape:
            return None
    first, second = (_round(body, [], node) for body in branches)
    scalar = graph.add("Reshape", [condition, graph.constant(np.array([], np.int64))], before=node).output
    pairs = zip(first, second, types[0], strict=True)
    return [graph.add("Where", [scalar, a, b], types=[kind], before=node).output for a, b, kind in pairs]


def _whole(node: Node) -> bool:
    dtype = node.output.dtype
    return dtype is None or not dtype.is_float


_RULES = {"If": _branch, "Loop": _loop, "Scan": _scan}
