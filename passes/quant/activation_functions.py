"""The function that all readers of a value compute of it, element by element, before anything else reads the result.

Behind a layer mostly stands an activation, in one operator or spelled out in several: x sigmoid(x), x hardsigmoid(x),
with a scale and a shift behind it. What counts of the layer's output is what that function makes of it: far below zero
SiLU and HardSwish are flat, and a range that reaches down there spends its codes on nothing. So the range is chosen by
the error behind the function (`numbers/ranges.py`).

The function is that of the longest chain of elementwise operators, with constants of one element, that starts at the
value, reads nothing else, and is left through one value alone. A value that is read otherwise too has none.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...ir.graph import Graph, Node, Value
from ...ir.types import DType
from .numbers.ranges import Floats, Function
from .qdq.placement import Placement

ELEMENTWISE = frozenset(
    {
        "Add", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Mul",
        "Neg", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sub", "Tanh",
    }
)  # fmt: skip
_AFFINE = frozenset({"Add", "Div", "Mul", "Neg", "Sub"})
LONGEST = 16
"""Nodes of a chain, at most."""


def activation_functions(graph: Graph, plan: Placement) -> dict[Value, Function]:
    """For the grid of each group that one value alone has, by that value: what its readers make of it. None where that
    is a scale and a shift."""
    shared = {first for value, first in plan.group.items() if first is not value}
    chains = {
        value: chain for value, first in plan.group.items() if first is value and value not in shared
        if (chain := _chain(value)) and any(node.op not in _AFFINE or _twice(node) for node in chain)
    }  # fmt: skip
    functions: dict[str, Function] = {}
    by_value = {}
    for value, chain in chains.items():
        text = _text(value, chain)
        if text not in functions:
            functions[text] = _function(graph, value, chain)
        by_value[value] = functions[text]
    return by_value


def _chain(value: Value) -> list[Node]:
    """The nodes of the longest chain, in order; none where there is no chain."""
    inside, nodes, longest = {value: None}, list[Node](), 0
    while len(nodes) < LONGEST and (node := next(_following(inside, nodes), None)) is not None:
        nodes.append(node)
        inside[node.output] = None
        if {v for v in inside if v.is_output or any(user not in nodes for user in v.users)} == {node.output}:
            longest = len(nodes)
    return nodes[:longest]


def _following(inside: dict[Value, None], nodes: list[Node]) -> Iterator[Node]:
    for value in inside:
        for user in value.users:
            if user in nodes or user.domain or user.op not in ELEMENTWISE or len(user.outputs) != 1:
                continue
            reads = [v for v in user.inputs if v is not None and v not in inside]
            if all(v.constant is not None and v.constant.size == 1 and v.dtype is DType.FLOAT for v in reads):
                yield user


def _twice(node: Node) -> bool:
    """Whether it computes with two values that both vary."""
    return sum(v is not None and v.constant is None for v in node.inputs) > 1


def _text(value: Value, chain: list[Node]) -> str:
    """The same for chains that compute the same."""
    numbers = {value: "x"} | {node.output: f"v{i}" for i, node in enumerate(chain)}
    return "; ".join(
        f"{node.op}({', '.join('' if v is None else numbers.get(v) or repr(v.numpy()) for v in node.inputs)})"
        + "".join(f" {name}={attribute.value!r}" for name, attribute in sorted(node.attributes.items()))
        for node in chain
    )


def _function(graph: Graph, value: Value, chain: list[Node]) -> Function:
    from ...ir.types import TensorType
    from ...runtime.session import Session

    alone = Graph("activation", opsets={"": graph.opset()})
    alone.header = graph.root.header
    kind = TensorType(DType.FLOAT, ("n",))
    copies = {value: alone.add_input("x", kind)}
    for node in chain:
        reads = [
            v if v is None else copies[v] if v in copies else alone.constant(np.asarray(v.numpy()).reshape(()))
            for v in node.inputs
        ]
        copies[node.output] = alone.add(node.op, reads, node.attributes, types=[kind]).output
    alone.add_output(copies[chain[-1].output], "y")
    session = Session(alone, threads=1)

    def function(x: Floats) -> Floats:
        return np.asarray(session.run({"x": x.astype(np.float32)})[0], np.float64)

    return function
