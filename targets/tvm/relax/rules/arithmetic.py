"""Elementwise operators whose borders TVM's converter answers in its own way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax, te, tirx, topi

from ..expressions import number
from . import sorting
from .call import LoweringCall

_BROADCAST = 1
"""TVM's number for a kernel that work may be fused to."""


def pairwise(a: te.Tensor, b: te.Tensor, compute: Callable[[Any, Any], Any], name: str) -> te.Tensor:
    """One result for each pair of elements, by the rules of broadcasting."""
    rank = max(len(a.shape), len(b.shape))
    shape = topi.broadcast_to(a, topi.add(te.compute(a.shape, lambda *_: 0), te.compute(b.shape, lambda *_: 0)).shape)

    def read(x: te.Tensor, i: tuple[Any, ...]) -> Any:
        lead = rank - len(x.shape)
        return x[tuple(0 if number(size) == 1 else i[lead + axis] for axis, size in enumerate(x.shape))]

    return te.compute(shape.shape, lambda *i: compute(read(a, i), read(b, i)), name=name)


def lower_clip(call: LoweringCall) -> relax.Expr:
    """Between bounds that are known when the model runs: NaN stays, and bounds nothing."""
    x = call.expr(0)
    for place, beyond in ((1, relax.op.less), (2, relax.op.greater)):
        if call.has(place):
            bound = call.reshape(call.expr(place), ())
            x = call.emit(relax.op.where(call.emit(beyond(x, bound)), bound, x))
    return x


def lower_mod(call: LoweringCall) -> relax.Expr:
    return call.te(modulo, call.expr(0), call.expr(1), pattern=_BROADCAST, truncated=bool(call.node.get_int("fmod")))


def modulo(a: te.Tensor, b: te.Tensor, *, truncated: bool) -> te.Tensor:
    """The remainder with the sign of the dividend where `truncated`, else with that of the divisor."""

    def real(x: Any, y: Any) -> Any:
        wide = str(a.dtype) if a.dtype in ("float32", "float64") else "float32"
        x, y = x.astype(wide), y.astype(wide)
        rest = tirx.call_pure_extern(wide, "fmod" if wide == "float64" else "fmodf", x, y)
        if not truncated:
            rest = tirx.Select(tirx.any(tirx.all(rest < 0, y > 0), tirx.all(rest > 0, y < 0)), rest + y, rest)
        return rest.astype(a.dtype)

    def whole(x: Any, y: Any) -> Any:
        return tirx.truncmod(x, y) if truncated else tirx.floormod(x, y)

    return pairwise(a, b, real if str(a.dtype).startswith(("float", "bfloat")) else whole, "modulo")


def lower_pow(call: LoweringCall) -> relax.Expr | None:
    a, b = call.value(0).dtype, call.value(1).dtype
    if a is None or b is None or (a is b and a.is_float):
        return None
    x, y = call.expr(0), call.expr(1)
    if a.is_float:
        return call.emit(relax.op.power(x, call.cast(y, call.dtype())))
    if b.is_float:
        wide = call.emit(relax.op.power(call.cast(x, "float64"), call.cast(y, "float64")))
        return call.cast(wide, call.dtype())
    return call.te(whole_power, x, call.cast(y, call.dtype()), pattern=_BROADCAST)


def whole_power(a: te.Tensor, b: te.Tensor) -> te.Tensor:
    """By squaring; more than 63 factors leave nothing of an even number, and of an odd one what their period does."""

    def at(x: Any, y: Any) -> Any:
        one = tirx.const(1, a.dtype)
        answer, factor = one, x
        for bit in range(6):
            set_bit = ((y >> tirx.const(bit, b.dtype)) & tirx.const(1, b.dtype)) != 0
            answer = tirx.Select(set_bit, answer * factor, answer)
            factor = factor * factor
        if str(b.dtype).startswith("uint"):
            return answer
        small = tirx.any(x == one, x == tirx.const(-1, a.dtype)) if not str(a.dtype).startswith("uint") else x == one
        return tirx.Select(tirx.all(y < 0, tirx.Not(small)), tirx.const(0, a.dtype), answer)

    return pairwise(a, b, at, "whole_power")


