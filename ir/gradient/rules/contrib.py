"""Activations of ONNX Runtime's own domain, `com.microsoft`; what else it fuses is written out by `prepare`."""

from __future__ import annotations

from collections.abc import Sequence

from ...graph import Value
from ..builder import Builder
from .activations import gelu_slope, gelu_tanh_slope, swish_slope
from .call import GradientCall, Rule


def _biased(call: GradientCall, build: Builder, *, tanh: bool) -> Sequence[Value | None]:
    """Of the sum of the argument and a bias, which may be absent."""
    x, bias = call.input(0), call.node.input(1)
    total = x if bias is None else build("Add", x, bias)
    build.like(total, x)
    slope = gelu_tanh_slope(build, total) if tanh else gelu_slope(build, total)
    gradient = build("Mul", call.gradient, slope)
    return gradient, None if bias is None else build.unbroadcast(gradient, call.output, bias)


def bias_gelu(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    return _biased(call, build, tanh=False)


def fast_gelu(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    return _biased(call, build, tanh=True)


def quick_gelu(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    slope = swish_slope(build, call.input(0), call.output, call.node.get_float("alpha", 1.702))
    return (build("Mul", call.gradient, slope),)


RULES: dict[str, Rule] = {"Gelu": bias_gelu, "BiasGelu": bias_gelu, "FastGelu": fast_gelu, "QuickGelu": quick_gelu}
