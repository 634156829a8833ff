"""TopK and CumSum: what depends on the place of an element among the others of a row.

TopK counts, for each element, how many go before it: those that are larger (or smaller, where the least are asked for),
and of equal ones those with a lower index, as ONNX asks for. NaN counts as larger than all numbers. That count is its
place, so each element is placed for itself, on as many cores or threads as there are. The number of comparisons grows
with the square of the row, which decides up to a few thousand elements nothing.
"""

from __future__ import annotations

from typing import Any

from tvm import relax, te, tirx

from .call import LoweringCall
from .sizes import agree


def lower_top_k(call: LoweringCall) -> list[relax.Expr]:
    sizes, result = call.sizes(0), call.result()
    axis = call.node.get_int("axis", -1) % len(sizes)
    if not call.is_known(1):
        agree(call, call.reshape(call.expr(1), (1,)), lambda _, count: count == result[axis], 1)
    rank = len(sizes)
    order = [index for index in range(rank) if index != axis] + [axis]
    x = call.emit(relax.op.permute_dims(call.expr(0), order)) if axis != rank - 1 else call.expr(0)
    rows = [size for index, size in enumerate(sizes) if index != axis]
    x = call.reshape(x, [_product(rows), sizes[axis]])
    wanted = result[axis]
    places = call.te(places_of, x, largest=bool(call.node.get_int("largest", 1)))
    indices = call.te(holders_of, places, count=wanted)
    values = call.te(taken, x, indices)
    back = [order.index(index) for index in range(rank)]
    results = []
    for one in (values, indices):
        shaped = call.reshape(one, [*rows, wanted])
        results.append(call.emit(relax.op.permute_dims(shaped, back)) if axis != rank - 1 else shaped)
    return results


def lower_cum_sum(call: LoweringCall) -> relax.Expr:
    """Along an axis that is known."""
    axes = call.array(1)
    assert axes is not None
    sizes = call.sizes(0)
    axis = int(axes.reshape(-1)[0]) % len(sizes)
    shape = [_product(sizes[:axis]), sizes[axis], _product(sizes[axis + 1 :])]
    x = call.reshape(call.expr(0), shape)
    total = call.te(
        cumulated, x, exclusive=bool(call.node.get_int("exclusive")), backward=bool(call.node.get_int("reverse"))
    )
    return call.reshape(total, sizes)


def _product(sizes: Any) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product


def places_of(x: te.Tensor, *, largest: bool) -> te.Tensor:
    """For each element of a row, of x (rows, n), how many go before it."""
    rows, n = x.shape
    j = te.reduce_axis((0, n), "j")
    floating = str(x.dtype).startswith(("float", "bfloat"))

    def count(r: Any, i: Any) -> Any:
        one, other = x(r, j), x(r, i)
        first, alike = (one > other if largest else one < other), one == other
        if floating:
            # Not by negation: that a number is not larger is taken for its being as small where kernels are simplified.
            missing, lacks = _is_nan(one, str(x.dtype)), _is_nan(other, str(x.dtype))
            above = tirx.all(missing, tirx.Not(lacks)) if largest else tirx.all(tirx.Not(missing), lacks)
            first, alike = tirx.any(first, above), tirx.any(alike, tirx.all(missing, lacks))
        return te.sum(tirx.any(first, tirx.all(alike, j < i)).astype("int32"), axis=j)

    return te.compute((rows, n), count, name="places")


def _is_nan(x: Any, dtype: str) -> Any:
    """By its bits: that a number differs from itself is taken for false where kernels are simplified."""
    bits, mantissa = {"float64": (64, 52), "float32": (32, 23), "float16": (16, 10)}.get(dtype, (16, 7))
    kind = f"int{bits}"
    size = tirx.reinterpret(kind, x) & tirx.const((1 << (bits - 1)) - 1, kind)
    return size > tirx.const((1 << (bits - 1)) - (1 << mantissa), kind)


def holders_of(places: te.Tensor, *, count: int) -> te.Tensor:
    """Which element of each row has a place, of the first `count` places, int64."""
    rows, n = places.shape
    i = te.reduce_axis((0, n), "i")
    zero = tirx.const(0, "int64")
    return te.compute(
        (rows, count),
        lambda r, p: te.sum(tirx.if_then_else(places[r, i] == p, i.astype("int64"), zero), axis=i),
        name="holders",
    )


def taken(x: te.Tensor, indices: te.Tensor) -> te.Tensor:
    """The elements of each row at `indices`."""
    return te.compute(indices.shape, lambda r, p: x[r, indices[r, p]], name="taken")


def cumulated(x: te.Tensor, *, exclusive: bool, backward: bool) -> te.Tensor:
    """Sums along the middle axis of x up to each element, or before it."""
    outer, n, inner = x.shape
    k = te.reduce_axis((0, n), "k")
    zero = tirx.const(0, x.dtype)

    def total(a: Any, i: Any, b: Any) -> Any:
        at = n - 1 - k if backward else k
        if exclusive:
            counts = at > i if backward else at < i
        else:
            counts = at >= i if backward else at <= i
        return te.sum(tirx.if_then_else(counts, x[a, at, b], zero), axis=k)

    return te.compute((outer, n, inner), total, name="cumulated")
