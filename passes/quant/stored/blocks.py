"""Weights with one scale for every `block` neighbours along the reduction axis (`block=32`), computed with in float.

Long rows hold weights of very different size; a scale for each block follows them, at a cost of 32 / block bits a
weight. int8 codes are decoded by an expression over constants,

    weight = Reshape(Cast(Reshape(codes, (..., blocks, block, ...))) * scales)

which runtimes fold when they load the model. Where the codes have four bits and the layer is a MatMul, the standard

    DequantizeLinear(codes, scales, axis = reduction axis, block_size = block)         (opset 21)

is written instead where products have few rows a sample. ONNX Runtime fuses it with the MatMul into one kernel,
MatMulNBits: weights stay at four bits in memory too, which makes such products faster than float. (With more rows, or
eight bits, that kernel is slower than float; how many are too many is measured: `four_bits.py`.)

Does not fire where the reduction is no multiple of the block, or is no longer than one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ....ir.graph import Graph, Node, Value
from ....ir.origin import Origin
from ....ir.types import DType, TensorType
from ...base import Report, Skip
from ...walk.linear import Linear
from ..calibrate import Calibration
from ..numbers.weights import quantize_rows, weight_error
from ..qdq.parameters import importance

OPSET = 21
"""DequantizeLinear has blocks, and int4 exists, from here on."""
_JOINS_GEMM = frozenset(["Elu", "HardSigmoid", "LeakyRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh"])


def store_blocks(
    graph: Graph, layers: Sequence[Linear], seen: Calibration, dtype: DType, block: int, report: Report
) -> None:
    """Let every layer read its weight from codes with a scale a block; `dtype` is int8 or int4."""
    written: dict[Value, tuple[Value, float]] = {}
    for layer in layers:
        try:
            weight = layer.weight
            if weight not in written:
                written[weight] = _store(graph, layer, importance(layer, seen.energy), dtype, block)
        except Skip as skip:
            report.skipped(layer.name, layer.op, skip.reason)
            continue
        value, error = written[weight]
        _read(graph, layer, value, dtype, block, False)
        report.done(layer.name, layer.op, bits=dtype.bits, block=block, weight_error=round(error, 6))


def write_blocks(
    graph: Graph,
    layer: Linear,
    codes: NDArray[np.int8],
    scale: NDArray[np.float32],
    dtype: DType,
    block: int,
    few: bool,
) -> None:
    """Let `layer`, which multiplies `few` rows a sample or many, read its weight from `codes` (n, d) with `scale`
    (n, d / block)."""
    _read(graph, layer, _written(graph, layer, codes, scale, dtype, block, few), dtype, block, few)


def has_blocks(d: int, block: int) -> bool:
    """Whether a reduction over `d` is made of blocks, of more than one."""
    return d % block == 0 and d > block


def fits_half(scale: NDArray[np.floating]) -> bool:
    """Whether float16 holds all of these scales to all of its digits."""
    limits = np.finfo(np.float16)
    return bool(scale.size) and float(limits.tiny) <= float(scale.min()) and float(scale.max()) <= float(limits.max)


def encode_blocks(
    layer: Linear, importance: NDArray[np.float64] | None, dtype: DType, block: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes (n, d) and scales (n, d / block) of a layer's weight, its reduction axis last.

    Raises `Skip` where the reduction cannot be parted into blocks.
    """
    rows = layer.kernel_rows()
    n, d = rows.shape
    if not has_blocks(d, block):
        raise Skip(f"the reduction over {d} is not made of blocks of {block}")
    h = None if importance is None else np.broadcast_to(importance, rows.shape).reshape(-1, block)
    codes, scale = quantize_rows(rows.reshape(-1, block), dtype, importance=h)
    return codes.reshape(n, d), scale.reshape(n, d // block)


def fuses(graph: Graph, layer: Linear, dtype: DType, block: int, few: bool) -> bool:
    """Whether the layer becomes MatMulNBits, whose weight is (reduction, outputs).

    Not a Gemm in front of an activation: ONNX Runtime makes one node of these two first, and then decodes the weight
    in every run, six times slower than float.
    """
    power = block >= 16 and not block & (block - 1)
    if not few or layer.op == "Conv" or dtype is not DType.INT4 or not power or graph.opset() < OPSET:
        return False
    readers = layer.node.output.users
    return not (layer.op == "Gemm" and len(readers) == 1 and readers[0].op in _JOINS_GEMM)


def _store(
    graph: Graph, layer: Linear, importance: NDArray[np.float64] | None, dtype: DType, block: int
) -> tuple[Value, float]:
    """What the layer is to read, and its error (`weight_error`)."""
    codes, scale = encode_blocks(layer, importance, dtype, block)
    decoded = (codes * np.repeat(scale, block, axis=1)).astype(np.float32)
    error = weight_error(layer.kernel_rows(), decoded, importance)
    return _written(graph, layer, codes, scale, dtype, block, False), error


def _read(graph: Graph, layer: Linear, value: Value, dtype: DType, block: int, few: bool) -> None:
    layer.node.set_input(1, value)
    if layer.op == "Gemm" and layer.axis == 0 and fuses(graph, layer, dtype, block, few):
        layer.node.set_attribute("transB", 0)


def _written(
    graph: Graph,
    layer: Linear,
    codes: NDArray[np.int8],
    scale: NDArray[np.float32],
    dtype: DType,
    block: int,
    few: bool,
) -> Value:
    weight = layer.weight
    origin = Origin.merge([layer.node.origin], "quant")
    first = next(iter(graph))
    if fuses(graph, layer, dtype, block, few):
        inputs = [
            graph.constant(np.ascontiguousarray(codes.T).astype(dtype.numpy), weight.name),
            _scales(graph, np.ascontiguousarray(scale.T), origin, first),
        ]
        return graph.add(
            "DequantizeLinear", inputs, {"axis": 0, "block_size": block}, outputs=[weight.name], origin=origin,
            before=first,
        ).output  # fmt: skip
    # The kernel's order has the reduction last, so blocks are rows; the weight's own layout is restored by constants.
    stored = graph.constant(np.ascontiguousarray(codes.reshape(-1, block)).astype(dtype.numpy), weight.name)
    wide = graph.add("Cast", [stored], {"to": int(DType.FLOAT)}, origin=origin, before=first).output
    scales = _scales(graph, scale.reshape(-1, 1), origin, first)
    product = graph.add("Mul", [wide, scales], origin=origin, before=first).output
    return _laid_out(graph, product, layer, origin)


def _scales(graph: Graph, scale: NDArray[np.float32], origin: Origin, before: Node) -> Value:
    """Scales stored as float16 where that holds them, and as they are elsewhere."""
    if not fits_half(scale):
        return graph.constant(scale, "scale")
    stored = graph.constant(scale.astype(np.float16), "scale")
    return graph.add("Cast", [stored], {"to": int(DType.FLOAT)}, origin=origin, before=before).output


def _laid_out(graph: Graph, rows: Value, layer: Linear, origin: Origin) -> Value:
    """`rows` (n * d / block, block) in the layout of the layer's weight."""
    weight = layer.weight
    shape = weight.static_shape or ()
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
