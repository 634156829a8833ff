"""The layers of a graph and what each of them costs.

Work counts where it is done. Bytes count at the layer that uses them: a weight that is stored as codes, or in another
form that is computed from constants alone (DequantizeLinear, Cast, Transpose), belongs to the node that reads the
result, for that is the layer a person knows.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from ..ir.cost import GraphCost, cost
from ..ir.graph import Graph
from ..ir.node import Node, Value
from ..ir.shapes.infer import analyse
from ..ir.stored import tensor_of
from ..ir.types import MapType, OpaqueType, OptionalType, SequenceType, TensorType, Type


@dataclass(frozen=True, slots=True)
class ListedLayer:
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
    graph: Graph, dims: Mapping[str, int] | None = None, whole: GraphCost | None = None
) -> tuple[ListedLayer, ...]:
    """Every node of the outermost graph that does work or holds bytes, in the graph's order.

    `dims` fixes symbolic sizes by name; `whole` is the graph's cost where it is known already. Raises `ModelError`
    where shape inference does.
    """
    whole = cost(graph, dims) if whole is None else whole
    inference = analyse(graph, dims, fresh=True)
    macs, stored = max(whole.macs, 1), max(whole.bytes, 1)
    carried: dict[Value, tuple[float, float]] = {}
    layers = []
    for node in graph:
        one = whole.nodes[node]
        read = [carried.get(value, (0, 0)) for value in node.inputs if value is not None]
        params = one.params + round(sum(p for p, _ in read))
        size = one.bytes + round(sum(b for _, b in read))
        if _is_known(node, carried):
            elements = [_elements(inference.type(value)) for value in node.outputs]
            total = sum(elements)
            for value, count in zip(node.outputs, elements, strict=True):
                share = count / total / max(len(value.uses), 1)
                carried[value] = params * share, size * share
        elif one.macs or size:
            kind = type_text(inference.type(node.output)) if node.outputs else ""
            name = node.label
            layers.append(ListedLayer(name, node.op, kind, one.macs, one.macs / macs, params, size, size / stored))
    return tuple(layers)


def _is_known(node: Node, values: Container[Value]) -> bool:
    """Whether all that a node reads is constants and what is computed from such, `values`."""
    if not node.inputs or any(value.is_output for value in node.outputs):
        return False
    return all(value is None or value in values or tensor_of(value) is not None for value in node.inputs)


def _elements(type: Type | None) -> int:
    """How many numbers a tensor of known sizes holds; 1 where they are not known."""
    sizes = type.shape if isinstance(type, TensorType) else None
    return math.prod(size if isinstance(size, int) else 1 for size in sizes or ()) or 1


def costliest(layers: Iterable[ListedLayer], by: str, top: int) -> tuple[ListedLayer, ...]:
    """The `top` layers with the most `macs` or `bytes`, of those that have any; equal ones in the graph's order."""
    return tuple(sorted((one for one in layers if getattr(one, by)), key=lambda one: -getattr(one, by))[:top])


def type_text(type: Type | None) -> str:
    """A type as a person reads it; `?` stands for what is unknown."""
    match type:
        case None:
            return "?"
        case SequenceType():
            return f"sequence of {type_text(type.element)}"
        case OptionalType():
            return f"optional {type_text(type.element)}"
        case MapType():
            return f"map from {type.key.text} to {type_text(type.value)}"
        case OpaqueType():
            return f"opaque {type.name or type.domain}"
    if type.shape is None:
        return f"{type.dtype.text}[...]"
    return f"{type.dtype.text}[{', '.join('?' if d is None else str(d) for d in type.shape)}]"
