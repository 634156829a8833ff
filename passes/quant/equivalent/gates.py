"""Activations that are a value times a gate of it, as the two operators, each of which has an integer kernel.

    HardSwish(x) = x HardSigmoid(x; 1/6, 1/2)
    Swish(x)     = x Sigmoid(x)                 where its alpha is 1

Exact. The runtime spells them so itself where it computes them in float.
"""

from __future__ import annotations

from ....ir.graph import Graph, Node
from ....ir.origin import Origin
from ....ir.types import DType


def spell_gates(graph: Graph) -> dict[Node, list[Node]]:
    """Rewrite every such activation of `graph`; returns what took the place of each."""
    return {node: _spell(graph, node) for node in graph if _is_gated(node)}


def _is_gated(node: Node) -> bool:
    x = node.input(0)
    if node.domain or x is None or x.dtype is not DType.FLOAT:
        return False
    return node.op == "HardSwish" or (node.op == "Swish" and node.get_float("alpha", 1.0) == 1.0)


def _spell(graph: Graph, node: Node) -> list[Node]:
    origin, x = Origin.merge([node.origin], "quant"), node.inputs[0]
    hard = node.op == "HardSwish"
    gate = graph.add(
        "HardSigmoid" if hard else "Sigmoid", [x], {"alpha": 1 / 6, "beta": 0.5} if hard else {},
        outputs=[f"{node.output.name}_gate"], types=[node.output.type], origin=origin, before=node,
    )  # fmt: skip
    product = graph.add(
        "Mul", [x, gate.output], outputs=[node.output.name], types=[node.output.type], name=node.name, origin=origin,
        before=node,
    )  # fmt: skip
    node.output.replace_uses(product.output)
    graph.remove(node)
    return [gate, product]
