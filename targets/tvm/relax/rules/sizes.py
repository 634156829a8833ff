"""Operators whose operand says sizes when the model runs: the result has those that the model was built for, and the
artifact fails where the operand says others."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from ..expressions import constant, number
from .call import LoweringCall


def lower_reshape(call: LoweringCall) -> relax.Expr | None:
    if not _computed(call, 1):
        return None
    sizes, result = call.sizes(0), call.result()
    zeros = not call.node.get_int("allowzero")

    def fits(k: int, size: Any) -> Any:
        same = size == result[k]
        if zeros and k < len(sizes) and sizes[k] == result[k]:
            same = any_of(same, size == 0)
        return any_of(same, size == -1)

    agree(call, call.expr(1), fits, len(result))
    return call.reshape(call.expr(0), result)


def lower_expand(call: LoweringCall) -> relax.Expr | None:
    if not _computed(call, 1):
        return None
    sizes, result = call.sizes(0), call.result()
    count = call.sizes(1)[0]
    padded = (1,) * (len(result) - len(sizes)) + sizes

    def fits(k: int, size: Any) -> Any:
        axis = len(result) - count + k
        return any_of(size == result[axis], size == 1) if padded[axis] == result[axis] else size == result[axis]

    agree(call, call.expr(1), fits, count)
    return call.te(broadcast, call.expr(0), result=result)


def broadcast(x: te.Tensor, *, result: tuple[int, ...]) -> te.Tensor:
    lead = len(result) - len(x.shape)

    def at(*index: Any) -> Any:
        return x[tuple(0 if _is_one(size) else index[lead + axis] for axis, size in enumerate(x.shape))]

    return te.compute(result, at, name="broadcast")


def lower_tile(call: LoweringCall) -> relax.Expr | None:
    if call.is_known(1):
        return None
    if call.elements(1) is not None:
        return call.te(tile, call.expr(0), result=call.open_result())
    if not _computed(call, 1):
        return None
    sizes, result = call.sizes(0), call.result()
    agree(call, call.expr(1), lambda k, times: times * sizes[k] == result[k], len(sizes))
    return call.te(tile, call.expr(0), result=result)


def tile(x: te.Tensor, *, result: tuple[Any, ...]) -> te.Tensor:
    return te.compute(result, lambda *i: x[tuple(a % size for a, size in zip(i, x.shape, strict=True))], name="tile")


def lower_constant_of_shape(call: LoweringCall) -> relax.Expr | None:
    result = call.node.outputs[0].static_shape
    if result is None:
        return None
    if _computed(call, 0):
        agree(call, call.expr(0), lambda k, size: size == result[k], len(result))
    tensor = call.node.get_tensor("value")
    value = np.zeros(1, np.float32) if tensor is None else tensor.numpy()
    return constant(np.broadcast_to(value.reshape(()), result))


def lower_split(call: LoweringCall) -> list[relax.Expr] | None:
    if not _computed(call, 1):
        return None
    axis = call.node.get_int("axis") % len(call.sizes(0))
    results = [call.result(index) for index in range(len(call.node.outputs))]
    agree(call, call.expr(1), lambda k, size: size == results[k][axis], len(results))
    starts = np.cumsum([0, *(result[axis] for result in results)])
    x = call.expr(0)
    return [
        call.te(part, x, axis=axis, start=int(start), result=result)
        for start, result in zip(starts, results, strict=False)
    ]


def part(x: te.Tensor, *, axis: int, start: int, result: tuple[int, ...]) -> te.Tensor:
    """The elements from `start` on along an axis."""
    return te.compute(result, lambda *i: x[(*i[:axis], i[axis] + start, *i[axis + 1 :])], name="part")


def lower_squeeze(call: LoweringCall) -> relax.Expr | None:
    return _moved_ones(call, call.sizes(0), call.result()) if _computed(call, 1) else None


def lower_unsqueeze(call: LoweringCall) -> relax.Expr | None:
    return _moved_ones(call, call.result(), call.sizes(0)) if _computed(call, 1) else None


def _moved_ones(call: LoweringCall, wide: tuple[int, ...], narrow: tuple[int, ...]) -> relax.Expr:
    """Axes of size one that an operand names: `wide` has them, `narrow` does not."""
    count = len(wide) - len(narrow)
    ones = [axis for axis, size in enumerate(wide) if size == 1]
    sets = [
        axes
        for axes in itertools.combinations(ones, count)
        if tuple(size for axis, size in enumerate(wide) if axis not in axes) == narrow
    ]
    call.require(call.te(is_one_of, call.expr(1), sets=sets, rank=len(wide)), other_sizes(call))
    return call.reshape(call.expr(0), call.result())


def is_one_of(operand: te.Tensor, *, sets: list[tuple[int, ...]], rank: int) -> te.Tensor:
    """Whether `operand` names exactly the axes of one of the `sets`."""
    count = int(operand.shape[0])
    named = [
        any_of(*[any_of(operand[k] == axis, operand[k] == axis - rank) for k in range(count)]) for axis in range(rank)
    ]
    exact = [every(*[named[axis] if axis in axes else tirx.Not(named[axis]) for axis in range(rank)]) for axes in sets]
    return te.compute((), lambda: any_of(*exact), name="is_one_of")


def lower_range(call: LoweringCall) -> relax.Expr | None:
    if all(call.is_known(index) for index in range(3)):
        return None
    start, limit, delta = (call.elements(index) for index in range(3))
    if start is not None and limit is not None and delta is not None:
        steps = (*call.open_result(), *start, *delta)
        return call.te(stepped, sizes=steps, dtype=call.dtype())
    result = call.result()
    operands = [call.expr(index) for index in range(3)]
    call.require(call.te(covers, *operands, count=result[0]), other_sizes(call))
    return call.te(progression, *operands, count=result[0])


def stepped(*, sizes: tuple[Any, Any, Any], dtype: str) -> te.Tensor:
    """So many steps from a start, by a step, that sizes give."""
    count, start, delta = sizes
    return te.compute((count,), lambda i: (start + delta * i.astype("int64")).astype(dtype), name="stepped")


def covers(start: te.Tensor, limit: te.Tensor, delta: te.Tensor, *, count: int) -> te.Tensor:
    """Whether so many steps of `delta` lead from `start` to just before `limit`."""

    def far(steps: int) -> Any:
        a, b, d = (t[()].astype("float64") for t in (start, limit, delta))
        at = a + d * float(steps)
        return any_of(every(d > 0, at >= b), every(d < 0, at <= b))

    enough = far(count)
    return te.compute((), lambda: enough if count == 0 else every(enough, ~far(count - 1)), name="covers")


def progression(start: te.Tensor, limit: te.Tensor, delta: te.Tensor, *, count: int) -> te.Tensor:
    return te.compute((count,), lambda i: start[()] + delta[()] * i.astype(delta.dtype), name="progression")


def lower_one_hot(call: LoweringCall) -> relax.Expr:
    result = call.open_result()
    axis = call.node.get_int("axis", -1) % len(result)
    if call.elements(1) is None:
        depth = call.expr(1)
        flat = call.reshape(depth, (1,))
        agree(call, flat, lambda k, size: size == result[axis], 1)
    return call.te(one_hot, call.cast(call.expr(0), "int64"), call.expr(2), axis=axis, result=result)


def one_hot(indices: te.Tensor, values: te.Tensor, *, axis: int, result: tuple[Any, ...]) -> te.Tensor:
    def at(*i: Any) -> Any:
        index = indices[(*i[:axis], *i[axis + 1 :])]
        hot = any_of(index == i[axis], index + result[axis] == i[axis])
        return tirx.if_then_else(hot, values[1], values[0])

    return te.compute(result, at, name="one_hot")


def lower_center_crop_pad(call: LoweringCall) -> relax.Expr:
    sizes, result = call.sizes(0), call.result()
    axes = call.node.get_ints("axes", range(len(sizes)))
    if call.array(1) is None:
        agree(call, call.expr(1), lambda k, size: size == result[axes[k]], len(axes))
    before = [(b - a) // 2 if b > a else -((a - b) // 2) for a, b in zip(sizes, result, strict=True)]
    return call.te(framed, call.expr(0), before=before, result=result)


def framed(x: te.Tensor, *, before: list[int], result: tuple[int, ...]) -> te.Tensor:
    """The image moved by so much along each axis, and zeros around it."""

    def at(*index: Any) -> Any:
        place = [i - b for i, b in zip(index, before, strict=True)]
        inside = [
            one
            for p, b, n, m in zip(place, before, x.shape, result, strict=True)
            for one in ((p >= 0,) if b > 0 else ()) + ((p < n,) if m - b > int(n) else ())
        ]
        zero = tirx.const(0, x.dtype)
        return tirx.if_then_else(every(*inside), x[tuple(place)], zero) if inside else x[tuple(place)]

    return te.compute(result, at, name="framed")


def lower_trilu(call: LoweringCall) -> relax.Expr:
    k = call.expr(1) if call.has(1) else call.emit(relax.const(0, "int64"))
    return call.te(trilu, call.expr(0), call.reshape(k, ()), upper=bool(call.node.get_int("upper", 1)))


def trilu(x: te.Tensor, k: te.Tensor, *, upper: bool) -> te.Tensor:
    def at(*i: Any) -> Any:
        far = i[-1].astype("int64") - i[-2].astype("int64")
        return tirx.if_then_else(far >= k[()] if upper else far <= k[()], x[i], tirx.const(0, x.dtype))

    return te.compute(x.shape, at, name="trilu")


def lower_eye_like(call: LoweringCall) -> relax.Expr:
    rows, columns = call.sizes(0)
    dtype = call.node.outputs[0].dtype
    assert dtype is not None
    return constant(np.eye(rows, columns, call.node.get_int("k")).astype(dtype.numpy))


def lower_shape(call: LoweringCall) -> relax.Expr | None:
    sizes = call.value(0).static_shape
    if sizes is None:
        return None
    start, end = call.node.get_int("start"), call.node.get_int("end", len(sizes))
    return constant(np.array(sizes[start:end], np.int64))


def lower_size(call: LoweringCall) -> relax.Expr | None:
    sizes = call.value(0).static_shape
    return None if sizes is None else constant(np.array(np.prod(sizes, dtype=np.int64), np.int64))


def _computed(call: LoweringCall, index: int) -> bool:
    """Whether an operand is a tensor that is known only when the model runs: sizes computed from sizes are not."""
    if call.is_known(index):
        return False
    kind = call.expr(index).ty
    return isinstance(kind, relax.TensorType) and call.node.outputs[0].static_shape is not None


def agree(call: LoweringCall, operand: relax.Expr, fits: Any, count: int) -> None:
    """The artifact fails unless `fits` holds for each number of a vector of `count` of them."""
    if count:
        call.require(call.te(agrees, operand, fits=fits, count=count), other_sizes(call))


def agrees(operand: te.Tensor, *, fits: Any, count: int) -> te.Tensor:
    return te.compute((), lambda: every(*[fits(k, operand[k]) for k in range(count)]), name="agrees")


def other_sizes(call: LoweringCall) -> str:
    sizes = [list(value.static_shape or ()) for value in call.node.outputs]
    return f"it was built to give {sizes[0] if len(sizes) == 1 else sizes}, and its operand asks for other sizes"


def any_of(*conditions: Any) -> Any:
    return tirx.any(*conditions) if conditions else tirx.const(False, "bool")


def every(*conditions: Any) -> Any:
    return tirx.all(*conditions) if conditions else tirx.const(True, "bool")


def _is_one(size: Any) -> bool:
    return number(size) == 1
