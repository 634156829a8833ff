"""ONNX Runtime's own operators (`com.microsoft`) that its optimiser and its quantizers leave in models.

The quantized forms take a scale and a zero point after every tensor; the result has the type of its zero point, which
is that of the first input.
"""

from __future__ import annotations

from ..symbols import Size
from . import elementwise, products, quantized, selection, windows
from .call import Call, Fact, Rule


def fused_matmul(call: Call) -> list[Fact]:
    """MatMul after the last two axes of either side are swapped."""
    if call.node.get_int("transBatchA") or call.node.get_int("transBatchB"):
        return [Fact(call.fact(0).dtype, call.unknown(len(call.shape(0))))]
    a, b = call.shape(0), call.shape(1)
    left = (*a[:-2], a[-1], a[-2]) if call.node.get_int("transA") and len(a) > 1 else a
    right = (*b[:-2], b[-1], b[-2]) if call.node.get_int("transB") and len(b) > 1 else b
    return [Fact(call.fact(0).dtype, products.product_shape(call, left, right))]


def quantized_binary(call: Call) -> list[Fact]:
    return [Fact(call.fact(0).dtype, call.broadcast([call.shape(0), call.shape(3)]))]


def quantized_global_pool(call: Call) -> list[Fact]:
    x = call.shape(0)
    ones: tuple[Size, ...] = (1,) * (len(x) - 2)
    last = call.node.get_int("channels_last")
    return [Fact(call.fact(0).dtype, (x[0], *ones, x[-1]) if last else (*x[:2], *ones))]


def quantized_concat(call: Call) -> list[Fact]:
    """The result's scale and zero point come first, then each tensor with its own."""
    parts = Call(call.node, call.facts[2::3], call.opset, call.version, call.counter, call.dims)
    return selection.concat(parts)


def qgemm(call: Call) -> list[Fact]:
    a, b = call.shape(0), call.shape(3)
    rows = a[1] if call.node.get_int("transA") else a[0]
    columns = b[0] if call.node.get_int("transB") else b[1]
    return [Fact(call.fact(8).dtype if call.has(8) else call.fact(1).dtype, (rows, columns))]


def matmul_n_bits(call: Call) -> list[Fact]:
    return [Fact(call.fact(0).dtype, (*call.shape(0)[:-1], call.node.get_int("N")))]


def matmul_to_float(call: Call) -> list[Fact]:
    """MatMulIntegerToFloat and DynamicQuantizeMatMul: the scales' type comes out."""
    [result] = products.matmul(call)
    return [Fact(call.fact(2).dtype, result.shape)]


_LIKE_FIRST = (
    *("BiasGelu", "FastGelu", "Gelu", "QuickGelu", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"),
    *("QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax"),
)

RULES: dict[str, Rule] = {
    **dict.fromkeys(_LIKE_FIRST, elementwise.same),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), quantized_binary),
    "DequantizeLinear": quantized.dequantize,
    "DynamicQuantizeMatMul": matmul_to_float,
    "FusedConv": windows.conv,
    "FusedGemm": products.gemm,
    "FusedMatMul": fused_matmul,
    "MatMulIntegerToFloat": matmul_to_float,
    "MatMulNBits": matmul_n_bits,
    "QGemm": qgemm,
    "QLinearAveragePool": windows.pool,
    "QLinearConcat": quantized_concat,
    "QLinearGlobalAveragePool": quantized_global_pool,
    "QuantizeLinear": quantized.quantize,
}
