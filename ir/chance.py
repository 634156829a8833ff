"""Operators that answer by chance: not to be evaluated once for all, nor merged, nor run in any order but one."""

from __future__ import annotations

from .graph import Graph, Node, Value

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}
)


def by_chance(graph: Graph) -> bool:
    """Whether an operator of the graph draws numbers: what it answers depends on which run it is."""
    return any(map(_draws, graph.walk()))


def drawn(graph: Graph) -> set[Value]:
    """The values of the graph that depend on drawn numbers."""
    random: set[Value] = set()
    for node in graph:
        inside = (one for body in node.bodies for one in body.walk())
        if _draws(node) or any(map(_draws, inside)) or any(value in random for value in (*node.inputs, *node.captures)):
            random.update(node.outputs)
    return random


def _draws(node: Node) -> bool:
    return node.op in RANDOM and (node.op != "Dropout" or node.input(2) is not None)
