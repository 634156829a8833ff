"""Arithmetic on the known elements of small tensors: numbers and symbols alike.

A result is given only where it is what a run would compute: floats meet symbols only as whole numbers, single precision
is rounded after every operation, and what leaves the range of the element type is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from ...types import DType
from ..symbols import Size, Sym, divide, floor_divide, maximum, minimum
from .call import LIMIT, Call, Elements, Fact, Sizes

Element: TypeAlias = "Size | float"


def converted(x: Fact, dtype: DType) -> Elements | None:
    """The elements of Cast."""
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

    return mapped(one, data)


def mapped(function: Callable[[Element], Element | None], data: Elements) -> Elements | None:
    """`function` of every element; `None` where it is `None` for one."""
    items: list[Element] = data.reshape(-1).tolist()
    result = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        mapped_item = function(item)
        if mapped_item is None:
            return None
        result[index] = mapped_item
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
    return size.at_least(bound) if isinstance(size, Sym) else size >= bound


def _equal(a: Element, b: Element) -> bool | None:
    if not (isinstance(a, Sym) or isinstance(b, Sym)):
        return bool(a == b)
    if isinstance(a, float) or isinstance(b, float):
        return None
    if a == b:
        return True
    return False if _surely_at_least(a - b, 1) or _surely_at_least(b - a, 1) else None


def _less(a: Element, b: Element) -> bool | None:
    if not (isinstance(a, Sym) or isinstance(b, Sym)):
        return bool(a < b)
    if isinstance(a, float) or isinstance(b, float):
        return None
    return True if _surely_at_least(b - a, 1) else False if _surely_at_least(a - b, 0) else None


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
    arrays_known = [data for data in inputs if data is not None]
    if len(arrays_known) != arity:
        return None
    result = np.empty(sizes, dtype=object)
    dtype = call.fact(arity - 1).dtype
    limit = {DType.INT64: 1 << 63, DType.INT32: 1 << 31, DType.FLOAT: 1 << 24, DType.DOUBLE: 1 << 53, DType.BOOL: 2}
    if dtype not in limit:
        return None
    arrays = np.broadcast_arrays(*arrays_known)
    for index in np.ndindex(*sizes):
        value = function(*(array[index] for array in arrays))
        if value is None or (isinstance(value, int) and abs(value) >= limit[dtype]):
            return None
        if isinstance(value, Sym) and value.large:
            return None
        # One operation in double precision, rounded, is the operation in single precision.
        result[index] = float(np.float32(value)) if isinstance(value, float) and dtype is DType.FLOAT else value
    return result


def _absolute(a: Element) -> Element | None:
    if isinstance(a, Sym):
        return a if a.at_least(0) else None
    return abs(a)


def _whole(function: Callable[[float], int]) -> Callable[[Element], Element]:
    """Rounding, which leaves symbols and integers as they are."""
    return lambda a: float(function(a)) if isinstance(a, float) and math.isfinite(a) else a


UNARY: dict[str, Callable[[Element], Element | None]] = {
    "Abs": _absolute,
    "Ceil": _whole(math.ceil),
    "Floor": _whole(math.floor),
    "Neg": lambda a: -a,
    "Round": _whole(round),
}
"""Unary operators, element by element."""
