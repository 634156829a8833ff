"""Copying nodes and graphs, with the values they read mapped to others."""

from __future__ import annotations

from collections.abc import Iterable

from .attributes import Attribute, AttributeKind, AttributeValue
from .graph import Function, Graph, Node, Output, Value
from .uncollected import uncollected


def clone(graph: Graph, values: dict[Value, Value] | None = None) -> Graph:
    """A copy of `graph`, its bodies and functions; tensors are shared.

    `values` maps values of the graphs around `graph` to what the copy reads in their place (the same value where
    absent), and receives the copy of every value inside.
    """
    with uncollected():
        return _clone(graph, {} if values is None else values)


def _clone(graph: Graph, values: dict[Value, Value]) -> Graph:
    copy = Graph(graph.name, opsets=graph.opsets)
    copy.doc, copy.metadata, copy.header, copy.extra = graph.doc, dict(graph.metadata), graph.header, graph.extra
    for value in graph.inputs:
        values[value] = _describe(value, copy.add_input(value.name, value.type, default=value.default))
    copy_nodes(graph, graph, copy, values)
    for output in graph.outputs:
        _copy_output(output, copy, values)
    for key, function in graph.functions.items():
        copy.functions[key] = Function(
            function.domain,
            function.name,
            function.overload,
            clone(function.graph),
            function.attributes,
            dict(function.defaults),
        )
    return copy


def copy_nodes(
    source: Graph, nodes: Iterable[Node], target: Graph, values: dict[Value, Value], *, before: Node | None = None
) -> list[Node]:
    """Copy `nodes` of `source`, and all of its constants, to the end of `target` or to just `before` one of its nodes.

    `values` maps what the nodes read; it must hold the inputs of `source`, and receives the copies. Returns the nodes
    made.
    """
    for value in source.constants:
        if value.constant is not None:
            values[value] = _describe(value, target.constant(value.constant, value.name))
    pending: list[tuple[Node, Node]] = []
    for node in nodes:
        twin = target.add_like(node, before=before)
        for old, new in zip(node.outputs, twin.outputs, strict=True):
            values[old] = _describe(old, new) if old.doc or old.metadata is not None else new
        pending.append((node, twin))
    for node, twin in pending:
        twin.set_inputs([None if v is None else values.get(v, v) for v in node.inputs])
        if not node.attributes:
            continue
        if node.bodies:
            for name, attribute in node.attributes.items():
                twin.set_attribute(name, _copy_attribute(attribute, values))
        else:
            twin.attributes.update(node.attributes)  # which nobody edits
    return [twin for _, twin in pending]


def inline(body: Graph, values: dict[Value, Value], before: Node) -> list[Node]:
    """Copy all nodes of `body` to just `before` a node of another graph; see `copy_nodes`.

    Each gets a name that no node there has: runtimes refuse two nodes of one graph under one name, and bodies side by
    side may use the same.
    """
    target = before.graph
    assert target is not None
    taken = {node.name for node in target}
    copies = copy_nodes(body, body, target, values, before=before)
    for node in copies:
        name, count = node.name, 0
        while node.name and node.name in taken:
            count += 1
            node.name = f"{name}_{count}"
        taken.add(node.name)
    return copies


def _copy_attribute(attribute: Attribute, values: dict[Value, Value]) -> Attribute:
    value: AttributeValue
    if isinstance(attribute.value, Graph):
        value = clone(attribute.value, values)
    elif attribute.kind is AttributeKind.GRAPHS and isinstance(attribute.value, tuple):
        value = tuple(clone(body, values) for body in attribute.value if isinstance(body, Graph))
    else:
        return attribute
    return Attribute(attribute.kind, value, attribute.ref, attribute.doc)


def _copy_output(output: Output, target: Graph, values: dict[Value, Value]) -> None:
    copy = target.add_output(values.get(output.value, output.value), output.name, output.type)
    copy.type = output.type
    copy.doc = output.doc
    copy.metadata = None if output.metadata is None else dict(output.metadata)


def _describe(value: Value, copy: Value) -> Value:
    copy.type = value.type
    copy.doc = value.doc
    copy.metadata = None if value.metadata is None else dict(value.metadata)
    return copy
