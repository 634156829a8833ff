"""Quantization operators: the shape is the input's, the element type comes from zero point, attribute or scale."""

from __future__ import annotations

from ...types import DType
from .call import Call, Fact, Rule


def quantize(call: Call) -> list[Fact]:
    dtype = DType(call.node.get_int("output_dtype"))
    if call.has(2):
        dtype = call.fact(2).dtype
    return [Fact(dtype or DType.UINT8, call.fact(0).shape)]


def dequantize(call: Call) -> list[Fact]:
    dtype = DType(call.node.get_int("output_dtype")) or call.fact(1).dtype
    return [Fact(dtype, call.fact(0).shape)]


def dynamic_quantize(call: Call) -> list[Fact]:
    return [Fact(DType.UINT8, call.fact(0).shape), Fact(DType.FLOAT, ()), Fact(DType.UINT8, ())]


RULES: dict[str, Rule] = {
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    "DynamicQuantizeLinear": dynamic_quantize,
}
