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
    return [Fact(dtype, x.shape, _cast(x, dtype))]


def cast_like(call: Call) -> list[Fact]:
    x = call.fact(0)
    return [Fact(call.fact(1).dtype, x.shape, _cast(x, call.fact(1).dtype))]


def _cast(x: Fact, dtype: DType) -> Elements | None:
    data = x.elements
    if data is None or dtype in (DType.UNDEFINED, DType.STRING):
        return None
    if not any(isinstance(v, Sym) for v in data.reshape(-1)):
        with np.errstate(all="ignore"):
            cast = np.array(data.tolist(), dtype=x.dtype.numpy).astype(dtype.numpy)
        return np.array(cast.tolist(), dtype=object).reshape(data.shape)
    if dtype not in (DType.INT64, DType.INT32, DType.FLOAT, DType.DOUBLE):
        return None

    def one(element: Element) -> Element:
        return element if isinstance(element, Sym) else float(element) if dtype.is_float else int(element)

    return _map(one, data)


def _map(function: Callable[[Element], Element | None], data: Elements) -> Elements | None:
    """`function` of every element; `None` where it is `None` for one."""
    items: list[Element] = data.reshape(-1).tolist()
    result = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        made = function(item)
        if made is None:
            return None
        result[index] = made
    return result.reshape(data.shape)


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
    dtype = call.fact(arity - 1).dtype
    limit = {DType.INT64: 1 << 63, DType.INT32: 1 << 31, DType.FLOAT: 1 << 24, DType.DOUBLE: 1 << 53, DType.BOOL: 2}
    if dtype not in limit:
        return None
    arrays = np.broadcast_arrays(*known)
    for index in np.ndindex(*sizes):
        made = function(*(array[index] for array in arrays))
        if made is None or (isinstance(made, int) and abs(made) >= limit[dtype]):
            return None
        # One operation in double precision, rounded, is the operation in single precision.
        result[index] = float(np.float32(made)) if isinstance(made, float) and dtype is DType.FLOAT else made
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


def _absolute(a: Element) -> Element | None:
    if isinstance(a, Sym):
        return a if a.is_size else None
    return abs(a)


def _whole(function: Callable[[float], int]) -> Callable[[Element], Element]:
    """Rounding, which leaves symbols and integers as they are."""
    return lambda a: float(function(a)) if isinstance(a, float) and math.isfinite(a) else a


_UNARY: dict[str, Callable[[Element], Element | None]] = {
    "Abs": _absolute,
    "Ceil": _whole(math.ceil),
    "Floor": _whole(math.floor),
    "Neg": lambda a: -a,
    "Round": _whole(round),
}


def unary(call: Call) -> list[Fact]:
    """The unary operators of shape arithmetic."""
    x = call.fact(0)
    return [Fact(x.dtype, x.shape, None if x.elements is None else _map(_UNARY[call.node.op], x.elements))]


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
    **dict.fromkeys(_UNARY, unary),
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