def lower_bit_shift(call: LoweringCall) -> relax.Expr:
    left = call.node.get_string("direction") == "LEFT"
    return call.te(shifted, call.expr(0), call.expr(1), pattern=_BROADCAST, left=left)


def shifted(a: te.Tensor, b: te.Tensor, *, left: bool) -> te.Tensor:
    """Bits moved; by as many as there are, or by less than none, only the sign is left of a number moved right."""
    width = np.dtype(str(a.dtype)).itemsize * 8
    signed = not str(a.dtype).startswith("uint")

    def at(x: Any, y: Any) -> Any:
        within = y < tirx.const(width, b.dtype)
        if signed:
            within = tirx.all(y >= tirx.const(0, b.dtype), within)
        zero = tirx.const(0, a.dtype)
        if left:
            return tirx.if_then_else(within, x << y, zero)
        gone = tirx.Select(x < zero, tirx.const(-1, a.dtype), zero) if signed else zero
        return tirx.if_then_else(within, x >> y, gone)

    return pairwise(a, b, at, "shifted")


def lower_sign(call: LoweringCall) -> relax.Expr:
    return call.te(sign_of, call.expr(0), pattern=_BROADCAST)


def sign_of(x: te.Tensor) -> te.Tensor:
    """1, -1, or what it is: zero and NaN have no sign."""
    zero, one = tirx.const(0, x.dtype), tirx.const(1, x.dtype)

    def at(*i: Any) -> Any:
        if str(x.dtype).startswith("uint"):
            return tirx.Select(x[i] > zero, one, zero)
        return tirx.Select(x[i] > zero, one, tirx.Select(x[i] < zero, tirx.const(-1, x.dtype), x[i]))

    return te.compute(x.shape, at, name="sign_of")


def lower_shrink(call: LoweringCall) -> relax.Expr:
    far, bias = call.node.get_float("lambd", 0.5), call.node.get_float("bias")
    return call.te(shrunk, call.expr(0), pattern=_BROADCAST, far=far, bias=bias)


def shrunk(x: te.Tensor, *, far: float, bias: float) -> te.Tensor:
    """What is farther from zero than `far`, moved by `bias` towards it; else zero. Whole numbers in floats, as ONNX
    Runtime moves them."""
    kind = str(x.dtype) if str(x.dtype).startswith(("float", "bfloat")) else "float32"
    limit, step, zero = (tirx.const(number, kind) for number in (far, bias, 0))

    def at(*i: Any) -> Any:
        y = x[i].astype(kind)
        moved = tirx.Select(y < -limit, y + step, tirx.Select(y > limit, y - step, zero))
        return moved.astype(x.dtype)

    return te.compute(x.shape, at, name="shrunk")


def lower_thresholded_relu(call: LoweringCall) -> relax.Expr:
    return call.te(thresholded, call.expr(0), pattern=_BROADCAST, least=call.node.get_float("alpha", 1.0))


def thresholded(x: te.Tensor, *, least: float) -> te.Tensor:
    zero, bound = tirx.const(0, x.dtype), tirx.const(least, x.dtype)
    return te.compute(x.shape, lambda *i: tirx.Select(x[i] > bound, x[i], zero), name="thresholded")


def lower_is_inf(call: LoweringCall) -> relax.Expr:
    signs = [s for s, name in ((1, "detect_positive"), (-1, "detect_negative")) if call.node.get_int(name, 1)]
    return call.te(infinite, call.expr(0), pattern=_BROADCAST, signs=signs)


