"""What a model costs: multiply-accumulates, parameters, stored bytes, bytes of activations; per node and in all.

Sizes that stay symbolic count as 1, so figures are per sample; `dims` fixes them by name. A node with bodies costs what
they cost: the costlier branch of If, the body of Loop and Scan times its trip count where that is known (else once). A
call of a model-local function costs what the function does with this call's inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .graph import Graph
from .macs import integer, macs
from .node import Node, Value
from .shapes.infer import Inference, analyse
from .shapes.symbols import Size
from .stored import parameters, stored_values, tensor_of

_ENDLESS = 2**31 - 1
"""The lowest limit of iterations that says "until the condition is false"."""


@dataclass(frozen=True, slots=True)
class NodeCost:
    """One run of one node. `params` and `bytes` are of the constants it reads, bodies' included, shared ones too;
    `activations` are the bytes of its outputs; `integer_macs` are those of `macs` that are products of integers."""

    macs: int = 0
    integer_macs: int = 0
    params: int = 0
    bytes: int = 0
    activations: int = 0


@dataclass(frozen=True, slots=True)
class GraphCost:
    """A whole model. `macs`, `integer_macs` and `activations` are sums over the nodes of the outermost graph; `params`
    and `bytes` count every constant once. `nodes` also holds the nodes inside bodies and called functions, for one run
    of them.
    """

    macs: int
    integer_macs: int
    params: int
    bytes: int
    activations: int
    nodes: dict[Node, NodeCost]


def cost(graph: Graph, dims: Mapping[str, int] | None = None) -> GraphCost:
    """The cost of `graph`, which stays as it is. Raises `ModelError` where shape inference does."""
    inference = analyse(graph, dims, fresh=True)
    meter = _Meter(inference)
    top = _total(meter.graph(graph))
    stored = [meter.stored(value) for value in stored_values(graph)]
    return GraphCost(
        macs=top.macs,
        integer_macs=top.integer_macs,
        params=sum(params for params, _ in stored),
        bytes=sum(size for _, size in stored),
        activations=top.activations,
        nodes=meter.nodes,
    )


class _Meter:
    """One measurement: the costs of the nodes seen so far, and what each stored tensor comes to."""

    def __init__(self, inference: Inference) -> None:
        self.inference = inference
        self.nodes: dict[Node, NodeCost] = {}
        self._stored: dict[Value, tuple[int, int]] = {}
        self._functions: dict[Graph, NodeCost] = {}

    def stored(self, value: Value) -> tuple[int, int]:
        """Parameters and bytes of the stored tensor behind a value; zeros where there is none."""
        size = self._stored.get(value)
        if size is None:
            tensor = tensor_of(value)
            size = (0, 0) if tensor is None else (parameters(value, tensor), tensor.nbytes)
            self._stored[value] = size
        return size

    def graph(self, graph: Graph) -> list[NodeCost]:
        return [self.node(node) for node in graph]

    def function(self, instance: Graph) -> NodeCost:
        """Several calls may share what a function was instantiated as."""
        if instance not in self._functions:
            self._functions[instance] = _total(self.graph(instance))
        return self._functions[instance]

    def node(self, node: Node) -> NodeCost:
        inputs = [None if v is None else _sizes(self.inference.shape(v)) for v in node.inputs]
        outputs = [_sizes(self.inference.shape(v)) for v in node.outputs]
        products = macs(node, inputs, outputs)
        read = [self.stored(v) for v in dict.fromkeys(node.inputs) if v is not None]
        own = NodeCost(
            products,
            products if products and integer(node) else 0,
            sum(params for params, _ in read),
            sum(size for _, size in read),
            sum(_bytes(v, self.inference) for v in node.outputs),
        )
        instance = self.inference.calls.get(node)
        inner = [_total(self.graph(g)) for g in node.bodies] if node.attributes else []
        if instance is not None:
            inner.append(self.function(instance))
        if inner:
            times = _trips(node, self.inference)
            one = max(inner, key=lambda c: (c.macs, c.activations)) if node.op == "If" else _total(inner)
            own = NodeCost(
                own.macs + times * one.macs,
                own.integer_macs + times * one.integer_macs,
                own.params + sum(c.params for c in inner),
                own.bytes + sum(c.bytes for c in inner),
                own.activations + times * one.activations,
            )
        self.nodes[node] = own
        return own


def _total(costs: list[NodeCost]) -> NodeCost:
    return NodeCost(
        sum(c.macs for c in costs),
        sum(c.integer_macs for c in costs),
        sum(c.params for c in costs),
        sum(c.bytes for c in costs),
        sum(c.activations for c in costs),
    )


def _trips(node: Node, inference: Inference) -> int:
    """How often the body of a Loop or Scan runs where that is a known number, else 1; so too where the limit is so high
    that it is none, as exporters write a while-loop."""
    if node.op == "Loop":
        limit = node.input(0)
        fact = None if limit is None else inference.facts.get(limit)
        data = None if fact is None else fact.elements
        trips = data.reshape(-1)[0] if data is not None and data.size == 1 else None
        return max(0, trips) if isinstance(trips, int) and trips < _ENDLESS else 1
    if node.op == "Scan":
        count = node.get_int("num_scan_inputs")
        axis = node.get_ints("scan_input_axes", (0,) * count)[0]
        scanned = node.input(len(node.inputs) - count)
        shape = None if scanned is None else _sizes(inference.shape(scanned))
        return shape[axis] if shape else 1
    return 1


def _sizes(shape: tuple[Size, ...] | None) -> tuple[int, ...] | None:
    """The shape with every symbol as 1."""
    return None if shape is None else tuple(s if isinstance(s, int) else max(1, s.at_ones()) for s in shape)


def _bytes(value: Value, inference: Inference) -> int:
    fact = inference.facts.get(value)
    shape = None if fact is None else _sizes(fact.shape)
    return 0 if fact is None or shape is None else fact.dtype.file_bytes(math.prod(shape))
