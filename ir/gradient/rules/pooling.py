"""Pools: means, maxima and p-norms over windows, or over all spatial axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...attributes import Attribute
from ...graph import Value
from ..builder import Builder, CannotDifferentiate
from .call import GradientCall, Rule
from .window import GradientWindow, spread, window


def _spatial(build: Builder, x: Value) -> list[int]:
    return list(range(2, build.rank(x)))


def global_average(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    x = call.input(0)
    share = build("Div", call.gradient, build.count(x, _spatial(build, x)))
    return (build("Expand", share, build.shape_of(x)),)


def global_max(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """To the first maximum."""
    x = call.input(0)
    flat = build.reshape(x, [0, 0, -1])
    place = build("ArgMax", flat, axis=2, keepdims=1)
    zeros = build("ConstantOfShape", build("Shape", flat), value=Attribute.of(np.zeros(1, build.dtype(x).numpy)))
    gradient = build.reshape(call.gradient, [0, 0, -1])
    return (build.reshape_as(build("ScatterElements", zeros, place, gradient, axis=2), x),)


def _back(build: Builder, gradient: Value, view: GradientWindow, x: Value, y: Value) -> Value:
    """Each element of `gradient` summed into all that its window reads: channels are samples of one channel here."""
    ones = build.graph.constant(np.ones((1, 1, *view.kernel), build.dtype(x).numpy))
    single = build("Concat", build.ints([-1, 1]), build.slice(build.shape_of(y), [0], [2], [1 << 62]), axis=0)
    return build.reshape_as(spread(build, build.reshape(gradient, single), ones, view, 1, x, y), x)


def average(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    node, x, y = call.node, call.input(0), call.output
    view = window(node, build, node.get_ints("kernel_shape"), x, y)
    size = 1
    for k in view.kernel:
        size *= k
    if not any(view.begin) and not any(view.end):
        share = build("Mul", call.gradient, build.scalar(1.0 / size, x))
    else:
        share = build("Mul", call.gradient, _shares(call, build, view))
    return (_back(build, share, view, x, y),)


def _shares(call: GradientCall, build: Builder, view: GradientWindow) -> Value:
    """One over the number of elements that each window counts."""
    node, x, y = call.node, call.input(0), call.output
    sizes = [
        (a, b) for a, b in zip(build.shape(x)[2:], build.shape(y)[2:]) if isinstance(a, int) and isinstance(b, int)
    ]
    if len(sizes) < view.rank:
        raise CannotDifferentiate("counts its borders by an open size")
    include = node.get_int("count_include_pad")
    rank = view.rank
    pads = node.get_ints("pads", (0,) * 2 * rank)
    table = np.ones((), np.float64)
    for axis, (size, count) in enumerate(sizes):
        first, last = 0, size - 1
        if include:
            end = view.end[axis] if node.get_string("auto_pad", "NOTSET").startswith("SAME") else pads[axis + rank]
            first, last = -view.begin[axis], size - 1 + end
        places = np.arange(count)[:, None] * view.strides[axis] - view.begin[axis]
        reads = places + np.arange(view.kernel[axis])[None, :] * view.dilations[axis]
        inside = ((reads >= first) & (reads <= last)).sum(axis=1)
        table = table[..., None] * inside
    array = (1.0 / table).reshape((1, 1, *table.shape)).astype(build.dtype(x).numpy)
    return build.graph.constant(array)


def maximum(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """To the element that the forward pass names as the first maximum (`prepare` asks it to)."""
    node, x, g = call.node, call.input(0), call.gradient
    if len(node.outputs) < 2 or node.get_int("storage_order"):
        raise CannotDifferentiate("does not name its maxima in row-major order")
    flat = [build.reshape(value, [-1]) for value in (g, node.outputs[1])]
    zeros = build.reshape(build.zeros(x), [-1])
    kernel = node.get_ints("kernel_shape")
    apart = all(s >= k for k, s in zip(kernel, node.get_ints("strides", (1,) * len(kernel))))
    if apart:
        return (build.reshape_as(build("ScatterElements", zeros, flat[1], flat[0]), x),)
    if build.opset < 16:
        raise CannotDifferentiate("has windows that overlap, whose sums opsets before 16 lack")
    return (build.reshape_as(build("ScatterElements", zeros, flat[1], flat[0], reduction="add"), x),)


def _norm(build: Builder, g: Value, y: Value, p: int, x: Value) -> Value:
    """g y**(1 - p), and 0 where y is."""
    if p == 1:
        return g
    zero, one = build.scalar(0.0, x), build.scalar(1.0, x)
    empty = build("Equal", y, zero)
    slope = build("Pow", build("Where", empty, one, y), build.scalar(float(1 - p), x))
    return build("Where", empty, zero, build("Mul", g, slope))


def _powered(build: Builder, x: Value, p: int) -> Value:
    """sign(x) |x|**(p - 1)."""
    if p == 2:
        return x
    sign = build("Sign", x)
    return sign if p == 1 else build("Mul", sign, build("Pow", build("Abs", x), build.scalar(float(p - 1), x)))


def lp(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    node, x, y = call.node, call.input(0), call.output
    p = node.get_int("p", 2)
    view = window(node, build, node.get_ints("kernel_shape"), x, y)
    spreaded = _back(build, _norm(build, call.gradient, y, p, x), view, x, y)
    return (build("Mul", _powered(build, x, p), spreaded),)


def global_lp(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    x, p = call.input(0), call.node.get_int("p", 2)
    return (build("Mul", _powered(build, x, p), _norm(build, call.gradient, call.output, p, x)),)


RULES: dict[str, Rule] = {
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_max,
    "AveragePool": average,
    "MaxPool": maximum,
    "LpPool": lp,
    "GlobalLpPool": global_lp,
}
