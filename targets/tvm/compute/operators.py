"""Operators from codes to codes, each in the float operations and in the order of ONNX Runtime's integer kernels.

A result that lies between two codes is rounded to one or the other by the last bit of these operations, so any other
order of them answers differently now and then. Operands are codes as they are held in memory, to which an offset is
added to give the unsigned ones that the formulas are about, or, of type float32, those numbers themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import te, tirx

from .codes import to_code

_MOST = 255


def add_codes(
    x: te.Tensor,
    y: te.Tensor,
    offsets: tuple[int, int],
    ratios: tuple[float, float],
    fixed: float,
    shift: int,
    dtype: str,
) -> te.Tensor:
    """round(x rx + (y ry + fixed)), two multiply-adds without a rounding in between.

    `fixed` holds the zeros of all three, so that of the result is part of what is rounded.
    """
    rx, ry = (tirx.const(ratio, "float32") for ratio in ratios)

    def code(*i: Any) -> Any:
        a, b = _number(x, i, offsets[0]), _number(y, i, offsets[1])
        return to_code(a * rx + (b * ry + tirx.const(fixed, "float32")), 0, _MOST, shift, dtype)

    return te.compute(x.shape, code, name="add_codes")


def multiply_codes(
    x: te.Tensor,
    y: te.Tensor,
    offsets: tuple[int, int],
    ratio: float,
    zero: int,
    shift: int,
    dtype: str,
    single: bool,
) -> te.Tensor:
    """round((x y) ratio + zero), the product of codes minus their zeros (the `offsets`) being whole and exact.

    With `single`, images in blocks are multiplied by a single pixel. Clamped before the zero is added: product and sum
    are rounded each.
    """

    def code(*i: Any) -> Any:
        under = (*i[:2], 0, i[3]) if single else i
        product = _number(x, i, offsets[0]) * _number(y, under, offsets[1]) * tirx.const(ratio, "float32")
        low, high = tirx.const(-float(zero), "float32"), tirx.const(float(_MOST - zero), "float32")
        product = tirx.max(tirx.min(product, high), low)
        return to_code(product + tirx.const(float(zero), "float32"), 0, _MOST, shift, dtype)

    return te.compute(x.shape, code, name="multiply_codes")


def mean_codes(x: te.Tensor, zero: int, scale: float, shift: int, low: int, high: int, dtype: str) -> te.Tensor:
    """round(sum over pixels of (x - zero) * scale), [N, C / b, P, b] to [N, C / b, 1, b]; sums are whole and exact."""
    n, c, pixels, block = x.shape
    p = te.reduce_axis((0, pixels), "p")
    sums = te.compute(
        (n, c, 1, block), lambda i, o, _, lane: te.sum(x[i, o, p, lane].astype("int32"), axis=p), name="sum_codes"
    )

    def code(*i: Any) -> Any:
        mean = (sums(*i) - tirx.const(zero * int(pixels), "int32")).astype("float32") * tirx.const(scale, "float32")
        return to_code(mean, low, high, shift, dtype)

    return te.compute(sums.shape, code, name="mean_codes")


def move_codes(
    x: te.Tensor, zero: int, scale: float, divisor: float, shift: int, low: int, high: int, dtype: str
) -> te.Tensor:
    """Codes of one grid as those of another, round((x - zero) scale / divisor)."""

    def code(*i: Any) -> Any:
        real = (x(*i).astype("int32") - tirx.const(zero, "int32")).astype("float32") * tirx.const(scale, "float32")
        real = real if divisor == 1 else real / tirx.const(divisor, "float32")
        return to_code(real, low, high, shift, dtype)

    return te.compute(x.shape, code, name="move_codes")


def _number(x: te.Tensor, index: Sequence[Any], offset: int) -> Any:
    code = x(*index)
    if str(x.dtype) == "float32":
        return code
    return (code.astype("int32") + tirx.const(offset, "int32")).astype("float32")
