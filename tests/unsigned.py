"""Quantized models with unsigned codes, to compare with: ONNX Runtime's integer kernels are exact on them everywhere.

Kernels for signed weights on x86 without VNNI sum products of two neighbours in 16 bits, which saturate; those for
unsigned weights do not. With 128 added to every int8 code and to its zero a model says the same, number by number.
"""

from __future__ import annotations

import numpy as np

from optc.errors import ModelError
from optc.ir.graph import Graph, Value
from optc.ir.node import Node
from optc.ir.ops import CODINGS, MOVES, REPEATS
from optc.ir.types import DType, TensorType

_HALF = 128
_MOVES = MOVES | REPEATS | {"MaxPool"}
"""What carries codes about and does not ask what they stand for, but for their order."""


def unsigned(graph: Graph) -> Graph:
    """A copy of `graph` with uint8 codes for int8 ones. Inputs and outputs of codes change their type with them.

    Constants that become floats at load stay as they are. Raises `ModelError` where something else computes with int8
    numbers that are no codes.
    """
    copy = graph.clone()
    for node in list(copy):
        _turn(copy, node)
    for value in (*copy.inputs, *(value for node in copy for value in node.outputs)):
        if value.dtype is DType.INT8:
            value.type = TensorType(DType.UINT8, value.shape)
    for output in copy.outputs:
        if isinstance(output.type, TensorType) and output.type.dtype is DType.INT8:
            output.type = TensorType(DType.UINT8, output.type.shape)
    copy.sweep()
    return copy


def _turn(graph: Graph, node: Node) -> None:
    signed = [value for value in (*node.inputs, *node.outputs) if value is not None and value.dtype is DType.INT8]
    if not signed or (node.op == "Cast" and all(value.constant is not None for value in signed)):
        return
    if node.domain or (node.op not in _MOVES and node.op not in CODINGS | {"Pad", "QLinearConv", "QLinearMatMul"}):
        raise ModelError(f"{node.op} '{node.name}' computes with int8 numbers: they have no unsigned form")
    if node.op == "DequantizeLinear" and node.input(2) is None:
        assert node.inputs[1] is not None
        shape = node.inputs[1].shape or ()
        node.set_input(2, graph.constant(np.full([int(size or 1) for size in shape], _HALF, np.uint8)))
    if node.op == "Pad" and node.input(2) is None and node.get_string("mode", "constant") == "constant":
        node.set_input(2, graph.constant(np.array(_HALF, np.uint8)))
    for index, value in enumerate(node.inputs):
        if value is not None and value.constant is not None and value.dtype is DType.INT8:
            node.set_input(index, _shifted(graph, value))


def _shifted(graph: Graph, value: Value) -> Value:
    assert value.constant is not None
    return graph.constant((value.constant.numpy().astype(np.int16) + _HALF).astype(np.uint8), value.name)
