"""Whether a graph is still what a copy of it is: much quicker than the digests of both."""

from __future__ import annotations

from .attributes import Attribute
from .graph import Graph
from .node import Node, Value


def same(one: Graph, other: Graph) -> bool:
    """Whether two graphs hold the same, in the same order, down to names and notes. Tensors are compared as objects,
    which a copy shares: two of the same elements are taken for different."""
    return _same(one, other, {})


def _same(one: Graph, other: Graph, pairs: dict[Value, Value]) -> bool:
    if _facts(one) != _facts(other):
        return False
    nodes = list(zip(one, other, strict=True))
    for a, b in [*zip(one.inputs, other.inputs, strict=True), *zip(one.constants, other.constants, strict=True)]:
        if not _same_value(a, b):
            return False
        pairs[a] = b
    for left, right in nodes:
        if len(left.outputs) != len(right.outputs):
            return False
        for a, b in zip(left.outputs, right.outputs, strict=True):
            if not _same_value(a, b):
                return False
            pairs[a] = b
    return (
        all(_same_node(left, right, pairs) for left, right in nodes)
        and all(
            pairs.get(a.value, a.value) is b.value
            and (a.name, a.type, a.doc, a.metadata) == (b.name, b.type, b.doc, b.metadata)
            for a, b in zip(one.outputs, other.outputs, strict=True)
        )
        and all(
            (a.domain, a.name, a.overload, a.attributes) == (b.domain, b.name, b.overload, b.attributes)
            and _same_attributes(a.defaults, b.defaults, {})
            and same(a.graph, b.graph)
            for a, b in zip(one.functions.values(), other.functions.values(), strict=True)
        )
    )


def _facts(graph: Graph) -> tuple[object, ...]:
    lengths = (len(graph), len(graph.inputs), len(graph.constants), len(graph.outputs))
    own = (graph.name, graph.doc, graph.metadata, graph.header, graph.extra, graph.opsets)
    return (*lengths, *own, list(graph.functions))


def _same_value(a: Value, b: Value) -> bool:
    return (
        a.name == b.name
        and (a.type is b.type or a.type == b.type)
        and a.constant is b.constant
        and a.default is b.default
        and a.doc == b.doc
        and a.metadata == b.metadata
    )


def _same_node(a: Node, b: Node, pairs: dict[Value, Value]) -> bool:
    return (
        (a.op, a.domain, a.overload, a.name, a.doc, a.extra) == (b.op, b.domain, b.overload, b.name, b.doc, b.extra)
        and (a.origin is b.origin or a.origin == b.origin)
        and a.metadata == b.metadata
        and len(a.inputs) == len(b.inputs)
        and all(y is None if x is None else pairs.get(x, x) is y for x, y in zip(a.inputs, b.inputs, strict=True))
        and _same_attributes(a.attributes, b.attributes, pairs)
    )


def _same_attributes(one: dict[str, Attribute], other: dict[str, Attribute], pairs: dict[Value, Value]) -> bool:
    return list(one) == list(other) and all(_same_attribute(one[name], other[name], pairs) for name in one)


def _same_attribute(a: Attribute, b: Attribute, pairs: dict[Value, Value]) -> bool:
    if a is b:
        return True
    if (a.kind, a.ref, a.doc) != (b.kind, b.ref, b.doc):
        return False
    lefts, rights = (one.value if isinstance(one.value, tuple) else (one.value,) for one in (a, b))
    return len(lefts) == len(rights) and all(
        _same(x, y, pairs) if isinstance(x, Graph) and isinstance(y, Graph) else x is y
        for x, y in zip(lefts, rights, strict=True)
    )
