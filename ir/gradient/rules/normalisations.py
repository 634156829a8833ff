"""Normalisations: by stored statistics (BatchNormalization), or by those of the sample itself.

For xhat = (x - m) r, r = 1 / sqrt(v + epsilon), over axes of n elements, and the gradient h of xhat:
dx = r (h - mean(h) - xhat mean(h xhat)); without the mean (RMSNormalization) its term is absent.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...graph import Value
from ...types import DType
from ..builder import Builder, CannotDifferentiate
from .call import GradientCall, Rule


def batch_normalization(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    node, g, x = call.node, call.gradient, call.input(0)
    if node.get_int("training_mode"):
        raise CannotDifferentiate("is in training mode")
    scale, mean, variance = call.input(1), call.input(3), call.input(4)
    rank = build.rank(x)
    epsilon = build.scalar(node.get_float("epsilon", 1e-5), variance)
    spread = build("Sqrt", build("Add", variance, epsilon))
    slope = build("Div", scale, spread)
    across = build("Mul", g, build.along(slope, 1, rank) if rank > 1 else slope)
    if not call.wanted - {0}:
        return (across,)
    others = [axis for axis in range(rank) if axis != 1]
    bias = build.sum(g, others)
    moment = build.sum(build("Mul", g, build("Sub", x, build.along(mean, 1, rank))), others)
    by_scale = build("Div", moment, spread)
    by_mean = build("Neg", build("Mul", bias, slope))
    squared = build("Mul", build("Add", variance, epsilon), build.scalar(-2.0, variance))
    by_variance = build("Div", build("Mul", moment, slope), squared)
    return across, by_scale, bias, by_mean, by_variance


def _statistics(build: Builder, x: Value, axes: Sequence[int], epsilon: float, centred: bool) -> tuple[Value, Value]:
    """xhat, and r with the axes at size 1."""
    shifted = build("Sub", x, build.mean(x, axes)) if centred else x
    variance = build.mean(build("Mul", shifted, shifted), axes)
    spread = build("Sqrt", build("Add", variance, build.scalar(epsilon, x)))
    inverse = build("Reciprocal", spread)
    return build("Mul", shifted, inverse), inverse


def _through(build: Builder, h: Value, xhat: Value, inverse: Value, axes: Sequence[int], centred: bool) -> Value:
    rest = build("Sub", h, build("Mul", xhat, build.mean(build("Mul", h, xhat), axes)))
    if centred:
        rest = build("Sub", rest, build.mean(h, axes))
    return build("Mul", rest, inverse)


def layer_normalization(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """Also RMSNormalization; the statistics that the forward pass returns are read where it does (`prepare`)."""
    node, g, x, scale = call.node, call.gradient, call.input(0), call.input(1)
    rank = build.rank(x)
    first = call.axis(rank, -1)
    axes, centred = list(range(first, rank)), node.op == "LayerNormalization"
    mean, inverse = (node.outputs[1:3] if len(node.outputs) > 2 else (None, None)) if centred else (None, None)
    if mean is not None and inverse is not None and build.dtype(x) in (DType.FLOAT, DType.DOUBLE):
        xhat = build("Mul", build("Sub", x, mean), inverse)
    else:
        xhat, inverse = _statistics(build, x, axes, node.get_float("epsilon", 1e-5), centred)
    h = build("Mul", g, scale)
    across = _through(build, h, xhat, inverse, axes, centred) if call.wants(0) else None
    by_scale = build.unbroadcast(build("Mul", g, xhat), call.output, scale) if call.wants(1) else None
    if not centred or node.input(2) is None or not call.wants(2):
        return across, by_scale
    return across, by_scale, build.unbroadcast(g, call.output, call.input(2))


def instance_normalization(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    g, x, scale = call.gradient, call.input(0), call.input(1)
    rank = build.rank(x)
    axes = list(range(2, rank))
    xhat, inverse = _statistics(build, x, axes, call.node.get_float("epsilon", 1e-5), True)
    h = build("Mul", g, build.along(scale, 1, rank))
    others = [0, *axes]
    return (
        _through(build, h, xhat, inverse, axes, True),
        build.sum(build("Mul", g, xhat), others),
        build.sum(g, others),
    )


def group_normalization(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """Groups of channels are normalised together; scale and bias a channel, or a group before opset 21."""
    g, x, scale = call.gradient, call.input(0), call.input(1)
    groups, epsilon = call.node.get_int("num_groups"), call.node.get_float("epsilon", 1e-5)
    if build.opset < 21:
        sizes = build.ints([0, groups, -1])
        grouped, arrived = build.reshape(x, sizes), build.reshape(g, sizes)
        xhat, inverse = _statistics(build, build.like(grouped, x), [2], epsilon, True)
        h = build("Mul", arrived, build.along(scale, 1, 3))
        across = build.reshape_as(_through(build, h, xhat, inverse, [2], True), x)
        return across, build.sum(build("Mul", arrived, xhat), [0, 2]), build.sum(arrived, [0, 2])
    rank = build.rank(x)
    channels = build.shape(x)[1]
    if not isinstance(channels, int):
        raise CannotDifferentiate("has an open number of channels")
    sizes = build.ints([0, groups, channels // groups, -1])
    arrived = build.reshape(g, sizes)
    factor = build.along(build.reshape(scale, [groups, channels // groups]), 0, 2) if rank < 2 else scale
    factor = build.reshape(factor, [1, groups, channels // groups, 1])
    xhat, inverse = _statistics(build, build.like(build.reshape(x, sizes), x), [2, 3], epsilon, True)
    across = build.reshape_as(_through(build, build("Mul", arrived, factor), xhat, inverse, [2, 3], True), x)
    by_scale = build.reshape(build.sum(build("Mul", arrived, xhat), [0, 3]), [-1])
    return across, by_scale, build.reshape(build.sum(arrived, [0, 3]), [-1])


def lp_normalization(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """y = x / n: (g - y sum(g y)) / n for the Euclidean norm, (g - sign(x) sum(g y)) / n for the sum of sizes."""
    g, x, y = call.gradient, call.input(0), call.output
    axis = call.axis(build.rank(x), -1)
    total = build.sum(build("Mul", g, y), [axis], keepdims=True)
    if call.node.get_int("p", 2) == 1:
        size, side = build.sum(build("Abs", x), [axis], keepdims=True), build("Sign", x)
    else:
        size, side = build("Sqrt", build.sum(build("Mul", x, x), [axis], keepdims=True)), y
    return (build("Div", build("Sub", g, build("Mul", side, total)), size),)


def local_response(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """x D^-b, D = k + a/n times the sum of squares of n channels around: g D^-b - 2ab/n x W'(g x D^(-b-1))."""
    g, x, node = call.gradient, call.input(0), call.node
    count = node.get_int("size")
    share, power = node.get_float("alpha", 1e-4) / count, node.get_float("beta", 0.75)
    before, after = (count - 1) // 2, count // 2
    squares = _windows(build, build("Mul", x, x), before, after, x)
    below = build("Add", build("Mul", squares, build.scalar(share, x)), build.scalar(node.get_float("bias", 1.0), x))
    slope = build("Pow", below, build.scalar(-power, x))
    spread = build("Div", build("Mul", build("Mul", g, x), slope), below)
    back = build("Mul", _windows(build, spread, after, before, x), build.scalar(2.0 * share * power, x))
    return (build("Sub", build("Mul", g, slope), build("Mul", x, back)),)


def _windows(build: Builder, value: Value, before: int, after: int, x: Value) -> Value:
    """Sums over channels from `before` in front of each one to `after` behind it."""
    rank = build.rank(x)
    rest = [0] * (rank - 2)
    padded = build.pad(value, [0, before, *rest], [0, after, *rest], x)
    total: Value | None = None
    for shift in range(before + after + 1):
        end = shift - before - after
        part = build.slice(padded, [1], [shift], [end if end else 1 << 62])
        total = part if total is None else build("Add", total, part)
    assert total is not None
    return total


def mean_variance(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    x, axes = call.input(0), list(call.node.get_ints("axes", (0, 2, 3)))
    xhat, inverse = _statistics(build, x, axes, 0.0, True)
    return (_through(build, call.gradient, xhat, inverse, axes, True),)


RULES: dict[str, Rule] = {
    "BatchNormalization": batch_normalization,
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"), layer_normalization),
    "InstanceNormalization": instance_normalization,
    "GroupNormalization": group_normalization,
    "LpNormalization": lp_normalization,
    "LRN": local_response,
    "MeanVarianceNormalization": mean_variance,
}
