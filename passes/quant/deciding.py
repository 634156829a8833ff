"""The values that outputs are made of with no layer between: whose range is that of the answers.

From such a value only what moves, scales and squashes leads to the outputs. What is rare in it is what the output says
(`ranges.py`), and no later layer averages it with anything. A layer of at most `SMALL` weights, as the fixed one that
turns distributions into distances in a detector is, counts for none.
"""

from __future__ import annotations

from ...ir.graph import Graph, Node, Value
from .layers import WEIGHTED
from .placement import MOVES, Placement

SMALL = 64
"""Weights of a layer that averages little."""
SQUASHING = frozenset({"Sigmoid", "HardSigmoid"})
_PASSED = MOVES | {"Cast"}


def deciding(graph: Graph, plan: Placement) -> dict[Value, str]:
    """The rule of `find_range` for the grid of each such group, by the first value of the group.

    "sigmoid" where only a Sigmoid reads it, "live" where one may, else "minmax".
    """
    reached = _before_layers(graph)
    rules = {}
    for group, values in plan.sources().items():
        if any(value in reached for value in values) or not any(_leads_out(value) for value in values):
            continue
        ends: set[str] = set()
        for value in values:
            ends |= _ends(value)
        squashed = ends & SQUASHING
        rules[group] = "minmax" if not squashed else ("sigmoid" if ends == squashed else "live")
    return rules


def _before_layers(graph: Graph) -> set[Value]:
    """The values that a layer comes after, whatever lies between."""
    before: set[Value] = set()
    for node in reversed(graph):
        if _is_layer(node) or any(value in before for value in node.outputs):
            before.update(value for value in node.inputs if value is not None)
    return before


def _is_layer(node: Node) -> bool:
    if node.op not in WEIGHTED:
        return False
    weight = node.input(1)
    return weight is None or weight.constant is None or weight.constant.size > SMALL


def _leads_out(value: Value) -> bool:
    return value.is_output or bool(value.users)


def _ends(value: Value) -> set[str]:
    """The operators that a value meets behind all that only moves it; "" for the output itself."""
    ends: set[str] = set()
    seen = {value}
    stack = [value]
    while stack:
        at = stack.pop()
        ends |= {""} if at.is_output else set()
        for user in at.users:
            if user.op in _PASSED and not user.domain:
                new = [out for out in user.outputs if out not in seen]
                seen.update(new)
                stack += new
            else:
                ends.add(user.op)
    return ends
