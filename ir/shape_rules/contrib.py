"""ONNX Runtime's own operators (`com.microsoft`) that its optimiser and its quantizer leave in models."""

from __future__ import annotations

from . import elementwise, products, quantized, windows
from .call import Call, Fact, Rule


def like_zero_point(index: int) -> Rule:
    """Elementwise on quantized inputs: A, its scale and zero point, B, its scale and zero point, then C's."""

    def rule(call: Call) -> list[Fact]:
        shapes = [call.shape(0)] + ([call.shape(3)] if index == 7 else [])
        return [Fact(call.fact(0).dtype, call.broadcast(shapes))]

    return rule


def qgemm(call: Call) -> list[Fact]:
    a, b = call.shape(0), call.shape(3)
    rows = a[1] if call.node.get_int("transA") else a[0]
    columns = b[0] if call.node.get_int("transB") else b[1]
    return [Fact(call.fact(8).dtype if call.has(8) else call.fact(6).dtype, (rows, columns))]


def matmul_n_bits(call: Call) -> list[Fact]:
    return [Fact(call.fact(0).dtype, (*call.shape(0)[:-1], call.node.get_int("N")))]


def matmul_to_float(call: Call) -> list[Fact]:
    """MatMulIntegerToFloat and DynamicQuantizeMatMul: the scales' type comes out."""
    [result] = products.matmul(call)
    return [Fact(call.fact(2).dtype, result.shape)]


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Gelu", "FastGelu", "QuickGelu", "BiasGelu", "BiasSoftmax"), elementwise.same),
    **{op: like_zero_point(7) for op in ("QLinearAdd", "QLinearMul")},
    **{op: like_zero_point(4) for op in ("QLinearSigmoid", "QLinearLeakyRelu")},
    "QuantizeLinear": quantized.quantize,
    "DequantizeLinear": quantized.dequantize,
    "FusedConv": windows.conv,
    "FusedGemm": products.gemm,
    "QGemm": qgemm,
    "MatMulNBits": matmul_n_bits,
    "MatMulIntegerToFloat": matmul_to_float,
    "DynamicQuantizeMatMul": matmul_to_float,
}
