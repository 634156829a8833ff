"""Operators that answer by chance: not to be evaluated once for all, nor merged, nor run in any order but one."""

from __future__ import annotations

from .graph import Graph

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}
)


def by_chance(graph: Graph) -> bool:
    """Whether an operator of the graph draws numbers: what it answers depends on which run it is."""
    return any(node.op in RANDOM and (node.op != "Dropout" or node.input(2) is not None) for node in graph.walk())
