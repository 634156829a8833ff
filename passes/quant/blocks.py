"""Weights with one scale for every `block` neighbours along the reduction axis (`block=32`), computed with in float.

Long rows hold weights of very different size; a scale for each block follows them, at a cost of 32 / block bits a
weight. int8 codes are decoded by an expression over constants,

    weight = Reshape(Cast(Reshape(codes, (..., blocks, block, ...))) * scales)

which runtimes fold when they load the model. Where the codes have four bits and the layer is a MatMul, the standard

    DequantizeLinear(codes, scales, axis = reduction axis, block_size = block)         (opset 21)

is written instead, which ONNX Runtime fuses with the MatMul into one kernel, MatMulNBits: weights stay at four bits in
memory too, which makes products of few rows faster than float. (With eight bits that kernel is slower than float.)

Does not fire where the reduction is no multiple of the block, or is no longer than one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...ir.graph import Graph, Value
from ...ir.origin import Origin
from ...ir.types import DType, TensorType
from ..base import Report, Skip
from .calibrate import Calibration
from .layers import Layer
from .parameters import rounding_error
from .weights import importance_of, quantize_rows, reduction_rows, weight_of_rows

OPSET = 21
"""DequantizeLinear has blocks, and int4 exists, from here on."""


def store_blocks(
    graph: Graph, layers: Sequence[Layer], seen: Calibration, dtype: DType, block: int, report: Report
) -> None:
    """Let every layer read its weight from codes with a scale a block; `dtype` is int8 or int4."""
    made: dict[Value, tuple[Value, float]] = {}
    for layer in layers:
        try:
            if layer.weight not in made:
                made[layer.weight] = _store(graph, layer, seen.energy.get(layer.source), dtype, block)
        except Skip as skip:
            report.skipped(layer.name, layer.op, skip.reason)
            continue
        value, error = made[layer.weight]
        layer.node.set_input(1, value)
        if layer.transposed and fuses(graph, layer, dtype, block):
            layer.node.set_attribute("transB", 0)
        report.done(layer.name, layer.op, bits=dtype.bits, block=block, error=round(error, 6))


def encode_blocks(
    layer: Layer, energy: NDArray[np.float64] | None, dtype: DType, block: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes (n, d) and scales (n, d / block) of a layer's weight, its reduction axis last.

    Raises `Skip` where the reduction cannot be parted into blocks.
    """
    weight = np.asarray(layer.weight.numpy(), np.float32)
    rows = reduction_rows(weight, layer.op, transposed=layer.transposed)
    n, d = rows.shape
    if d % block or d <= block:
        raise Skip(f"the reduction over {d} is not made of blocks of {block}")
    h = importance_of(layer, energy, rows.shape)
    if h is not None:
        h = np.broadcast_to(h, rows.shape).reshape(-1, block)
    codes, scale = quantize_rows(rows.reshape(-1, block), dtype, importance=h)
    return codes.reshape(n, d), scale.reshape(n, d // block)


def fuses(graph: Graph, layer: Layer, dtype: DType, block: int) -> bool:
    """Whether the layer becomes MatMulNBits, whose weight is (reduction, outputs)."""
    power = block >= 16 and not block & (block - 1)
    return layer.op != "Conv" and dtype is DType.INT4 and power and graph.opset() >= OPSET


def _store(
    graph: Graph, layer: Layer, energy: NDArray[np.float64] | None, dtype: DType, block: int
) -> tuple[Value, float]:
    """What the layer is to read, and its error (`rounding_error`)."""
    codes, scale = encode_blocks(layer, energy, dtype, block)
    spread = (codes * np.repeat(scale, block, axis=1)).astype(np.float32)
    shape = layer.weight.constant.shape  # type: ignore[union-attr]
    numbers = weight_of_rows(spread, shape, layer.op, transposed=layer.transposed)
    error = rounding_error(layer, np.asarray(numbers, np.float32), energy)
    weight = layer.weight
    origin = Origin.merge([layer.node.origin], "quant")
    first = next(iter(graph))
    if fuses(graph, layer, dtype, block):
        inputs = [
            graph.constant(np.ascontiguousarray(codes.T).astype(dtype.numpy), weight.name),
            graph.constant(np.ascontiguousarray(scale.T), "scale"),
        ]
        made = graph.add(
            "DequantizeLinear", inputs, {"axis": 0, "block_size": block}, outputs=[weight.name], origin=origin,
            before=first,
        )  # fmt: skip
        return made.output, error
    # The kernel's order has the reduction last, so blocks are rows; the weight's own layout is restored by constants.
    stored = graph.constant(np.ascontiguousarray(codes.reshape(-1, block)).astype(dtype.numpy), weight.name)
    wide = graph.add("Cast", [stored], {"to": int(DType.FLOAT)}, origin=origin, before=first).output
    scales = graph.constant(scale.reshape(-1, 1), "scale")
    product = graph.add("Mul", [wide, scales], origin=origin, before=first).output
    return _laid_out(graph, product, layer, origin), error


def _laid_out(graph: Graph, rows: Value, layer: Layer, origin: Origin) -> Value:
    """`rows` (n * d / block, block) in the layout of the layer's weight."""
    weight = layer.weight
    assert weight.constant is not None
    shape = weight.constant.shape
    first = rows.producer
    conv = layer.op == "Conv" and len(shape) > 2
    inner = (shape[0], *shape[2:], shape[1]) if conv else shape if layer.axis == 0 else shape[::-1]
    sizes = graph.constant(np.asarray(inner, np.int64), "shape")
    answer = graph.add("Reshape", [rows, sizes], origin=origin, after=first)
    if conv or layer.axis:
        order = [0, len(shape) - 1, *range(1, len(shape) - 1)] if conv else [1, 0]
        answer = graph.add("Transpose", [answer.output], {"perm": order}, origin=origin, after=answer)
    answer.output.name, answer.output.type = weight.name, TensorType(DType.FLOAT, shape)
    return answer.output
