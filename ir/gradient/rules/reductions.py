"""Reductions along axes, and cumulative sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...graph import Value
from ..builder import Builder, CannotDifferentiate
from .call import GradientCall, Rule


def _axes(call: GradientCall, build: Builder) -> list[int]:
    """The axes that are reduced, in order; none where the node changes nothing."""
    rank = build.rank(call.input(0))
    axes = call.ints(build, "axes", 1)
    if not axes:
        return [] if call.node.get_int("noop_with_empty_axes") else list(range(rank))
    return sorted(axis % rank for axis in axes)


def _kept(call: GradientCall, build: Builder, value: Value, axes: Sequence[int]) -> Value:
    """A value of the shape of the output, with the reduced axes at size 1."""
    return value if call.node.get_int("keepdims", 1) else build.unsqueeze(value, axes)


Slope = Callable[[Builder, Value, Value], "Value | None"]
"""What the gradient of a reduction is multiplied with, from its argument and its value; `None` for one."""


def _reduction(slope: Slope) -> Rule:
    def rule(call: GradientCall, build: Builder) -> Sequence[Value | None]:
        x, axes = call.input(0), _axes(call, build)
        g, y = (_kept(call, build, value, axes) for value in (call.gradient, call.output))
        factor = slope(build, x, y)
        if factor is None:
            return (build("Expand", g, build.shape_of(x)) if axes else g,)
        return (build("Mul", g, factor),)

    return rule


def mean(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    x, axes = call.input(0), _axes(call, build)
    if not axes:
        return (call.gradient,)
    share = build("Div", _kept(call, build, call.gradient, axes), build.count(x, axes))
    return (build("Expand", share, build.shape_of(x)),)


def extreme(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """ReduceMax and ReduceMin: shared among the elements that are the extreme."""
    x, axes = call.input(0), _axes(call, build)
    g, y = (_kept(call, build, value, axes) for value in (call.gradient, call.output))
    chosen = build.cast(build("Equal", x, y), build.dtype(x))
    return (build("Mul", chosen, build("Div", g, build.sum(chosen, axes, keepdims=True))),)


def norm(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """ReduceL2: x / y, and 0 where all elements are."""
    x, axes = call.input(0), _axes(call, build)
    g, y = (_kept(call, build, value, axes) for value in (call.gradient, call.output))
    zero, one = build.scalar(0.0, x), build.scalar(1.0, x)
    safe = build("Where", build("Equal", y, zero), one, y)
    return (build("Mul", x, build("Div", g, safe)),)


def log_sum(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """The logarithm of a sum: one over the sum, for each of its elements."""
    x, axes = call.input(0), _axes(call, build)
    g, y = (_kept(call, build, value, axes) for value in (call.gradient, call.output))
    return (build("Expand", build("Mul", g, build("Exp", build("Neg", y))), build.shape_of(x)),)


def product(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """ReduceProd along one axis: the product of what comes before and of what comes after, zeros or not."""
    x, axes = call.input(0), _axes(call, build)
    if len(axes) > 1:
        raise CannotDifferentiate("multiplies along several axes")
    if not axes:
        return (call.gradient,)
    rank, (axis,) = build.rank(x), axes
    size = build.shape(x)[axis]
    if not isinstance(size, int):
        raise CannotDifferentiate("multiplies along an axis of open size")
    parts = [build.slice(x, [axis], [i], [i + 1]) for i in range(size)]
    one = build("Expand", build.scalar(1.0, x), build.ints([1] * rank))
    before, after = [one], [one]
    for first, last in zip(parts, reversed(parts)):
        before.append(build("Mul", before[-1], first))
        after.append(build("Mul", last, after[-1]))
    others = [build("Mul", before[i], after[size - 1 - i]) for i in range(size)]
    return (build("Mul", _kept(call, build, call.gradient, axes), build("Concat", *others, axis=axis)),)


def cumulative_sum(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    exclusive, reverse = call.node.get_int("exclusive"), call.node.get_int("reverse")
    return (build("CumSum", call.gradient, call.input(1), exclusive=exclusive, reverse=1 - reverse),)


RULES: dict[str, Rule] = {
    "ReduceSum": _reduction(lambda build, x, y: None),
    "ReduceMean": mean,
    "ReduceMax": extreme,
    "ReduceMin": extreme,
    "ReduceL1": _reduction(lambda build, x, y: build("Sign", x)),
    "ReduceL2": norm,
    "ReduceSumSquare": _reduction(lambda build, x, y: build("Add", x, x)),
    "ReduceLogSumExp": _reduction(lambda build, x, y: build("Exp", build("Sub", x, y))),
    "ReduceLogSum": log_sum,
    "ReduceProd": product,
    "CumSum": cumulative_sum,
}
