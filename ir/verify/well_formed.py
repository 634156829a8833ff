"""The rules of the IR itself: what every edit keeps, and what only a fault of a pass can break."""

from __future__ import annotations

from collections.abc import Iterator

from ..graph import Graph, Node, Value
from .rule import CheckedGraph, Fault, VerifierRule


def _links(place: CheckedGraph) -> Iterator[Fault]:
    graph, count, previous = place.graph, 0, None
    node = graph._first
    while node is not None:
        if node._graph is not graph or node._previous is not previous:
            yield Fault("the list of nodes is torn here; add, move and remove nodes through Graph only", node)
            return
        count, previous, node = count + 1, node, node._next
        if count > graph._count:
            break
    if previous is not graph._last or count != graph._count:
        yield Fault(f"the list of nodes holds {count} and says {graph._count}; edit it through Graph only", previous)


def _parents(place: CheckedGraph) -> Iterator[Fault]:
    whole = place.model if place.function is None else place.function.graph
    if place.graph is whole and not place.outermost:
        yield Fault("a model or function is the body of a node; use a clone, or verify the whole model")
    for node in place.graph:
        if node.attributes:
            bodies = node.bodies
            for body in bodies:
                if body.parent is not node:
                    yield Fault(f"its body {body.name!r} belongs to another node; give it a clone of the body", node)
            if len(set(bodies)) != len(bodies):
                yield Fault("it holds one body twice; give each attribute a body of its own", node)


def _owners(place: CheckedGraph) -> Iterator[Fault]:
    graph = place.graph
    if len(set(graph._inputs)) != len(graph._inputs):
        yield Fault("one value is an input twice; make every input with Graph.add_input")
    for value in graph._inputs:
        if value.producer is not None or value.constant is not None or value._graph is not graph:
            yield Fault("a graph input is also made elsewhere; every value is made in one place", None, value)
    for value in graph.constants:
        if value.producer is not None or value.constant is None or value._graph is not graph:
            yield Fault("a constant has no data, or is also made elsewhere; use Graph.constant", None, value)
    for node in graph:
        for index, value in enumerate(node._outputs):
            if value.producer is not node or value.index != index or value.constant is not None:
                yield Fault(f"output {index} is also made elsewhere; every value is made in one place", node, value)


def _uses(place: CheckedGraph) -> Iterator[Fault]:
    graph = place.graph
    for node in graph:
        for index, read in enumerate(node._inputs):
            if read is not None and (node, index) not in read._uses:
                yield Fault(
                    f"input {index} is not in the uses of the value it reads; set it with set_input", node, read
                )
        for value in node._outputs:
            if value._uses:
                yield from _false_uses(value)
    for index, output in enumerate(graph._outputs):
        if (graph, index) not in output.value._uses:
            yield Fault("an output is not in the uses of its value; set it with set_output", None, output)
    for value in (*graph._inputs, *graph.constants):
        yield from _false_uses(value)


def _false_uses(value: Value) -> Iterator[Fault]:
    for user, index in value._uses:
        if isinstance(user, Node):
            real = user._graph is not None and index < len(user._inputs) and user._inputs[index] is value
        else:
            real = index < len(user._outputs) and user._outputs[index].value is value
        if not real:
            yield Fault("its uses name a reader that does not read it; edit through set_input and remove", None, value)


def _scope(place: CheckedGraph) -> Iterator[Fault]:
    around: set[Graph] = set()
    graph: Graph | None = place.graph
    while graph is not None:
        around.add(graph)
        graph = None if graph.parent is None else graph.parent._graph
    text = "is not of this graph or one around it; a body reads outwards only, and nothing reads what was removed"
    for node in place.graph:
        for index, read in enumerate(node._inputs):
            if read is not None and read.graph not in around:
                yield Fault(f"what input {index} reads {text}", node, read)
    for output in place.graph._outputs:
        if output.value.graph not in around:
            yield Fault(f"what output {output.name!r} returns {text}", None, output.value)


def _order(place: CheckedGraph) -> Iterator[Fault]:
    if place.outermost:
        yield from _read_before_made(place.graph, set())


def _read_before_made(graph: Graph, defined: set[Value]) -> Iterator[Fault]:
    defined.update(graph._inputs)
    defined.update(graph.constants)
    for node in graph:
        for index, read in enumerate(node._inputs):
            if read is not None and read not in defined:
                yield Fault(f"input {index} is read before it is made; call Graph.sort", node, read)
        if node.attributes:
            for body in node.bodies:
                yield from _read_before_made(body, defined)
        defined.update(node._outputs)
    for output in graph._outputs:
        if output.value not in defined:
            yield Fault(f"what output {output.name!r} returns is not made by any node", None, output.value)


def _body_fields(place: CheckedGraph) -> Iterator[Fault]:
    graph = place.graph
    if not place.outermost and (graph.opsets or graph.functions or graph.header != Graph().header):
        yield Fault("a body holds opsets, functions or a header; these belong to the outermost graph")
    if place.function is not None and (graph.functions or graph.header != Graph().header):
        yield Fault("a function's graph holds functions or a header; these belong to the model")


WALKABLE = (
    VerifierRule("links", "the list of nodes is whole and every node in it knows its graph", _links),
    VerifierRule("parents", "every body belongs to the one node that holds it", _parents),
)
WELL_FORMED = (
    VerifierRule("owners", "every value is made in exactly one place, which knows it", _owners),
    VerifierRule("uses", "use lists and reads agree, both ways", _uses),
    VerifierRule("scope", "what is read belongs to the reader's graph or one around it", _scope),
    VerifierRule("order", "every value is made before it is read", _order),
    VerifierRule("body-fields", "operator sets, functions and header are the outermost graph's", _body_fields),
)
