"""The verifier: a table of named rules that every graph between two passes obeys."""

from __future__ import annotations

from collections.abc import Iterator

from ...errors import ModelError
from ..graph import Graph
from .conformance import CONFORMANCE
from .rule import CheckedGraph, Fault, VerifierRule
from .well_formed import WALKABLE, WELL_FORMED

RULES: tuple[VerifierRule, ...] = (*WALKABLE, *WELL_FORMED, *CONFORMANCE)


def verify(graph: Graph) -> None:
    """Hold a model against every rule, its bodies and functions too.

    Raises `ModelError` at the first fault, naming graph, node, value and rule.
    """
    places = []
    for place in _places(graph):
        # Finding the next place, and every rule below, relies on whole lists of nodes and on the parents of bodies.
        _hold(WALKABLE, place)
        places.append(place)
    for rule in RULES[len(WALKABLE) :]:
        for place in places:
            _hold((rule,), place)


def _hold(rules: tuple[VerifierRule, ...], place: CheckedGraph) -> None:
    for rule in rules:
        for fault in rule.check(place):
            raise ModelError(_message(rule, place, fault))


def _places(model: Graph) -> Iterator[CheckedGraph]:
    for graph in model.graphs():
        yield CheckedGraph(graph, model, None)
    for function in model.functions.values():
        for graph in function.graph.graphs():
            yield CheckedGraph(graph, model, function)


def _message(rule: VerifierRule, place: CheckedGraph, fault: Fault) -> str:
    where = [f"function {place.function.name!r}"] if place.function is not None else []
    graph = fault.node.graph if fault.node is not None and fault.node.graph is not None else place.graph
    if graph.name or not where:
        where.append(f"graph {graph.name!r}")
    if fault.node is not None:
        first = next((value.name for value in fault.node.outputs if value.name), "")
        where.append(f"node {fault.node.name or first!r} ({fault.node.op})")
    if fault.value is not None:
        where.append(f"value {fault.value.name!r}")
    return f"{', '.join(where)}: {fault.text} [{rule.name}]"
