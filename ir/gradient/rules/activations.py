"""Activations and their normalised kin: piecewise linear ones, smooth ones, Softmax.

Where a function has a kink the field's convention holds: Relu passes nothing at 0, LeakyRelu and its kin the slope on
the left, Clip everything inside and at its bounds, HardSigmoid nothing at its bounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...graph import Value
from ..builder import Builder
from .call import GradientCall, Rule


def _positive(build: Builder, x: Value, bound: float = 0.0) -> Value:
    return build("Greater", x, build.scalar(bound, x))


def _sides(build: Builder, x: Value, right: Value, left: Value) -> Sequence[Value | None]:
    return (build("Where", _positive(build, x), right, left),)


def _scaled(build: Builder, gradient: Value, number: float, like: Value) -> Value:
    return build("Mul", gradient, build.scalar(number, like))


def relu(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    # The result is positive where the argument is: the argument need not be kept.
    return (build.where(_positive(build, call.output), call.gradient, call.output),)


def leaky_relu(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    g, x = call.gradient, call.input(0)
    return _sides(build, x, g, _scaled(build, g, call.node.get_float("alpha", 0.01), x))


def thresholded_relu(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    x = call.input(0)
    return (build.where(_positive(build, x, call.node.get_float("alpha", 1.0)), call.gradient, x),)


def prelu(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    g, x, slope = call.gradient, call.input(0), call.input(1)
    positive = _positive(build, x)
    across = build("Where", positive, g, build("Mul", g, slope))
    if not call.wants(1):
        return (across,)
    below = build("Where", positive, build.scalar(0.0, x), build("Mul", g, x))
    return across, build.unbroadcast(below, call.output, slope)


def elu(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """alpha (exp(x) - 1) below 0, whose derivative is its value plus alpha."""
    g, x, y = call.gradient, call.input(0), call.output
    alpha = build.scalar(call.node.get_float("alpha", 1.0), x)
    return _sides(build, x, g, build("Mul", g, build("Add", y, alpha)))


def selu(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    g, x, y = call.gradient, call.input(0), call.output
    gamma = call.node.get_float("gamma", 1.0507009873554804934193349852946)
    alpha = gamma * call.node.get_float("alpha", 1.6732632423543772848170429916717)
    left = build("Mul", g, build("Add", y, build.scalar(alpha, x)))
    return _sides(build, x, _scaled(build, g, gamma, x), left)


def celu(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """alpha (exp(x / alpha) - 1) below 0, whose derivative is its value over alpha, plus 1."""
    g, x, y = call.gradient, call.input(0), call.output
    slope = build("Add", _scaled(build, y, 1.0 / call.node.get_float("alpha", 1.0), x), build.scalar(1.0, x))
    return _sides(build, x, g, build("Mul", g, slope))


def clip(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """The argument passes unchanged exactly where it lies inside the bounds or at one.

    Behind a convolution, whose result is at a bound by chance only, the bounds count as outside: then the result alone
    tells, and a runtime can clip what the layer computes as it writes it.
    """
    g, x = call.gradient, call.input(0)
    gradients: list[Value | None] = [build.where(_inside(call, build), g, x)]
    for index, outside in ((1, "Less"), (2, "Greater")):
        bound = call.node.input(index)
        if bound is None or not call.wants(index):
            gradients.append(None)
            continue
        cut = build.where(build(outside, x, bound), g, x)
        gradients.append(build.reshape_as(build.sum(cut, range(build.rank(x))), bound))
    return gradients


def _inside(call: GradientCall, build: Builder) -> Value:
    """Whether the argument of a Clip lies inside its bounds."""
    x, y = call.input(0), call.output
    layer = x.producer is not None and x.producer.op == "Conv" and not x.is_output
    sides = [
        build(op, y, bound)
        for op, index in (("Greater", 1), ("Less", 2))
        if layer and (bound := call.node.input(index)) is not None
    ]
    if not sides:
        return build("Equal", x, y)
    return build("And", *sides) if len(sides) > 1 else sides[0]


def sigmoid(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    y = call.output
    return (build("Mul", call.gradient, build("Mul", y, build("Sub", build.scalar(1.0, y), y))),)


def tanh(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    y = call.output
    return (build("Mul", call.gradient, build("Sub", build.scalar(1.0, y), build("Mul", y, y))),)


def hard_sigmoid(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    y = call.output
    inside = build("And", _positive(build, y), build("Less", y, build.scalar(1.0, y)))
    return (build.where(inside, _scaled(build, call.gradient, call.node.get_float("alpha", 0.2), y), y),)


def hard_swish(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """x min(max(x / 6 + 1/2, 0), 1): x / 3 + 1/2 between -3 and 3."""
    g, x = call.gradient, call.input(0)
    slope = build("Add", _scaled(build, x, 1.0 / 3.0, x), build.scalar(0.5, x))
    low, high = build.scalar(-3.0, x), build.scalar(3.0, x)
    slope = build("Where", build("Greater", x, low), slope, build.scalar(0.0, x))
    slope = build("Where", build("Less", x, high), slope, build.scalar(1.0, x))
    return (build("Mul", g, slope),)


def softplus(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    return (build("Mul", call.gradient, build("Sigmoid", call.input(0))),)


def softsign(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    x = call.input(0)
    below = build("Add", build("Abs", x), build.scalar(1.0, x))
    return (build("Div", call.gradient, build("Mul", below, below)),)


def gelu(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    approximate = call.node.get_string("approximate", "none") == "tanh"
    slope = gelu_tanh_slope(build, call.input(0)) if approximate else gelu_slope(build, call.input(0))
    return (build("Mul", call.gradient, slope),)


def gelu_slope(build: Builder, x: Value) -> Value:
    """Of x F(x), F the normal distribution with density f: F(x) + x f(x)."""
    erf = build("Erf", _scaled(build, x, math.sqrt(0.5), x))
    distribution = _scaled(build, build("Add", erf, build.scalar(1.0, x)), 0.5, x)
    bell = build("Exp", _scaled(build, build("Mul", x, x), -0.5, x))
    density = _scaled(build, bell, 1.0 / math.sqrt(2.0 * math.pi), x)
    return build("Add", distribution, build("Mul", x, density))


def gelu_tanh_slope(build: Builder, x: Value) -> Value:
    """Of x (1 + tanh(u)) / 2, u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    root, cubic = math.sqrt(2.0 / math.pi), 0.044715
    square = build("Mul", x, x)
    one = build.scalar(1.0, x)
    inner = build("Mul", x, build("Add", _scaled(build, square, root * cubic, x), build.scalar(root, x)))
    bent = build("Tanh", inner)
    steep = build("Add", _scaled(build, square, 3.0 * root * cubic, x), build.scalar(root, x))
    curve = build("Mul", build("Mul", x, steep), build("Sub", one, build("Mul", bent, bent)))
    return _scaled(build, build("Add", build("Add", bent, one), curve), 0.5, x)


