"""Forms that keep ONNX Runtime from fusing an integer layer with what follows before it looks for integer kernels.

    MatMul or Gemm -> Relu              ->  Max(x, 0)
    MatMul or Gemm -> Clip              ->  Min(Max(x, low), high)
    MatMul of rank 2 -> Add             ->  Sum(x, y)

The same numbers. The first two: of a product that only an activation reads, the runtime asks that codes follow behind
the activation; where floats do, it takes no integer kernel and decodes the weight at every run, five to ten times as
slow as the float model. The third: it makes a Gemm of a product of rank 2 and a sum, and has no integer kernel for a
Gemm whose third input is computed.

Fires where nothing but the activation or the sum reads the product, and the activation is no output of the model and
has one reader, which does not encode.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ....ir.graph import Graph, Node, Value
from ...walk.linear import Linear


def keep_apart(graph: Graph, layers: Iterable[Linear]) -> int:
    """Write what follows `layers`, those of integers, in such forms; returns how often."""
    count = 0
    for layer in layers:
        reader = _only_reader(layer.node.output)
        if layer.op == "Conv" or reader is None or reader.domain:
            continue
        if reader.op in ("Relu", "Clip"):
            behind = _only_reader(reader.output)
            if behind is None or behind.op == "QuantizeLinear":
                continue
            terms = _clamp(graph, reader)
        elif (
            reader.op == "Add" and layer.op == "MatMul" and (layer.source.shape is None or len(layer.source.shape) == 2)
        ):
            terms = [("Sum", [v for v in reader.inputs if v is not layer.node.output])]
        else:
            continue
        if terms:
            _replace(graph, reader, layer.node.output, terms)
            count += 1
    return count


def _only_reader(value: Value) -> Node | None:
    reader = value.users[0] if len(value.uses) == 1 and value.users and not value.is_output else None
    return reader if reader is not None and reader.graph is value.graph else None


def _clamp(graph: Graph, node: Node) -> list[tuple[str, list[Value | None]]]:
    """The operators, each with what it reads besides the answer of the one before, that clamp as `node` does."""
    if node.op == "Relu":
        return [("Max", [graph.constant(np.float32(0), "zero")])]
    return [(op, [bound]) for op, bound in (("Max", node.input(1)), ("Min", node.input(2))) if bound is not None]


def _replace(graph: Graph, node: Node, read: Value, terms: list[tuple[str, list[Value | None]]]) -> None:
    for op, others in terms:
        step = graph.add(
            op, [read, *others], outputs=[node.output.name], types=[node.output.type], name=node.name,
            origin=node.origin, before=node,
        )  # fmt: skip
        read = step.output
    node.output.replace_uses(read)
    graph.remove(node)
