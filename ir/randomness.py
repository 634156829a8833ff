"""Graphs that draw numbers: what they answer depends on which run it is."""

from __future__ import annotations

from .graph import Graph, Value
from .ops import draws


def is_random(graph: Graph) -> bool:
    """Whether an operator of the graph draws numbers: what it answers depends on which run it is."""
    return any(map(draws, graph.walk()))


def drawn(graph: Graph) -> set[Value]:
    """The values of the graph that depend on drawn numbers."""
    random: set[Value] = set()
    for node in graph:
        inside = (one for body in node.bodies for one in body.walk())
        if draws(node) or any(map(draws, inside)) or any(value in random for value in (*node.inputs, *node.captures)):
            random.update(node.outputs)
    return random
