"""Places that are operands: brought within the axis that they are of, before anything is read or written there.

ONNX takes places from -n to n - 1 of an axis of n elements, and calls others an error. A kernel would read or write
memory that is not its own, so it is given the nearest place instead, and the artifact fails where one was beyond.
"""

from __future__ import annotations

import math
from typing import Any

from tvm import relax, te, tirx

from .call import LoweringCall

PLACES = {
    **dict.fromkeys(("Gather", "GatherElements", "GatherND", "Scatter", "ScatterElements", "ScatterND"), 1),
    "MaxUnpool": 1,
    "RoiAlign": 2,
}
"""Operators one of whose operands says places, and which one."""


def within(call: LoweringCall, data: relax.Expr, places: relax.Expr) -> relax.Expr:
    """`places` from 0 on, each within `data`; what the artifact requires is noted. Constants stay as they are."""
    node, index = call.node, PLACES[call.node.op]
    if call.array(index) is not None or 0 in (call.value(index).shape or ()):
        return places
    axes: tuple[int, ...] = (node.get_int("axis") % len(data.ty.shape),)
    whole = None
    if node.op.endswith("ND"):
        first = node.get_int("batch_dims") if node.op == "GatherND" else 0
        axes = tuple(range(first, first + int(places.ty.shape[-1])))
    elif node.op == "MaxUnpool":
        whole = math.prod(call.result())
    call.require(
        call.te(all_within, places, data, axes=axes, whole=whole), "it is asked for a place beyond its operand"
    )
    return call.te(brought_within, places, data, axes=axes, whole=whole)


def _limit(data: te.Tensor, axes: tuple[int, ...], whole: int | None, index: Any, dtype: str) -> Any:
    """The size of the axis that an element of the places is of, which the last index says; or `whole`, that of all."""
    if whole is not None:
        return tirx.const(whole, dtype)
    limit = data.shape[axes[-1]].astype(dtype)
    for component, axis in reversed(list(enumerate(axes[:-1]))):
        limit = tirx.Select(index[-1] == component, data.shape[axis].astype(dtype), limit)
    return limit


def brought_within(places: te.Tensor, data: te.Tensor, *, axes: tuple[int, ...], whole: int | None) -> te.Tensor:
    def nearest(*index: Any) -> Any:
        limit = _limit(data, axes, whole, index, str(places.dtype))
        place = tirx.max(tirx.min(places(*index), limit - 1), -limit)
        return tirx.Select(place < 0, place + limit, place)

    return te.compute(places.shape, nearest, name="places")


def all_within(places: te.Tensor, data: te.Tensor, *, axes: tuple[int, ...], whole: int | None) -> te.Tensor:
    """Whether no place is beyond its axis, of rank 0."""

    def right(*index: Any) -> Any:
        limit = _limit(data, axes, whole, index, str(places.dtype))
        return tirx.all(places(*index) < limit, places(*index) >= -limit)

    if not places.shape:
        return te.compute((), right, name="within")
    reduced = [te.reduce_axis((0, size), f"r{axis}") for axis, size in enumerate(places.shape)]
    wrong = te.compute((), lambda: te.max(tirx.Not(right(*reduced)).astype("int32"), axis=reduced), name="beyond")
    return te.compute((), lambda: wrong() == 0, name="within")
