"""Reductions over any axes: constants, or an operand that says them when the model runs.

Where they are an operand, the sizes of the result leave few sets of axes that they can be; the result for each is
computed, and the one that was meant is taken. The artifact fails where it was none of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx

from ..conditions import sets_of_axes
from ..exact import equal
from ..expressions import constant, number
from .call import LoweringCall

_NONE = {
    "ReduceMax": -np.inf,
    "ReduceMin": np.inf,
    "ReduceProd": 1,
    "ReduceMean": np.nan,
    "ReduceLogSum": -np.inf,
    "ReduceLogSumExp": -np.inf,
}
"""What a reduction of nothing gives, where it is not 0."""


def lower_reduce(call: LoweringCall) -> relax.Expr:
    sizes = _sizes(call)
    keep = bool(call.node.get_int("keepdims", 1))
    if call.is_known(1):
        axes = call.ints(1, "axes") or ()
        if not axes and call.node.get_int("noop_with_empty_axes"):
            return _identity(call)
        return _over(call, tuple(sorted({axis % len(sizes) for axis in axes})) or tuple(range(len(sizes))), keep)
    named_axes = call.expr(1)
    if call.sizes(1) == (0,):
        return (
            _identity(call)
            if call.node.get_int("noop_with_empty_axes")
            else _over(call, tuple(range(len(sizes))), keep)
        )
    sizes = call.sizes(0)
    choices = sets_of_axes(sizes, call.result(), keep)
    result = _over(call, choices[-1], keep)
    meant = [call.te(is_set, named_axes, axes=axes, sizes=sizes) for axes in choices]
    for axes, truth in list(zip(choices, meant, strict=True))[-2::-1]:
        result = call.emit(relax.op.where(truth, _over(call, axes, keep), result))
    anyone = meant[0]
    for truth in meant[1:]:
        anyone = call.emit(relax.op.logical_or(anyone, truth))
    call.require(anyone, f"its axes do not give {list(call.result())}, which the model was built for")
    return result


def _identity(call: LoweringCall) -> relax.Expr:
    """What a reduction over no axis makes of each element."""
    x, op = call.expr(0), call.node.op
    if op in ("ReduceL1", "ReduceL2"):
        return call.emit(relax.op.abs(x))
    if op == "ReduceSumSquare":
        return call.emit(relax.op.multiply(x, x))
    return call.emit(relax.op.log(x)) if op == "ReduceLogSum" else x


def is_set(operand: te.Tensor, *, axes: tuple[int, ...], sizes: tuple[int, ...]) -> te.Tensor:
    """Whether `operand` names the `axes`, and besides only such as have size one."""
    count, rank = int(operand.shape[0]), len(sizes)

    def named(axis: int) -> Any:
        hits = [tirx.any(operand[k] == axis, operand[k] == axis - rank) for k in range(count)]
        return tirx.any(*hits) if hits else tirx.const(False, "bool")

    wanted = [named(axis) if axis in axes else tirx.Not(named(axis)) for axis in range(rank) if sizes[axis] != 1]
    return te.compute((), lambda: tirx.all(*wanted) if wanted else tirx.const(True, "bool"), name="is_set")


def _sizes(call: LoweringCall) -> tuple[Any, ...]:
    """The sizes of what is reduced: numbers, or TVM's expressions for those that are open."""
    shape = call.expr(0).ty.shape
    return tuple(size if (fixed := number(size)) is None else fixed for size in shape)


