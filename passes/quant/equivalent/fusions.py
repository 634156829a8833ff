"""Forms that keep ONNX Runtime from fusing an integer layer with what follows before it looks for integer kernels, and
from rounding the weights of a float layer.

    MatMul or Gemm -> Relu              ->  Max(x, 0)
    MatMul or Gemm -> Clip              ->  Min(Max(x, low), high)
    MatMul of rank 2 -> Add             ->  Sum(x, y)
    layer in float -> QuantizeLinear    ->  QuantizeLinear(Max(x, the least float))
    layer in float -> Relu              ->  Max(x, 0)

The same numbers. The first two: of a product that only an activation reads, the runtime asks that codes follow behind
the activation; where floats do, it takes no integer kernel and decodes the weight at every run, five to ten times as
slow as the float model. The third: it makes a Gemm of a product of rank 2 and a sum, and has no integer kernel for a
Gemm whose third input is computed.

The last two: what ONNX Runtime finds between codes with weights in float it rounds to 8 bits itself, with one scale for
all of them, which is what a layer was left in float for. It looks past a clamp, and past what only moves elements, on
both sides.

The first three fire where nothing but the activation or the sum reads the product, and the activation is no output of
the model and has one reader, which does not encode.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

import numpy as np

from ....ir import ops
from ....ir.graph import Graph, Node, Value
from ....ir.types import DType
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
    return count + keep_weights(graph)


def keep_weights(graph: Graph, but: Container[Node] = ()) -> int:
    """Keep the runtime from rounding weights of float layers, `but` those that are still to be quantized."""
    layers = [node for node in graph if node.op in _ROUNDED and not node.domain and node not in but]
    return sum(_keep_weights(graph, node) for node in layers)


def _keep_weights(graph: Graph, node: Node) -> bool:
    """Put a Max that changes no code behind a float layer between codes; whether it is one."""
    source, weight, reader = _behind_moves(node.input(0)), node.input(1), _only_reader(node.output)
    if reader is None or not _encodes(reader) or not _decoded(source) or _decoded(weight):
        return False
    if reader.op == "Relu":
        _replace(graph, reader, node.output, _clamp(graph, reader))
        return True
    half = node.output.dtype is DType.FLOAT16
    least = graph.constant(np.finfo(np.float16).min if half else np.finfo(np.float32).min, "least")
    kept = graph.add(
        "Max", [node.output, least], types=[node.output.type], name=f"{node.label}_kept", origin=node.origin, after=node
    ).output
    reader.set_input(0, kept)
    return True


_ROUNDED = frozenset({"Conv", "ConvTranspose", "Gemm"})
"""Layers whose weights ONNX Runtime rounds by itself between codes."""

_MOVED = ops.VIEWS | {"Cast", "Dropout", "Expand", "Identity", "MaxPool", "Slice", "Transpose"}
"""Operators past which the runtime moves codes before it looks for such layers."""


def _behind_moves(value: Value | None) -> Value | None:
    while value is not None and value.producer is not None and value.producer.op in _MOVED:
        value = value.producer.input(0)
    return value


def _decoded(value: Value | None) -> bool:
    return value is not None and value.producer is not None and value.producer.op == "DequantizeLinear"


def _encodes(node: Node) -> bool:
    """Whether what `node` reads becomes codes and nothing else, at once or behind what clamps and moves it."""
    behind: Node | None = node
    while behind is not None and behind.op in _MOVED | ops.CLAMPS:
        behind = _only_reader(behind.output)
    return behind is not None and behind.op == "QuantizeLinear"


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
