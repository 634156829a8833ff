"""What an edit of the structure lost is made up for: layers are fitted to the teacher again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from ...ir.graph import Graph, Node
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
    """Fit layers of `graph` to the teacher: those that end in one of the values `touched` or read one, and all behind
    them unless only `neighbours` are asked for; none that is `kept`. Returns how many of them had few rows."""
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
    goals = [goal for group in goals_of(in_order(graph, list(layers))) for goal in group]
    return {goal.layer for goal in goals if goal.output.name in touched or goal.layer.source.name in touched}
