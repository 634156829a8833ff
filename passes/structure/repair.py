"""What an edit of the structure lost is made up for: layers are fitted to the teacher again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from ...ir.graph import Graph, Node, Value
from ..base import Context, Report
from ..walk.linear import Linear
from ..walk.order import goals_of, in_order
from ..walk.readers import linear_layers
from ..walk.walk import ROWS, too_wide, walk


def repair(
    graph: Graph,
    ctx: Context,
    touched: Collection[str],
    rows: int = ROWS,
    *,
    neighbours: bool = False,
    kept: Callable[[Node], str] = lambda node: "",
) -> int:
    """Fit layers of `graph` to the teacher: those that end in one of the values `touched` or are the first behind one,
    and all behind them unless only `neighbours` are asked for; none that is `kept`. Returns how many of them had few
    rows."""
    layers = [layer for layer in linear_layers(graph)[0] if not too_wide(layer)]
    near = _near(graph, layers, touched)
    walked = [layer for layer in layers if layer in near] if neighbours else layers
    begun, thin = False, 0
    for step in walk(graph, ctx, walked, rows=rows, report=Report(), changing=near, eases=not neighbours):
        begun = begun or step.layer in near
        if not kept(step.layer.node):
            replace(step, disturbed=begun).settle()
            thin += begun and step.thin
    return thin


def _near(graph: Graph, layers: Sequence[Linear], touched: Collection[str]) -> set[Linear]:
    """The layers that end in a value of `touched`, and those that it reaches before any other layer: through what it
    alone decides (activations, pooling), or where no layer is reached so, through sums and concatenations, too."""
    goals = [goal for group in goals_of(in_order(graph, list(layers))) for goal in group]
    ends = {goal.layer for goal in goals if goal.output.name in touched}
    for alone in (True, False):
        reached = _reached(graph, layers, touched, alone=alone)
        if readers := {layer for layer in layers if layer.source in reached}:
            return ends | readers
    return ends


def _reached(graph: Graph, layers: Sequence[Linear], touched: Collection[str], *, alone: bool) -> set[Value]:
    """`touched` and the values behind them that no layer stands before; `alone`: those that nothing else decides."""
    firm = {layer.node for layer in layers}
    every = all if alone else any
    values = (value for node in graph for value in (*node.inputs, *node.outputs) if value is not None)
    reached = {value for value in values if value.name in touched}
    for node in graph:
        inputs = [value for value in node.inputs if value is not None and value.constant is None]
        if node not in firm and inputs and every(value in reached for value in inputs):
            reached.update(node.outputs)
    return reached
