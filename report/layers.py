"""The layers of a graph and what each of them costs.

Work counts where it is done. Bytes count at the layer that uses them: a weight that is stored as codes, or in another
form that is computed from constants alone (DequantizeLinear, Cast, Transpose), belongs to the node that reads the
result, for that is the layer a person knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..ir.cost import GraphCost, cost
from ..ir.graph import Graph
from ..ir.node import Value
from ..ir.shapes import analyse
from ..ir.types import TensorType, Type
from .weights import prepares


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One node. `share` is its part of the model's MACs, `stored` that of its bytes; `output` its output's type."""

    name: str
    op: str
    output: str
    macs: int
    share: float
    params: int
    bytes: int
    stored: float


def layer_costs(
    graph: Graph, dims: Mapping[str, int] | None = None, found: GraphCost | None = None
) -> tuple[LayerCost, ...]:
    """Every node of the outermost graph that does work or holds bytes, in the graph's order.

    `dims` fixes symbolic sizes by name; `found` is the graph's cost where it is known already. Raises `ModelError`
    where shape inference does.
    """
    found = cost(graph, dims) if found is None else found
    inference = analyse(graph, dims, fresh=True)
    macs, stored = max(found.macs, 1), max(found.bytes, 1)
    carried: dict[Value, tuple[int, int]] = {}
    layers = []
    for node in graph:
        one = found.nodes[node]
        held = [carried.get(value, (0, 0)) for value in node.inputs if value is not None]
        params = one.params + sum(p for p, _ in held)
        size = one.bytes + sum(b for _, b in held)
        if prepares(node):
            carried[node.output] = params, size
        elif one.macs or size:
            kind = type_text(inference.type(node.output))
            name = node.name or node.output.name
            layers.append(LayerCost(name, node.op, kind, one.macs, one.macs / macs, params, size, size / stored))
    return tuple(layers)


def costliest(layers: Iterable[LayerCost], by: str, top: int) -> tuple[LayerCost, ...]:
    """The `top` layers with the most `macs` or `bytes`, of those that have any; equal ones in the graph's order."""
    return tuple(sorted((one for one in layers if getattr(one, by)), key=lambda one: -getattr(one, by))[:top])


def type_text(type: Type | None) -> str:
    """A type as a person reads it; `?` stands for what is unknown."""
    if not isinstance(type, TensorType):
        return "?" if type is None else str(type)
    if type.shape is None:
        return f"{type.dtype.text}[...]"
    return f"{type.dtype.text}[{', '.join('?' if d is None else str(d) for d in type.shape)}]"
