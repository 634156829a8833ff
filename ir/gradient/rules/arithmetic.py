"""Sums, products, powers, roots, extremes and functions of one number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ...graph import Value
from ..builder import Builder
from .call import GradientCall, Rule


def _undone(call: GradientCall, build: Builder, gradients: Sequence[Value | None]) -> list[Value | None]:
    """Gradients in the shape of the output, each brought to the shape of its input."""
    return [
        None if gradient is None or not call.wants(i) else build.unbroadcast(gradient, call.output, call.input(i))
        for i, gradient in enumerate(gradients)
    ]


def add(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    return _undone(call, build, [call.gradient] * len(call.node.inputs))


def subtract(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    first, second = _undone(call, build, [call.gradient] * 2)
    return first, None if second is None else build("Neg", second)


def multiply(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    g, (x, y) = call.gradient, (call.input(0), call.input(1))
    return _undone(call, build, [build("Mul", g, y), build("Mul", g, x) if call.wants(1) else None])


def divide(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    share = build("Div", call.gradient, call.input(1))
    first, second = _undone(call, build, [share, build("Mul", share, call.output) if call.wants(1) else None])
    return first, None if second is None else build("Neg", second)


def mean(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    count = len(call.node.inputs)
    share = build("Mul", call.gradient, build.scalar(1.0 / count, call.output))
    return _undone(call, build, [share] * count)


def power(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """x**p: p x**(p-1) for the base; y log(x) for the exponent, 0 where the logarithm does not exist."""
    g, x, p, y = call.gradient, call.input(0), call.input(1), call.output
    zero, one = build.scalar(0.0, x), build.scalar(1.0, x)
    exponent = p if build.dtype(p) is build.dtype(x) else build.cast(p, build.dtype(x))
    data = p.constant.numpy() if p.constant is not None else None
    if data is not None and data.size == 1 and float(data.reshape(())) == 2.0:
        slope = build("Add", x, x)
    else:
        slope = build("Mul", exponent, build("Pow", x, build("Sub", exponent, one)))
        if data is None or not data.all():
            slope = build("Where", build("Equal", exponent, zero), zero, slope)
    base = build("Mul", g, slope)
    if not call.wants(1):
        return _undone(call, build, [base])
    positive = build("Greater", x, zero)
    logarithm = build("Where", positive, build("Log", build("Where", positive, x, one)), zero)
    return _undone(call, build, [base, build("Mul", g, build("Mul", y, logarithm))])


def where(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    g, condition, zero = call.gradient, call.input(0), build.scalar(0.0, call.output)
    taken = [build("Where", condition, g, zero), build("Where", condition, zero, g)]
    return _undone(call, build, [None, *taken])


def extreme(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """Max and Min: to the first input that is the extreme."""
    gradients: list[Value | None] = []
    free: Value | None = None
    for value in call.node.inputs:
        assert value is not None
        chosen = build("Equal", value, call.output)
        mine = chosen if free is None else build("And", chosen, free)
        gradients.append(build.where(mine, call.gradient, call.output))
        other = build("Not", chosen)
        free = other if free is None else build("And", free, other)
    return _undone(call, build, gradients)


def modulo(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """x - y k for a whole number k: the sign of k rounds as `fmod` says."""
    x, y = call.input(0), call.input(1)
    whole = build("Div", build("Sub", x, call.output), y)
    first, second = _undone(call, build, [call.gradient, build("Mul", call.gradient, build("Round", whole))])
    return first, None if second is None else build("Neg", second)


Slope = Callable[[Builder, Value, Value], Value]
"""The derivative of a function of one number, from its argument and its value."""


def _function(slope: Slope) -> Rule:
    def rule(call: GradientCall, build: Builder) -> Sequence[Value | None]:
        return (build("Mul", call.gradient, slope(build, call.input(0), call.output)),)

    return rule


def _over(divisor: Slope) -> Rule:
    """For a function whose derivative is one over something simple."""

    def rule(call: GradientCall, build: Builder) -> Sequence[Value | None]:
        return (build("Div", call.gradient, divisor(build, call.input(0), call.output)),)

    return rule


def negate(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    return (build("Neg", call.gradient),)


def straight(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    return (call.gradient,)


def _square(build: Builder, x: Value) -> Value:
    return build("Mul", x, x)


def _from_one(build: Builder, x: Value, like: Value) -> Value:
    return build("Sub", build.scalar(1.0, like), x)


def _erf(build: Builder, x: Value, y: Value) -> Value:
    bell = build("Exp", build("Neg", _square(build, x)))
    return build("Mul", bell, build.scalar(2.0 / math.sqrt(math.pi), x))


def _root(build: Builder, square: Value) -> Value:
    return build("Sqrt", square)


def _tan(build: Builder, x: Value, y: Value) -> Value:
    return build("Add", _square(build, y), build.scalar(1.0, y))


def _grown(build: Builder, x: Value, number: float) -> Value:
    """x squared plus a number."""
    return build("Add", _square(build, x), build.scalar(number, x))


RULES: dict[str, Rule] = {
    "Add": add,
    "Sum": add,
    "Sub": subtract,
    "Mul": multiply,
    "Div": divide,
    "Mean": mean,
    "Pow": power,
    "Where": where,
    "Max": extreme,
    "Min": extreme,
    "Mod": modulo,
    "Neg": negate,
    "Round": straight,
    "Identity": straight,
    "Abs": _function(lambda build, x, y: build("Sign", x)),
    "Sqrt": _over(lambda build, x, y: build("Add", y, y)),
    "Exp": _function(lambda build, x, y: y),
    "Log": _over(lambda build, x, y: x),
    "Reciprocal": _function(lambda build, x, y: build("Neg", _square(build, y))),
    "Erf": _function(_erf),
    "Sin": _function(lambda build, x, y: build("Cos", x)),
    "Cos": _function(lambda build, x, y: build("Neg", build("Sin", x))),
    "Tan": _function(_tan),
    "Asin": _over(lambda build, x, y: _root(build, _from_one(build, _square(build, x), x))),
    "Acos": _over(lambda build, x, y: build("Neg", _root(build, _from_one(build, _square(build, x), x)))),
    "Atan": _over(lambda build, x, y: _grown(build, x, 1.0)),
    "Sinh": _function(lambda build, x, y: build("Cosh", x)),
    "Cosh": _function(lambda build, x, y: build("Sinh", x)),
    "Asinh": _over(lambda build, x, y: _root(build, _grown(build, x, 1.0))),
    "Acosh": _over(lambda build, x, y: _root(build, _grown(build, x, -1.0))),
    "Atanh": _over(lambda build, x, y: _from_one(build, _square(build, x), x)),
}