def _over(call: LoweringCall, axes: tuple[int, ...], keep: bool) -> relax.Expr:
    """The reduction over `axes` (all of them numbers of axes that exist)."""
    op, sizes, x = call.node.op, _sizes(call), call.expr(0)
    out = [1 if axis in axes else size for axis, size in enumerate(sizes)]
    final = out if keep else [size for axis, size in enumerate(sizes) if axis not in axes]
    dtype = str(x.ty.dtype.dtype)
    if 0 in [size for axis in axes if isinstance(size := sizes[axis], int)]:
        nothing = _NONE.get(op, 0)
        if np.dtype(dtype).kind in "iub" and np.isinf(nothing):
            bounds = np.iinfo("uint8" if dtype == "bool" else dtype)
            nothing = 0 if dtype == "bool" and nothing < 0 else bounds.min if nothing < 0 else bounds.max
        call.sizes(0)  # a constant has no open ones
        return constant(np.full(final, nothing).astype(dtype))
    if dtype == "bool":
        x = call.cast(x, "uint8")
    if op == "ReduceMean" and np.dtype(dtype).kind in "iu" and dtype != "uint64":
        x = call.cast(x, "int64")  # their sum may be beyond what they count to, where the mean is not

    def total(y: relax.Expr) -> relax.Expr:
        return call.emit(relax.op.sum(y, list(axes), keepdims=True)) if axes else y

    if op == "ReduceSum":
        y = total(x)
    elif op == "ReduceMean":
        counts = [sizes[axis] for axis in axes]
        if all(isinstance(size, int) for size in counts):
            count = relax.const(int(np.prod(counts, dtype=np.int64)), str(x.ty.dtype.dtype))
            y = call.emit(relax.op.divide(total(x), count))
        else:
            y = call.emit(relax.op.mean(x, list(axes), keepdims=True))
    elif op == "ReduceSumSquare":
        y = total(call.emit(relax.op.multiply(x, x)))
    elif op == "ReduceL1":
        y = total(call.emit(relax.op.abs(x)))
    elif op == "ReduceL2":
        y = call.emit(relax.op.sqrt(total(call.emit(relax.op.multiply(x, x)))))
    elif op == "ReduceLogSum":
        y = call.emit(relax.op.log(total(x)))
    elif op == "ReduceLogSumExp":
        y = _log_sum_exp(call, x, axes, total)
    elif op == "ReduceProd":
        y = call.emit(relax.op.prod(x, list(axes), keepdims=True)) if axes else x
    else:
        y = call.te(extreme, x, axes=axes, largest=op == "ReduceMax", first=True) if axes else x
    return call.reshape(call.cast(y, dtype), final)


def _log_sum_exp(call: LoweringCall, x: relax.Expr, axes: tuple[int, ...], total: Any) -> relax.Expr:
    """log(sum(exp(x - m))) + m, where m is the largest, or nothing where that is no number."""
    if not axes:
        return x
    most = call.te(extreme, x, axes=axes, largest=True, finite=True)
    shifted = call.emit(relax.op.exp(call.emit(relax.op.subtract(x, most))))
    return call.emit(relax.op.add(call.emit(relax.op.log(total(shifted))), most))


def extreme(
    x: te.Tensor, *, axes: tuple[int, ...], largest: bool, finite: bool = False, first: bool = False
) -> te.Tensor:
    """The largest or least along `axes`, which stay with size one; `finite` puts 0 for what is infinite.

    TVM's own start from the largest float, which is less than infinity. NaN counts as no number, but where it is the
    `first` and nothing is larger than it, as with ONNX Runtime.
    """
    dtype = str(x.dtype)
    pick = tirx.max if largest else tirx.min
    if dtype.startswith(("float", "bfloat")):
        start = tirx.const(-np.inf if largest else np.inf, dtype)
    else:
        start = tirx.min_value(dtype) if largest else tirx.max_value(dtype)
    reducer = te.comm_reducer(lambda a, b: pick(a, b), lambda _: start, name="extreme")
    reduced = [te.reduce_axis((0, x.shape[axis]), f"r{axis}") for axis in axes]
    shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]

    def at(*index: Any) -> Any:
        place = list(index)
        for axis, r in zip(axes, reduced, strict=True):
            place[axis] = r
        return reducer(x[tuple(place)], axis=reduced)

    extremes = te.compute(shape, at, name="extreme")
    if first and dtype.startswith(("float", "bfloat")):

        def started(*index: Any) -> Any:
            start_of = x[tuple(0 if axis in axes else i for axis, i in enumerate(index))]
            return tirx.Select(equal(start_of, start_of), extremes[index], start_of)

        return te.compute(shape, started, name="started")
    if not finite:
        return extremes
    zero = tirx.const(0, dtype)
    return te.compute(
        shape, lambda *i: tirx.Select(tirx.abs(extremes[i]) <= tirx.max_value(dtype), extremes[i], zero), name="finite"
    )
