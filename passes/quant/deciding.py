"""The values that outputs are made of with no layer between: whose range is that of the answers.

From such a value only what moves, scales and squashes leads to the outputs; or it is an output itself, or the logits of
one, and layers read it besides, as where one head of a model reads another's answer. What is rare in it is what the
output says (`ranges.py`), and no later layer averages it with anything. A layer of at most `SMALL` weights, as the
fixed one that turns distributions into distances in a detector is, counts for none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from ...ir.clone import clone
from ...ir.graph import Graph, Node, Value
from ..base import Context
from .layers import WEIGHTED
from .qdq.placement import MOVES, Placement

SMALL = 64
"""Weights of a layer that averages little."""
SQUASHING = frozenset({"Sigmoid", "HardSigmoid"})
AVERAGING = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"})
_PASSED = MOVES | {"Cast"}
_MARK = 4096
"""Beyond what models compute with, and whole numbers from it on are exact."""

End: TypeAlias = "tuple[Node | None, Value]"


def deciding(graph: Graph, plan: Placement, ctx: Context) -> dict[Value, str]:
    """The rule of `find_range` for the grid of each such group, by the first value of the group.

    "sigmoid" where only a Sigmoid reads it, "live" where one reads a part, else "wide".
    """
    reached = _before_layers(graph)
    groups = {
        group: values
        for group, values in plan.sources().items()
        if (not any(value in reached for value in values) and any(_leads_out(value) for value in values))
        or any(_answers(value) for value in values)
    }
    met = {value: _ends(value) for values in groups.values() for value in values}
    mixed = [value for value, ends in met.items() if _ops(ends) & SQUASHING and len(ends) > 1]
    if mixed and ctx.fit is not None and ctx.fit.count:
        met |= _probed(graph, mixed, met, ctx)
    rules = {}
    for group, values in groups.items():
        ops = set[str]().union(*(_ops(met[value]) for value in values))
        if ops & AVERAGING:  # where the rare is averaged, least squares are right
            continue
        squashed = ops & SQUASHING
        rules[group] = "wide" if not squashed else ("sigmoid" if ops == squashed else "live")
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


def _answers(value: Value) -> bool:
    """Whether a value is an output, or all that is between it and one is a squashing function."""
    ends = _ends(value)
    squashed = [end.output for end, _ in ends if end is not None and end.op in SQUASHING]
    return any(end is None for end, _ in ends) or any(None in {end for end, _ in _ends(out)} for out in squashed)


def _ends(value: Value) -> set[End]:
    """The operators that a value meets behind all that only moves it, each with the value that it reads; `None`
    for the output itself."""
    ends: set[End] = set()
    seen = {value}
    stack = [value]
    while stack:
        at = stack.pop()
        ends |= {(None, at)} if at.is_output else set()
        for user in at.users:
            if user.op in _PASSED and not user.domain:
                new = [out for out in user.outputs if out not in seen]
                seen.update(new)
                stack += new
            else:
                ends.add((user, at))
    return ends


def _ops(ends: set[End]) -> set[str]:
    return {"" if end is None else end.op for end, _ in ends}


def _probed(graph: Graph, values: list[Value], met: Mapping[Value, set[End]], ctx: Context) -> dict[Value, set[End]]:
    """Of the ends that `values` may meet, those that they do: scores and boxes that were put into one tensor are parted
    again. Every value is filled with a number of its own, and where that number arrives is looked at, on one sample."""
    from ...runtime.session import Session

    assert ctx.fit is not None
    twins: dict[Value, Value] = {}
    copy = clone(graph, twins)
    zero = copy.constant(np.zeros((), np.float32))
    for number, value in enumerate(values):
        twin = twins[value]
        blank = copy.add("Mul", [twin, zero], types=[twin.type])
        marked = copy.add("Add", [blank.output, copy.constant(np.float32(_MARK + number))], types=[twin.type]).output
        twin.replace_uses(marked)
        blank.set_input(0, twin)
    copy.sort()
    read = list(dict.fromkeys(at for value in values for _, at in met[value] if at not in values))
    direct = {value: {(end, at) for end, at in met[value] if at is value} for value in values}
    arrays = Session(copy, outputs=[twins[at] for at in read], threads=ctx.threads).run(next(ctx.fit.batches(1)))
    arrived = dict(zip(read, arrays, strict=True))
    return {
        value: direct[value]
        | {(end, at) for end, at in met[value] if at in arrived and bool((arrived[at] == _MARK + number).any())}
        for number, value in enumerate(values)
    }
