"""ONNX Runtime's own operators (`com.microsoft`) that its optimiser and its quantizers leave in models.

The quantized forms take a scale and a zero point after every tensor; the result has the type of its zero point, which
is that of the first input.
"""

from __future__ import annotations

from ...types import DType
from ..symbols import Size, floor_divide
from . import contrib_attention, elementwise, products, quantized, selection, windows
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


def dynamic_quantize_lstm(call: Call) -> list[Fact]:
    """Its weights are (directions, inputs, 4 hidden) and (directions, hidden, 4 hidden)."""
    x, recurrence = call.shape(0), call.shape(2)
    hidden: Size = call.node.get_int("hidden_size") or recurrence[1]
    dtype, directions = call.fact(0).dtype, recurrence[0]
    state = Fact(dtype, (directions, x[1], hidden))
    return [Fact(dtype, (x[0], directions, x[1], hidden)), state, state]


def skip_normalisation(call: Call) -> list[Fact]:
    """The normalised sum, its statistics, and the sum itself."""
    x = call.fact(0)
    reduced = Fact(DType.FLOAT, (*call.shape(0)[:-1], 1))
    return [Fact(x.dtype, x.shape), reduced, reduced, Fact(x.dtype, x.shape)]


def embed_normalisation(call: Call) -> list[Fact]:
    """The normalised sum of embeddings (batch, length, hidden), where each mask ends (batch,), and the sum."""
    ids, table = call.shape(0), call.fact(2)
    width = call.shape(2)[1]
    dtype = call.fact(5).dtype if call.has(5) else table.dtype
    result = Fact(dtype, (*ids, width))
    return [result, Fact(DType.INT32, ids[:1]), result]


def split_gelu(call: Call) -> list[Fact]:
    *rest, width = call.shape(0)
    return [Fact(call.fact(0).dtype, (*rest, floor_divide(width, 2)))]


def reorder_input(call: Call) -> list[Fact]:
    """Channels as they are to channels in blocks: enough to fill the last block, whose size is the machine's."""
    batch, *sizes = call.shape(0)
    positions = sizes[:-1] if call.node.get_int("channels_last") else sizes[1:]
    return [Fact(call.fact(0).dtype, (batch, call.fresh(), *positions))]


def reorder_output(call: Call) -> list[Fact]:
    """Channels in blocks to channels as they are, of which the last block may hold fewer."""
    batch, _, *positions = call.shape(0)
    channels = call.node.get_int("channels")
    last = call.node.get_int("channels_last")
    return [Fact(call.fact(0).dtype, (batch, *positions, channels) if last else (batch, channels, *positions))]


_LIKE_FIRST = (
    *("BiasAdd", "BiasDropout", "BiasGelu", "BiasSoftmax", "BitmaskDropout", "FastGelu", "Gelu", "QuickGelu"),
    *("GroupNorm", "Inverse", "MoE", "QMoE", "RotaryEmbedding", "SkipGroupNorm", "Trilu"),
    *("QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax"),
)

RULES: dict[str, Rule] = {
    **dict.fromkeys(_LIKE_FIRST, elementwise.same),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), quantized_binary),
    **contrib_attention.RULES,
    "BiasSplitGelu": split_gelu,
    "DequantizeLinear": quantized.dequantize,
    "DynamicQuantizeLSTM": dynamic_quantize_lstm,
    "DynamicQuantizeMatMul": matmul_to_float,
    "EmbedLayerNormalization": embed_normalisation,
    "FusedConv": windows.conv,
    "FusedGemm": products.gemm,
    "FusedMatMul": fused_matmul,
    "GemmFastGelu": products.matmul,
    "MatMulBnb4": matmul_n_bits,
    "MatMulIntegerToFloat": matmul_to_float,
    "MatMulNBits": matmul_n_bits,
    "QGemm": qgemm,
    "QLinearAveragePool": windows.pool,
    "QLinearConcat": quantized_concat,
    "QLinearGlobalAveragePool": quantized_global_pool,
    "QuantizeLinear": quantized.quantize,
    "SkipLayerNormalization": skip_normalisation,
    "SkipSimplifiedLayerNormalization": skip_normalisation,
    "TransposeMatMul": fused_matmul,
}

BLOCKED: dict[str, Rule] = {
    "Conv": windows.conv,
    "ReorderInput": reorder_input,
    "ReorderOutput": reorder_output,
    **dict.fromkeys(("MaxPool", "AveragePool"), windows.pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), windows.global_pool),
}
"""Of operators on channels in blocks (`com.microsoft.nchwc`), which ONNX Runtime's optimizer writes."""
