"""Integer operators as what they stand for.

    QLinearConv, QLinearMatMul, QGemm   ->   DequantizeLinear -> Conv, MatMul, Gemm -> QuantizeLinear

The form that passes and other compilers take. Does not fire where a scale is computed: what stands for one number a
channel cannot be told then (`unpack.py` writes out what follows from constants).
"""

from __future__ import annotations

import numpy as np

from ....ir.graph import Graph, Node, Value

QOPERATORS = {"QLinearConv": "Conv", "QLinearMatMul": "MatMul", "QGemm": "Gemm"}


def spread(graph: Graph) -> int:
    """Spread all integer operators of `graph`; returns how many."""
    operators = [node for node in graph if node.op in QOPERATORS and _are_known(node)]
    for node in operators:
        _spread(graph, node)
    return len(operators)


def _are_known(node: Node) -> bool:
    scales = (node.input(index) for index in (1, 4))
    return all(scale is not None and scale.constant is not None for scale in scales)


def _spread(graph: Graph, node: Node) -> None:
    x = node.inputs
    gemm = node.op == "QGemm"
    first, second = x[0:3], x[3:6]
    bias, answer = (x[6], x[7:9]) if gemm else (x[8] if len(x) > 8 else None, x[6:8])

    def decoded(parts: tuple[Value | None, ...], axis: int) -> Value:
        codes, scale, zero = parts
        many = scale is not None and scale.constant is not None and scale.constant.size > 1
        attributes = {"axis": axis} if many else {}
        if many and zero is not None and zero.constant is not None and zero.constant.size == 1:
            zero = None if not np.any(zero.numpy()) else _for_all(graph, zero, scale)
        return graph.add("DequantizeLinear", [codes, scale, zero], attributes, origin=node.origin, before=node).output

    axis = 0 if node.op == "QLinearConv" or (gemm and node.get_int("transB")) else 1
    inputs = [decoded(first, 1), decoded(second, axis)]
    if bias is not None:
        scales = [np.asarray(v.numpy(), np.float32).reshape(-1) for v in (x[1], x[4]) if v is not None]
        scale = graph.constant(np.ascontiguousarray(np.squeeze(scales[0] * scales[1])), "scale")
        inputs.append(decoded((bias, scale, None), 0))
    attributes = node.attributes
    value = graph.add(QOPERATORS[node.op], inputs, attributes, name=node.name, origin=node.origin, before=node).output
    if answer and answer[0] is not None:
        value = graph.add("QuantizeLinear", [value, *answer], origin=node.origin, before=node).output
    node.output.replace_uses(value)
    graph.remove(node)


def _for_all(graph: Graph, zero: Value, scale: Value | None) -> Value:
    """One zero point as one for each of the scales, which DequantizeLinear asks for."""
    assert scale is not None
    assert scale.constant is not None
    numbers = np.asarray(zero.numpy()).reshape(-1)
    return graph.constant(np.repeat(numbers, scale.constant.size), zero.name)
