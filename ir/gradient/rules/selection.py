"""Gather and Scatter in all forms: what was taken from a place is summed into it."""

from __future__ import annotations

from collections.abc import Sequence

from ...graph import Value
from ...types import DType
from ..builder import Builder, CannotDifferentiate
from .call import GradientCall, Rule


def gather(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    x, indices, g = call.input(0), call.input(1), call.gradient
    rank = build.rank(x)
    axis = call.axis(rank)
    size = build.shape(x)[axis]
    chosen = build.numbers(indices) if build.rank(indices) == 0 else None
    if chosen is not None and isinstance(size, int):
        index = chosen[0] % size
        begin, after = [0] * rank, [0] * rank
        begin[axis], after[axis] = index, size - 1 - index
        return (build.pad(build.unsqueeze(g, [axis]), begin, after, x),)
    places = build.reshape(build.cast(indices, DType.INT64), [-1])
    if build.rank(indices) != 1:
        sizes = build.shape_of(x)
        parts = [build.slice(sizes, [0], [0], [axis]), build.ints([-1]), build.slice(sizes, [0], [axis + 1], [rank])]
        g = build.reshape(g, build("Concat", *parts, axis=0))
    return (build.scatter_along(g, axis, places, build.size(x, axis), rank, x),)


def gather_elements(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    x, axis = call.input(0), call.node.get_int("axis")
    if build.opset < 16:
        raise CannotDifferentiate("needs sums into places, which opsets before 16 lack")
    return (build("ScatterElements", build.zeros(x), call.input(1), call.gradient, axis=axis, reduction="add"),)


def gather_nd(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    x, indices = call.input(0), call.input(1)
    batch = call.node.get_int("batch_dims")
    if batch:
        indices = _with_batches(build, indices, batch)
    return (build.scatter_rows(call.gradient, indices, build.zeros(x)),)


def _with_batches(build: Builder, indices: Value, batch: int) -> Value:
    """Indices that name their place along the batch axes too."""
    rank = build.rank(indices)
    one = build.slice(build.shape_of(indices), [0], [0], [rank - 1])
    column = build("Concat", one, build.ints([1]), axis=0)
    columns = [
        build("Expand", build.along(build.positions(build.size(indices, axis)), axis, rank), column)
        for axis in range(batch)
    ]
    return build("Concat", *columns, indices, axis=-1)


def scatter_elements(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    g, indices, updates = call.gradient, call.input(1), call.input(2)
    axis, data = call.node.get_int("axis"), g
    reduction = call.node.get_string("reduction", "none")
    if reduction == "none":
        data = build("ScatterElements", g, indices, build.zeros(updates), axis=axis)
    elif reduction != "add":
        raise CannotDifferentiate(f"combines what it writes with '{reduction}'")
    return data, None, build("GatherElements", g, indices, axis=axis)


def scatter_nd(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    g, indices, updates = call.gradient, call.input(1), call.input(2)
    reduction, data = call.node.get_string("reduction", "none"), g
    if reduction == "none":
        data = build("ScatterND", g, indices, build.zeros(updates))
    elif reduction != "add":
        raise CannotDifferentiate(f"combines what it writes with '{reduction}'")
    return data, None, build("GatherND", g, indices)


RULES: dict[str, Rule] = {
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
}
