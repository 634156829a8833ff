"""Which element is the largest or least, and of several tensors the larger or smaller numbers.

The place of an extreme is found in two steps: the extreme, for which NaN counts as no number, then the first (or last)
element that equals it. Where the first element of a row is NaN nothing is larger, so its place is 0, as with ONNX
Runtime; so it is where nothing equals the extreme.
"""

from __future__ import annotations

import math
from typing import Any

from tvm import relax, te, tirx

from ..exact import equal
from ..expressions import number
from .call import LoweringCall
from .reductions import extreme


def lower_pairs(call: LoweringCall) -> relax.Expr:
    """Max and Min, of one tensor after the other."""
    return folded(call, [call.expr(index) for index in range(len(call.node.inputs))])


def folded(call: LoweringCall, operands: list[relax.Expr]) -> relax.Expr:
    """The larger numbers of `operands` for Max, the smaller for Min."""
    pick = relax.op.maximum if call.node.op == "Max" else relax.op.minimum
    answer = operands[0]
    for operand in operands[1:]:
        answer = call.emit(pick(answer, operand))
    return answer


def lower_arg_extreme(call: LoweringCall) -> relax.Expr | None:
    sizes = [number(size) for size in call.expr(0).ty.shape]
    axis = call.node.get_int("axis") % len(sizes)
    largest, last = call.node.op == "ArgMax", bool(call.node.get_int("select_last_index"))
    places = _places(call, call.expr(0), axis, largest=largest, last=last)
    if call.node.get_int("keepdims", 1):
        return places
    return call.squeeze(places, axis)


def lower_hardmax(call: LoweringCall) -> relax.Expr:
    sizes = call.sizes(0)
    old = call.importer.graph.opset() < 13
    axis = call.node.get_int("axis", 1 if old else -1) % len(sizes)
    if not old:
        return _hot(call, call.expr(0), axis)
    # Before version 13 it took all axes from this one on for one.
    rows = call.reshape(call.expr(0), (math.prod(sizes[:axis]), math.prod(sizes[axis:])))
    return call.reshape(_hot(call, rows, 1), sizes)


def _hot(call: LoweringCall, x: relax.Expr, axis: int) -> relax.Expr:
    return call.te(marked, x, _places(call, x, axis, largest=True, last=False), axis=axis)


def _places(call: LoweringCall, x: relax.Expr, axis: int, *, largest: bool, last: bool) -> relax.Expr:
    most = call.te(extreme, x, axes=(axis,), largest=largest)
    return call.te(place_of, x, most, axis=axis, last=last)


def place_of(x: te.Tensor, most: te.Tensor, *, axis: int, last: bool) -> te.Tensor:
    """Where along `axis`, which stays with size one, the first or last element equals `most`; 0 where none does."""
    size = x.shape[axis].astype("int64")
    k = te.reduce_axis((0, x.shape[axis]), "k")
    none = tirx.const(-1, "int64")

    def at(*index: Any) -> Any:
        here = x[(*index[:axis], k, *index[axis + 1 :])]
        place = k.astype("int64") if last else size - 1 - k.astype("int64")
        return te.max(tirx.Select(here == most[index], place, none), axis=k)

    far = te.compute(most.shape, at, name="far")

    def place(*index: Any) -> Any:
        first = x[(*index[:axis], 0, *index[axis + 1 :])]
        counted = far[index] if last else size - 1 - far[index]
        right = tirx.all(far[index] >= 0, equal(first, first)) if _floating(x) else far[index] >= 0
        return tirx.Select(right, counted, tirx.const(0, "int64"))

    return te.compute(most.shape, place, name="place_of")


def _floating(x: te.Tensor) -> bool:
    return str(x.dtype).startswith(("float", "bfloat"))


def marked(x: te.Tensor, places: te.Tensor, *, axis: int) -> te.Tensor:
    """One at its place along `axis`, zero elsewhere and where NaN is."""

    def at(*index: Any) -> Any:
        here = places[(*index[:axis], 0, *index[axis + 1 :])] == index[axis].astype("int64")
        if _floating(x):
            here = tirx.all(here, equal(x[index], x[index]))
        return tirx.Select(here, tirx.const(1, x.dtype), tirx.const(0, x.dtype))

    return te.compute(x.shape, at, name="marked")
