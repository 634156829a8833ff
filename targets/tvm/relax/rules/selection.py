"""Operators that choose elements: those that a condition names, those that are not zero.

How many there are is what the model was built for; the artifact fails where there are others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx

from .call import LoweringCall
from .sizes import every, other_sizes


def lower_compress(call: LoweringCall) -> relax.Expr:
    sizes, result = call.sizes(0), call.result()
    x, condition = call.expr(0), call.expr(1)
    if "axis" in call.node.attributes:
        axis = call.node.get_int("axis") % len(sizes)
    else:
        axis, sizes = 0, (int(np.prod(sizes, dtype=np.int64)),)
        x = call.reshape(x, sizes)
    chosen = _positions(call, condition, min(call.sizes(1)[0], sizes[axis]), result[axis])
    return call.te(taken, x, chosen, axis=axis)


def lower_non_zero(call: LoweringCall) -> relax.Expr:
    sizes, result = call.sizes(0), call.result()
    count = int(np.prod(sizes, dtype=np.int64))
    flat = call.reshape(call.expr(0), (count,))
    kind = str(flat.ty.dtype.dtype)
    true = flat if kind == "bool" else call.emit(relax.op.not_equal(flat, relax.const(0, kind)))
    chosen = _positions(call, true, count, result[1])
    return call.te(unravelled, chosen, sizes=sizes)


def _positions(call: LoweringCall, condition: relax.Expr, size: int, count: int) -> relax.Expr:
    """Where a vector of truths is true, in order: `count` places, which the artifact makes sure of."""
    counts = call.te(counted, condition, size=size)
    call.require(call.te(counts_fit, counts, count=count), other_sizes(call))
    return call.te(nth, condition, counts, count=count)


def counted(condition: te.Tensor, *, size: int) -> te.Tensor:
    """How many are true up to each element."""
    j = te.reduce_axis((0, size), "j")
    return te.compute((size,), lambda i: te.sum(tirx.all(condition[j], j <= i).astype("int32"), axis=j), name="counted")


def counts_fit(counts: te.Tensor, *, count: int) -> te.Tensor:
    return te.compute((), lambda: counts[counts.shape[0] - 1] == count, name="counts_fit")


def nth(condition: te.Tensor, counts: te.Tensor, *, count: int) -> te.Tensor:
    j = te.reduce_axis((0, counts.shape[0]), "j")

    def at(k: Any) -> Any:
        here = every(condition[j], counts[j] == k + 1)
        return te.max(tirx.Select(here, j.astype("int64"), tirx.const(0, "int64")), axis=j)

    return te.compute((count,), at, name="nth")


def taken(x: te.Tensor, places: te.Tensor, *, axis: int) -> te.Tensor:
    shape = [places.shape[0] if a == axis else n for a, n in enumerate(x.shape)]
    return te.compute(shape, lambda *i: x[(*i[:axis], places[i[axis]], *i[axis + 1 :])], name="taken")


def unravelled(places: te.Tensor, *, sizes: tuple[int, ...]) -> te.Tensor:
    strides = [int(np.prod(sizes[axis + 1 :], dtype=np.int64)) for axis in range(len(sizes))]

    def at(axis: Any, k: Any) -> Any:
        value: Any = tirx.const(0, "int64")
        for a, (size, stride) in enumerate(zip(sizes, strides, strict=True)):
            value = tirx.Select(axis == a, tirx.floormod(tirx.floordiv(places[k], stride), size), value)
        return value

    return te.compute((len(sizes), places.shape[0]), at, name="unravelled")


def lower_reverse_sequence(call: LoweringCall) -> relax.Expr:
    batch, time = call.node.get_int("batch_axis", 1), call.node.get_int("time_axis", 0)
    return call.te(reversed_sequence, call.expr(0), call.expr(1), batch=batch, time=time)


def reversed_sequence(x: te.Tensor, lengths: te.Tensor, *, batch: int, time: int) -> te.Tensor:
    def at(*i: Any) -> Any:
        length = lengths[i[batch]]
        turned = tirx.max(tirx.min(length - 1 - i[time], x.shape[time] - 1), 0)
        return x[(*i[:time], tirx.Select(i[time] < length, turned, i[time].astype("int64")), *i[time + 1 :])]

    return te.compute(x.shape, at, name="reversed_sequence")
