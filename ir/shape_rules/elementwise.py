"""Operators whose output has the shape of one input or of all inputs broadcast together."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from ..symbols import Size, Sym, divide, floor_divide, maximum, minimum
from ..types import DType
from .call import LIMIT, Call, Elements, Fact, Rule, Sizes

Element: TypeAlias = "Size | float"


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
    return [Fact(dtype, x.shape, _cast(x.elements, dtype))]


def cast_like(call: Call) -> list[Fact]:
    x = call.fact(0)
    return [Fact(call.fact(1).dtype, x.shape, _cast(x.elements, call.fact(1).dtype))]


def _cast(data: Elements | None, dtype: DType) -> Elements | None:
    if data is None or not (dtype.is_float or dtype.is_integer or dtype is DType.BOOL):
        return None
    symbolic = [isinstance(v, Sym) for v in data.reshape(-1)]
    if any(symbolic):
        return data if dtype is not DType.BOOL and dtype.bits >= 32 else None
    with np.errstate(all="ignore"):
        return np.array(data.astype(dtype.numpy).tolist(), dtype=object).reshape(data.shape)


def _quotient(a: Element, b: Element) -> Element | None:
    """Division as ONNX does it: truncated for integers, which for sizes is rounding down."""
    if isinstance(a, float) or isinstance(b, float):
        return None if isinstance(a, Sym) or isinstance(b, Sym) or not b else a / b
    if isinstance(a, Sym) or isinstance(b, Sym):
        whole = _surely_at_least(a, 0) and _surely_at_least(b, 1)
        return floor_divide(a, b) if whole else divide(a, b)
    if b == 0:
        return None
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _surely_at_least(size: Size, bound: int) -> bool:
    return size.is_size if isinstance(size, Sym) else size >= bound


def _equal(a: Element, b: Element) -> bool | None:
    if isinstance(a, Sym) or isinstance(b, Sym):
        if a == b:
            return True
        for one, two in ((a, b), (b, a)):
            if isinstance(one, Sym) and isinstance(two, int) and (one.at_least(two + 1) or (two < 0 and one.is_size)):
                return False
        return None
    return bool(a == b)


def _less(a: Element, b: Element) -> bool | None:
    if isinstance(a, Sym) or isinstance(b, Sym):
        return None
    return bool(a < b)


def _exact(function: Callable[[Element, Element], Element | None]) -> Callable[[Element, Element], Element | None]:
    """Let symbols meet floats that are whole numbers, and no others."""

    def apply(a: Element, b: Element) -> Element | None:
        if isinstance(a, Sym) and isinstance(b, float):
            return function(a, int(b)) if b.is_integer() else None
        if isinstance(b, Sym) and isinstance(a, float):
            return function(int(a), b) if a.is_integer() else None
        return function(a, b)

    return apply


def _smaller(a: Element, b: Element) -> Element:
    return minimum(a, b) if isinstance(a, Sym) or isinstance(b, Sym) else min(a, b)  # type: ignore[arg-type]


def _larger(a: Element, b: Element) -> Element:
    return maximum(a, b) if isinstance(a, Sym) or isinstance(b, Sym) else max(a, b)  # type: ignore[arg-type]


_FOLLOW: dict[str, tuple[int, Callable[..., Element | None]]] = {
    "Add": (2, _exact(lambda a, b: a + b)),  # type: ignore[operator]
    "Sub": (2, _exact(lambda a, b: a - b)),  # type: ignore[operator]
    "Mul": (2, _exact(lambda a, b: a * b)),  # type: ignore[operator]
    "Div": (2, _exact(_quotient)),
    "Min": (2, _exact(_smaller)),
    "Max": (2, _exact(_larger)),
    "Equal": (2, _equal),
    "Less": (2, _less),
    "Greater": (2, lambda a, b: _less(b, a)),
    "And": (2, lambda a, b: bool(a and b)),
    "Or": (2, lambda a, b: bool(a or b)),
    "Where": (3, lambda c, a, b: a if c else b),
}
"""How many inputs are followed, and what makes an element of the output; `None` where that is not known."""


def follow(call: Call, shape: Sizes) -> Elements | None:
    """The elements of an elementwise result, where all of them are known."""
    arity, function = _FOLLOW.get(call.node.op, (0, None))
    sizes = [s for s in shape if isinstance(s, int)]
    if function is None or len(call.facts) != arity or len(sizes) != len(shape) or math.prod(sizes) > LIMIT:
        return None
    inputs = [call.data(i) for i in range(arity)]
    known = [data for data in inputs if data is not None]
    if len(known) != arity:
        return None
    result = np.empty(sizes, dtype=object)
    arrays = np.broadcast_arrays(*known)
    for index in np.ndindex(*sizes):
        made = function(*(array[index] for array in arrays))
        if made is None:
            return None
        result[index] = made
    return result


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
    return [Fact(DType.BOOL, call.shape(0), None if data is None else np.logical_not(data).astype(object))]


def unary_number(call: Call) -> list[Fact]:
    """Unary operators met in shape arithmetic: exact on whole numbers, symbolic or not."""
    x = call.fact(0)
    data = x.elements
    if data is not None:
        symbolic = any(isinstance(v, Sym) for v in data.reshape(-1))
        if call.node.op == "Neg":
            data = np.array([-v for v in data.reshape(-1)] + [None], dtype=object)[:-1].reshape(data.shape)
        elif symbolic:
            # A symbol is a whole number, so Floor, Ceil and Round leave it; Abs does where it is a size.
            data = data if all(not isinstance(v, float) for v in data.reshape(-1)) else None
            if data is not None and call.node.op == "Abs" and not all(_surely_at_least(v, 0) for v in data.reshape(-1)):
                data = None
        else:
            numbers = np.array(data.tolist(), dtype=float if x.dtype.is_float else np.int64)
            function = {"Floor": np.floor, "Ceil": np.ceil, "Round": np.rint, "Abs": np.abs}[call.node.op]
            data = np.array(function(numbers).tolist(), dtype=object).reshape(numbers.shape)
    return [Fact(x.dtype, x.shape, data)]


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
BitShift ImageScaler Crop Affine ParametricSoftplus RotaryEmbedding ScaledTanh
"""
_BROADCAST = "Add Sub Mul Div Pow Mod Min Max Sum Mean BitwiseAnd BitwiseOr BitwiseXor"
_COMPARE = "Equal Less Greater LessOrEqual GreaterOrEqual And Or Xor"

RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME.split(), same),
    **dict.fromkeys(_BROADCAST.split(), broadcast),
    **dict.fromkeys(_COMPARE.split(), compare),
    **dict.fromkeys(("Floor", "Ceil", "Round", "Abs", "Neg"), unary_number),
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
    "BatchNormalization": batch_normalisation,
}
