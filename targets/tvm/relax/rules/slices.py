"""Slice and Pad whose ends are known only when the model runs, and every mode of Pad."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx

from .....ir.ops import LARGEST
from ..expressions import constant
from .call import LoweringCall
from .sizes import any_of, every, other_sizes


def lower_slice(call: LoweringCall) -> relax.Expr | None:
    if call.node.outputs[0].static_shape is None or all(call.is_known(index) for index in range(1, 5)):
        return None
    sizes, result = call.sizes(0), call.result()
    count = call.sizes(1)[0]
    starts, ends = (call.cast(call.expr(index), "int64") for index in (1, 2))
    axes = call.cast(call.expr(3), "int64") if call.has(3) else constant(np.arange(count))
    steps = call.cast(call.expr(4), "int64") if call.has(4) else constant(np.ones(count, np.int64))
    cuts = call.te(cut, starts, ends, axes, steps, sizes=sizes)
    call.require(call.te(cuts_fit, cuts, result=result), other_sizes(call))
    return call.te(sliced, call.expr(0), cuts, result=result)


def cut(starts: te.Tensor, ends: te.Tensor, axes: te.Tensor, steps: te.Tensor, *, sizes: tuple[int, ...]) -> te.Tensor:
    """First element, step and count for each axis: [rank, 3]."""
    count, rank = int(starts.shape[0]), len(sizes)

    def long(n: int) -> Any:
        return tirx.const(n, "int64")

    def row(axis: int) -> tuple[Any, Any, Any]:
        size = sizes[axis]
        first, step, many = long(0), long(1), long(size)
        for k in range(count):
            t = steps[k]
            least, most = tirx.Select(t > 0, long(0), long(-1)), tirx.Select(t > 0, long(size), long(size - 1))
            s = starts[k] + tirx.Select(starts[k] < 0, long(size), long(0))
            e = ends[k] + tirx.Select(ends[k] < 0, long(size), long(0))
            s = tirx.max(tirx.min(s, tirx.Select(t > 0, long(size), long(size - 1))), long(0))
            whole = any_of(*[ends[k] == long(end) for end in LARGEST])
            e = tirx.Select(every(whole, t < 0), least, tirx.max(tirx.min(e, most), least))
            safe = tirx.Select(t == 0, long(1), t)
            n = tirx.max(tirx.floordiv(e - s + safe - tirx.Select(t > 0, long(1), long(-1)), safe), long(0))
            here = any_of(axes[k] == axis, axes[k] == axis - rank)
            first, step, many = (tirx.Select(here, a, b) for a, b in ((s, first), (t, step), (n, many)))
        return first, step, many

    rows = [row(axis) for axis in range(rank)]

    def at(axis: Any, what: Any) -> Any:
        value: Any = long(0)
        for r, each in enumerate(rows):
            for w, one in enumerate(each):
                value = tirx.Select(every(axis == r, what == w), one, value)
        return value

    return te.compute((rank, 3), at, name="cut")


def cuts_fit(cuts: te.Tensor, *, result: tuple[int, ...]) -> te.Tensor:
    return te.compute((), lambda: every(*[cuts[axis, 2] == size for axis, size in enumerate(result)]), name="cuts_fit")


def sliced(x: te.Tensor, cuts: te.Tensor, *, result: tuple[int, ...]) -> te.Tensor:
    """Where the artifact is about to fail, nothing outside the tensor is read."""

    def at(*index: Any) -> Any:
        place = [cuts[axis, 0] + i * cuts[axis, 1] for axis, i in enumerate(index)]
        return x[tuple(tirx.max(tirx.min(p, n - 1), 0) for p, n in zip(place, x.shape, strict=True))]

    return te.compute(result, at, name="sliced")


def lower_pad(call: LoweringCall) -> relax.Expr | None:
    if call.node.outputs[0].static_shape is None:
        return None
    sizes, result = call.sizes(0), call.result()
    mode = call.node.get_string("mode", "constant")
    computed = not call.is_known(1) or not call.is_known(3)
    if mode == "constant" and not computed and call.is_known(2):
        return None
    if call.has(1):
        pads = call.cast(call.expr(1), "int64")
        count = call.sizes(1)[0] // 2
    else:
        old = call.node.get_ints("pads")
        pads, count = constant(np.array(old, np.int64)), len(old) // 2
    axes = call.cast(call.expr(3), "int64") if call.has(3) else constant(np.arange(count))
    before = call.te(first_pads, pads, axes, sizes=sizes, result=result)
    if computed:
        call.require(call.te(pads_fit, pads, axes, sizes=sizes, result=result), other_sizes(call))
    x = call.expr(0)
    value = call.reshape(call.expr(2), ()) if call.has(2) else constant(np.zeros((), call.numpy()))
    return call.te(padded, x, before, value, mode=mode, result=result)


def first_pads(pads: te.Tensor, axes: te.Tensor, *, sizes: tuple[int, ...], result: tuple[int, ...]) -> te.Tensor:
    """What is put before the first element of each axis."""

    def at(axis: Any) -> Any:
        value: Any = tirx.const(0, "int64")
        for k in range(int(axes.shape[0])):
            value = tirx.Select(any_of(axes[k] == axis, axes[k] == axis - len(sizes)), pads[k], value)
        return value

    return te.compute((len(sizes),), at, name="first_pads")


def pads_fit(pads: te.Tensor, axes: te.Tensor, *, sizes: tuple[int, ...], result: tuple[int, ...]) -> te.Tensor:
    count, rank = int(axes.shape[0]), len(sizes)

    def fits(axis: int) -> Any:
        total: Any = tirx.const(sizes[axis], "int64")
        for k in range(count):
            both = pads[k] + pads[count + k]
            total = total + tirx.Select(any_of(axes[k] == axis, axes[k] == axis - rank), both, tirx.const(0, "int64"))
        return total == result[axis]

    return te.compute((), lambda: every(*[fits(axis) for axis in range(rank)]), name="pads_fit")


def padded(x: te.Tensor, before: te.Tensor, value: te.Tensor, *, mode: str, result: tuple[int, ...]) -> te.Tensor:
    """Along each axis: `constant` beyond the border, the `edge`, its mirror image (`reflect`), or the axis anew
    (`wrap`)."""

    def inner(p: Any, size: Any) -> Any:
        if mode == "reflect":
            turn = tirx.max(2 * (size - 1), 1)
            around = tirx.floormod(p, turn)
            return tirx.min(around, turn - around)
        if mode == "wrap":
            return tirx.floormod(p, size)
        return tirx.max(tirx.min(p, size - 1), 0)

    def at(*index: Any) -> Any:
        place = [i.astype("int64") - before[axis] for axis, i in enumerate(index)]
        y = x[tuple(inner(p, n) for p, n in zip(place, x.shape, strict=True))]
        if mode != "constant":
            return y
        inside = every(*[every(p >= 0, p < n) for p, n in zip(place, x.shape, strict=True)])
        return tirx.if_then_else(inside, y, value[()])

    return te.compute(result, at, name="padded")