def mish(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """x t, t = tanh(softplus(x)): t + x (1 - t^2) sigmoid(x)."""
    x = call.input(0)
    bent = build("Tanh", build("Softplus", x))
    steep = build("Mul", build("Sub", build.scalar(1.0, x), build("Mul", bent, bent)), build("Sigmoid", x))
    return (build("Mul", call.gradient, build("Add", bent, build("Mul", x, steep))),)


def swish(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    return (
        build("Mul", call.gradient, swish_slope(build, call.input(0), call.output, call.node.get_float("alpha", 1.0))),
    )


def swish_slope(build: Builder, x: Value, y: Value, alpha: float) -> Value:
    """Of y = x s, s = sigmoid(alpha x): s + alpha y (1 - s)."""
    gate = build("Sigmoid", x if alpha == 1.0 else _scaled(build, x, alpha, x))
    rest = build("Mul", y, build("Sub", build.scalar(1.0, x), gate))
    return build("Add", gate, rest if alpha == 1.0 else _scaled(build, rest, alpha, x))


def _normalised(call: GradientCall, build: Builder) -> list[int]:
    """The axes that are normalised together: one, or all from one on before opset 13."""
    rank = build.rank(call.output)
    old = build.opset < 13
    axis = call.axis(rank, 1 if old else -1)
    return list(range(axis, rank)) if old else [axis]


def softmax(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    y = call.output
    share = build("Mul", call.gradient, y)
    total = build.sum(share, _normalised(call, build), keepdims=True)
    return (build("Sub", share, build("Mul", y, total)),)


def log_softmax(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    total = build.sum(call.gradient, _normalised(call, build), keepdims=True)
    return (build("Sub", call.gradient, build("Mul", build("Exp", call.output), total)),)


RULES: dict[str, Rule] = {
    "Relu": relu,
    "LeakyRelu": leaky_relu,
    "ThresholdedRelu": thresholded_relu,
    "PRelu": prelu,
    "Elu": elu,
    "Selu": selu,
    "Celu": celu,
    "Clip": clip,
    "Sigmoid": sigmoid,
    "Tanh": tanh,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "Softplus": softplus,
    "Softsign": softsign,
    "Gelu": gelu,
    "Mish": mish,
    "Swish": swish,
    "Softmax": softmax,
    "LogSoftmax": log_softmax,
}
