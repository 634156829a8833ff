"""Operators whose output has the shape of one input or of all inputs broadcast together."""

from __future__ import annotations

import numpy as np

from ...types import DType
from .arithmetic import UNARY, converted, follow, mapped
from .call import Call, Fact, Rule


def same(call: Call) -> list[Fact]:
    """Output 0 is like input 0; its elements are followed through Identity alone."""
    x = call.fact(0)
    return [Fact(x.dtype, x.shape)]


def identity(call: Call) -> list[Fact]:
    x = call.fact(0)
    return [Fact(x.dtype, x.shape, x.elements, x.other, x.tensor)]


def boolean(call: Call) -> list[Fact]:
    return [Fact(DType.BOOL, call.shape(0))]


def dropout(call: Call) -> list[Fact]:
    x = call.fact(0)
    mask = DType.BOOL if call.opset >= 10 else x.dtype
    return [Fact(x.dtype, x.shape), Fact(mask, x.shape)]


def cast(call: Call) -> list[Fact]:
    x = call.fact(0)
    to = call.node.get_int("to")
    dtype = DType(to) if to else DType[call.node.get_string("to", "UNDEFINED").upper()]
    return [Fact(dtype, x.shape, converted(x, dtype))]


def cast_like(call: Call) -> list[Fact]:
    x = call.fact(0)
    return [Fact(call.fact(1).dtype, x.shape, converted(x, call.fact(1).dtype))]


def broadcast(call: Call) -> list[Fact]:
    """All inputs broadcast together, as ONNX does since opset 7 (8 for Sum, Mean, Max and Min)."""
    x = call.fact(0)
    if call.opset < 7 and call.node.op not in ("Sum", "Mean", "Max", "Min"):
        return [Fact(x.dtype, x.shape)]
    shape = call.broadcast([call.shape(i) for i in range(len(call.facts))])
    return [Fact(x.dtype, shape, follow(call, shape))]


def compare(call: Call) -> list[Fact]:
    [result] = broadcast(call)
    return [Fact(DType.BOOL, result.shape, result.data)]


def where(call: Call) -> list[Fact]:
    shape = call.broadcast([call.shape(i) for i in range(3)])
    return [Fact(call.fact(1).dtype, shape, follow(call, shape))]


def logical_not(call: Call) -> list[Fact]:
    data = call.data(0)
    return [Fact(DType.BOOL, call.shape(0), None if data is None else np.asarray(np.logical_not(data), object))]


def unary(call: Call) -> list[Fact]:
    """The unary operators of shape arithmetic."""
    x = call.fact(0)
    return [Fact(x.dtype, x.shape, None if x.elements is None else mapped(UNARY[call.node.op], x.elements))]


def normalisation(call: Call) -> list[Fact]:
    """LayerNormalization and RMSNormalization: the statistics keep the axes before `axis`, the others become 1."""
    x, shape = call.fact(0), call.shape(0)
    axis = call.axis(-1, len(shape))
    reduced = shape[:axis] + (1,) * (len(shape) - axis)
    stash = DType(call.node.get_int("stash_type", 1))
    return [Fact(x.dtype, shape), Fact(stash, reduced), Fact(stash, reduced)]


def batch_normalisation(call: Call) -> list[Fact]:
    x = call.fact(0)
    return [Fact(x.dtype, x.shape)] + [Fact(call.fact(i).dtype, call.fact(i).shape) for i in (3, 4, 3, 4)]


_SAME = """
Relu LeakyRelu PRelu Sigmoid Tanh Erf Exp Log Sqrt Sign Reciprocal Softmax LogSoftmax Hardmax HardSigmoid
HardSwish Elu Selu Celu ThresholdedRelu Softplus Softsign Mish Gelu Swish Clip Sin Cos Tan Asin Acos Atan Sinh
Cosh Asinh Acosh Atanh LRN MeanVarianceNormalization InstanceNormalization GroupNormalization CumSum CumProd
Shrink LpNormalization Trilu ScatterElements ScatterND Scatter ReverseSequence BitwiseNot TensorScatter
ImageScaler Crop Affine ParametricSoftplus RotaryEmbedding ScaledTanh
"""
_BROADCAST = "Add Sub Mul Div Pow Mod Min Max Sum Mean BitShift BitwiseAnd BitwiseOr BitwiseXor"
_COMPARE = "Equal Less Greater LessOrEqual GreaterOrEqual And Or Xor"

RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME.split(), same),
    **dict.fromkeys(_BROADCAST.split(), broadcast),
    **dict.fromkeys(_COMPARE.split(), compare),
    **dict.fromkeys(UNARY, unary),
    "Identity": identity,
    "IsNaN": boolean,
    "IsInf": boolean,
    "Not": logical_not,
    "Where": where,
    "Dropout": dropout,
    "Cast": cast,
    "CastLike": cast_like,
    "LayerNormalization": normalisation,
    "RMSNormalization": normalisation,
    "SimplifiedLayerNormalization": normalisation,
    "BatchNormalization": batch_normalisation,
}