def infinite(x: te.Tensor, *, signs: list[int]) -> te.Tensor:
    wide = "float64" if x.dtype == "float64" else "float32"

    def at(*i: Any) -> Any:
        hits = [x[i].astype(wide) == tirx.const(sign * np.inf, wide) for sign in signs]
        return tirx.any(*hits) if hits else tirx.const(False, "bool")

    return te.compute(x.shape, at, name="infinite")


def lower_hyperbolic(call: LoweringCall) -> relax.Expr:
    """sinh and cosh as halves of exponentials; near 0, where those of sinh are alike, by its series."""
    sign = -1 if call.node.op == "Sinh" else 1
    return call.te(hyperbolic, call.expr(0), pattern=_BROADCAST, sign=sign)


def hyperbolic(x: te.Tensor, *, sign: int) -> te.Tensor:
    wide = "float64" if x.dtype == "float64" else "float32"

    def at(*i: Any) -> Any:
        y = x[i].astype(wide)
        half = tirx.const(0.5, wide)
        # exp(y) / 2 as a square: exp(y) alone would be infinite for numbers whose sinh is not.
        up, down = tirx.exp(y * half), tirx.exp(-y * half)
        answer = half * up * up + (half * down * down if sign > 0 else -half * down * down)
        if sign < 0:
            square = y * y
            series = tirx.const(1 / 39916800, wide)
            for term in (1 / 362880, 1 / 5040, 1 / 120, 1 / 6, 1.0):
                series = series * square + tirx.const(term, wide)
            answer = tirx.Select(tirx.abs(y) < tirx.const(0.5, wide), y * series, answer)
        return answer.astype(x.dtype)

    return te.compute(x.shape, at, name="hyperbolic")


def lower_cumulative(call: LoweringCall) -> relax.Expr:
    rank = len(call.value(0).shape or ())
    operand = call.array(1)
    if call.node.op == "CumSum" and operand is not None:
        return sorting.lower_cum_sum(call)
    axes = range(rank) if operand is None else (int(np.ravel(operand)[0]) % rank,)
    options = {"reverse": bool(call.node.get_int("reverse")), "exclusive": bool(call.node.get_int("exclusive"))}
    rule = {"CumSum": running_sum, "CumProd": running_product}[call.node.op]
    each = [call.te(rule, call.expr(0), axis=axis, **options) for axis in axes]
    answer = each[0]
    for axis in range(1, len(each)):
        chosen = call.te(is_axis, call.reshape(call.expr(1), (1,)), axis=axis, rank=rank)
        answer = call.emit(relax.op.where(chosen, each[axis], answer))
    return answer


def is_axis(axis_operand: te.Tensor, *, axis: int, rank: int) -> te.Tensor:
    return te.compute((), lambda: tirx.any(axis_operand[0] == axis, axis_operand[0] == axis - rank), name="is_axis")


def running_sum(x: te.Tensor, *, axis: int, reverse: bool, exclusive: bool) -> te.Tensor:
    return _running(x, axis, reverse, exclusive, product=False)


def running_product(x: te.Tensor, *, axis: int, reverse: bool, exclusive: bool) -> te.Tensor:
    return _running(x, axis, reverse, exclusive, product=True)


def _running(x: te.Tensor, axis: int, reverse: bool, exclusive: bool, *, product: bool) -> te.Tensor:
    size = x.shape[axis]
    k = te.reduce_axis((0, size), "k")
    none = tirx.const(1 if product else 0, x.dtype)

    def at(*i: Any) -> Any:
        here = i[axis]
        if reverse:
            inside = k > here if exclusive else k >= here
        else:
            inside = k < here if exclusive else k <= here
        value = tirx.Select(inside, x[(*i[:axis], k, *i[axis + 1 :])], none)
        if not product:
            return te.sum(value, axis=k)
        return te.comm_reducer(lambda a, b: a * b, lambda _: none, name="product")(value, axis=k)

    return te.compute(x.shape, at, name="running")
