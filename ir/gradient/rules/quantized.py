"""Quantization: straight through inside the range, nothing outside; scales and zero points as learned step sizes.

For q = clip(round(x / s) + z) and y = s (q - z), as if rounding changed nothing: dq/dx is 1 / s inside and 0 outside,
dq/ds is -x / s^2 inside, dq/dz is 1 inside; dy/dq = s, dy/ds = q - z, dy/dz = -s. Together that is Esser et al. 2020,
eq. 3. Gradients of integers are floats, per unit of the integer.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...graph import Value
from ...types import DType
from ..builder import Builder, CannotDifferentiate
from .call import GradientCall, Rule


class _Grid:
    """The scale and zero point of a node, in the shape in which they meet the elements.

    With blocks, elements are seen as [..., blocks, elements of a block, ...].
    """

    def __init__(self, call: GradientCall, build: Builder, like: Value) -> None:
        self.call, self.build = call, build
        self.scale = call.input(1)
        self.dtype = build.dtype(self.scale)
        rank = build.rank(like)
        shape = build.shape(self.scale)
        block = call.node.get_int("block_size")
        self.axis = call.axis(rank, 1) if rank else 0
        self.block = block
        self.like = like
        if block:
            size = build.shape(like)[self.axis]
            if not isinstance(size, int) or size % block:
                raise CannotDifferentiate("has blocks that do not divide its axis")
            self.summed = [self.axis + 1]
        elif shape in ((), (1,)):
            self.summed = list(range(rank))
        else:
            self.summed = [i for i in range(rank) if i != self.axis]
        self.rank = rank

    def seen(self, value: Value) -> Value:
        """An element-wise value, in floats, split in blocks where there are any."""
        if not self.block:
            return value
        sizes = self.build("Shape", value)
        behind = self.build.slice(sizes, [0], [self.axis + 1], [self.rank])
        ahead = self.build.ints([*[0] * self.axis, -1, self.block])
        return self.build.reshape(value, self.build("Concat", ahead, behind, axis=0))

    def spread(self, parameter: Value) -> Value:
        """A scale or zero point, to be broadcast against what `seen` makes."""
        if self.block:
            return self.build.unsqueeze(parameter, [self.axis + 1])
        if len(self.summed) == self.rank:
            return self.build.reshape(parameter, [])
        return self.build.along(parameter, self.axis, self.rank)

    def zero(self) -> Value | None:
        zero = self.call.node.input(2)
        return None if zero is None else self.spread(self.build.cast(zero, self.dtype))

    def collect(self, gradient: Value) -> Value:
        """The sum over the elements that share a parameter, in the parameter's shape."""
        return self.build.reshape_as(self.build.sum(gradient, self.summed), self.scale)


def quantize(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    x, q = call.input(0), call.output
    grid = _Grid(call, build, x)
    g, scale, zero = grid.seen(call.gradient), grid.spread(grid.scale), grid.zero()
    steps = build("Div", grid.seen(x), scale)
    codes = steps if zero is None else build("Add", steps, zero)
    low, high = _range(build.dtype(q))
    inside = build("Equal", codes, build("Clip", codes, build.scalar(low, grid.scale), build.scalar(high, grid.scale)))
    passed = build.where(inside, g, grid.scale)
    across = build.reshape_as(build("Div", passed, scale), x)
    by_scale = by_zero = None
    if call.wants(1):
        by_scale = build("Neg", grid.collect(build("Div", build("Mul", passed, steps), scale)))
    if zero is not None and call.wants(2):
        by_zero = grid.collect(passed)
    return across, by_scale, by_zero


def _range(dtype: DType) -> tuple[float, float]:
    if not dtype.is_integer:
        raise CannotDifferentiate(f"quantizes to {dtype.text}")
    if dtype.name.startswith("U"):
        return 0.0, float(2**dtype.bits - 1)
    return -float(2 ** (dtype.bits - 1)), float(2 ** (dtype.bits - 1) - 1)


def dequantize(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    q = call.input(0)
    grid = _Grid(call, build, q)
    g, scale, zero = grid.seen(call.gradient), grid.spread(grid.scale), grid.zero()
    scaled = build("Mul", g, scale)
    by_scale = by_zero = None
    if call.wants(1):
        codes = grid.seen(build.cast(q, grid.dtype))
        by_scale = grid.collect(build("Mul", g, codes if zero is None else build("Sub", codes, zero)))
    if zero is not None and call.wants(2):
        by_zero = build("Neg", grid.collect(scaled))
    return build.reshape_as(scaled, q), by_scale, by_zero


def dynamic_quantize(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """Everything is inside the range, which is the data's own: straight through, but for the rounding of its ends."""
    return (build("Div", call.gradient, call.node.outputs[1]),)


RULES: dict[str, Rule] = {
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    "DynamicQuantizeLinear": dynamic_quantize,
}
