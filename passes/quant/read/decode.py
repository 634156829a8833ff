"""A quantized model back in float, for quantizing it anew (`requantize=redo`).

Weights and biases become what their codes stand for. A QuantizeLinear does two things to a number, rounding and
clipping; rounding is what is to be done anew, but clipping may be all that is left of a Relu, so it stays:

    DequantizeLinear(constant)          ->  constant
    QuantizeLinear(x; scale, zero)      ->  Clip(x, scale * (low - zero), scale * (high - zero))
    DequantizeLinear(codes)             ->  codes, which are floats now, scaled and shifted where they are read by other
                                            parameters than they were made by; as it was for rows of a table, and inputs
    QLinearConv, QLinearMatMul, QGemm   ->  the same of the above and Conv, MatMul, Gemm

and whatever carried codes about carries floats. Raises `ModelError` for what finds its ranges as it runs
(DynamicQuantizeLinear, MatMulInteger, ...), for scales that are computed or one a channel, and for other integer ops.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ....errors import ModelError
from ....ir.graph import Graph, Node, Value
from ....ir.origin import Origin
from ....ir.types import DType, TensorType
from ..layers import is_quantized
from ..numbers.params import QuantParams, limits
from .spread import QOPERATORS, spread
from .unpack import unpack

Encodings: TypeAlias = "dict[Value, QuantParams]"
"""Floats that stand for codes, with the grid that they were on."""


def decode(graph: Graph) -> int:
    """Turn the quantized ops of `graph` into float ones; returns how many it did. Raises `ModelError`."""
    quantized = [node for node in graph.walk() if is_quantized(node)]
    for node in quantized:
        simple = node.op in ("QuantizeLinear", "DequantizeLinear") or node.op in QOPERATORS
        if not simple or node.graph is not graph:
            where = "" if node.graph is graph else " in the body of a control-flow node"
            raise ModelError(
                f"graph '{graph.name}': {node.op} '{node.label}'{where} cannot be turned back into float; "
                "leave the model as it is with requantize=keep, or start from the float model"
            )
    unpack(graph)
    spread(graph)
    if left := [node for node in graph if node.op in QOPERATORS]:
        raise ModelError(f"graph '{graph.name}': the scale of {left[0].op} '{left[0].label}' is computed")
    params: Encodings = {}
    for node in tuple(graph):
        if node.op == "QuantizeLinear":
            clip(graph, node, params)
        elif node.op == "DequantizeLinear":
            _decoded(graph, node, params)
        elif node.inputs and node.inputs[0] in params:
            carry(graph, node, params)
    graph.sweep()
    return len(quantized) - sum(map(is_quantized, graph))


def clip(graph: Graph, node: Node, encoding: Encodings) -> None:
    """Put the clipping that a QuantizeLinear does in its place."""
    value = node.inputs[0]
    assert value is not None
    if value.constant is not None:  # a weight that is rounded as the model runs
        node.output.replace_uses(value)
        graph.remove(node)
        return
    scale, zero = (_number(node.input(i)) for i in (1, 2))
    dtype = DType.UINT8 if node.input(2) is None else node.inputs[2].dtype  # type: ignore[union-attr]
    if scale is None or scale.size != 1 or dtype is None:
        raise ModelError(
            f"graph '{graph.name}': QuantizeLinear '{node.label}' has scales that are computed or one a channel; "
            "leave the model as it is with requantize=keep"
        )
    whole = np.asarray(scale.reshape(()), np.float32)
    params = QuantParams(whole, 0 if zero is None else int(zero.reshape(())), dtype, None, *limits(dtype))
    ends = [graph.constant(np.asarray(end, np.float32), "bound") for end in params.bounds]
    clipped = graph.add("Clip", [value, *ends], origin=Origin.merge([node.origin], "quant"), before=node).output
    clipped.type = TensorType(DType.FLOAT, node.output.shape)
    node.output.replace_uses(clipped)
    graph.remove(node)
    encoding[clipped] = params


def _decoded(graph: Graph, node: Node, encoding: Encodings) -> None:
    source = node.inputs[0]
    assert source is not None
    numbers = source.numpy()
    if numbers is None and source.dtype not in (DType.FLOAT, None):
        return  # quantized values that no QuantizeLinear made: gathered rows of a table, an input
    if numbers is None or numbers.dtype == np.float32:
        node.output.replace_uses(read_by(graph, node, source, encoding[source]) if source in encoding else source)
    else:
        node.output.replace_uses(graph.constant(_numbers(graph, node, numbers), source.name))
    graph.remove(node)


def read_by(graph: Graph, node: Node, source: Value, params: QuantParams) -> Value:
    """What `node` reads `source` as, which stands for codes of `params`:

    s' (q - z')  =  s' / s x + s' (z - z')
    """
    scale, zero = (_number(node.input(i)) for i in (1, 2))
    if scale is None or scale.size != 1:
        raise ModelError(
            f"graph '{graph.name}': DequantizeLinear '{node.label}' has scales that are computed or one a channel; "
            "leave the model as it is with requantize=keep"
        )
    unit, offset = float(scale.reshape(())), 0 if zero is None else int(zero.reshape(()))
    origin, kind = Origin.merge([node.origin], "quant"), TensorType(DType.FLOAT, source.shape)
    for op, number, neutral in (
        ("Mul", unit / params.unit, unit == params.unit),
        ("Add", unit * (params.zero_point - offset), offset == params.zero_point),
    ):
        if not neutral:
            other = graph.constant(np.asarray(number, np.float32), "number")
            source = graph.add(op, [source, other], types=[kind], origin=origin, before=node).output
    return source


def _numbers(graph: Graph, node: Node, codes: NDArray[np.generic]) -> NDArray[np.float32]:
    scale, zero = (_number(node.input(i)) for i in (1, 2))
    if scale is None:
        raise ModelError(f"graph '{graph.name}': the scale of DequantizeLinear '{node.label}' is computed")
    axis = node.get_int("axis", 1) % max(codes.ndim, 1)
    offset = np.zeros_like(scale, np.float32) if zero is None else zero.astype(np.float32)
    block = node.get_int("block_size")
    if block:
        spread = [np.repeat(a, block, axis)[tuple(slice(n) for n in codes.shape)] for a in (scale, offset)]
    elif scale.size == 1:
        spread = [scale.reshape(()), offset.reshape(())]
    else:
        shape = [-1 if i == axis else 1 for i in range(codes.ndim)]
        spread = [scale.reshape(shape), np.broadcast_to(offset, scale.shape).reshape(shape)]
    return np.asarray((codes.astype(np.float32) - spread[1]) * spread[0], np.float32)


def carry(graph: Graph, node: Node, encoding: Encodings) -> None:
    """An op that carried codes about and carries floats now; what a Pad fills with is decoded."""
    params = encoding[node.inputs[0]]  # type: ignore[index]
    for value in node.outputs:
        if value.type is not None and value.dtype is params.dtype:
            encoding[value] = params
            value.type = TensorType(DType.FLOAT, value.shape)
    if node.op == "Clip":
        for index in (1, 2):
            if (end := _number(node.input(index))) is not None:
                number = np.asarray(params.dequantize(end), np.float32).reshape(())
                node.set_input(index, graph.constant(number, "bound"))
    if node.op == "Pad" and node.get_string("mode", "constant") == "constant" and node.outputs[0] in encoding:
        fill = _number(node.input(2))
        number = params.dequantize(np.zeros((), np.int32) if fill is None else np.asarray(fill))
        node.set_input(2, graph.constant(np.asarray(number, np.float32).reshape(()), "fill"))


def _number(value: Value | None) -> NDArray[np.generic] | None:
    return None if value is None else value.numpy()
