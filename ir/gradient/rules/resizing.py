"""Resize: along each axis the result is a fixed matrix times the argument, so the gradient is its transpose.

The matrix is what the same Resize makes of the identity, whatever its mode, rounding and borders are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...attributes import Attribute
from ...graph import Value
from ..builder import Builder, CannotDifferentiate
from .call import GradientCall, Rule

_KEPT = ("mode", "coordinate_transformation_mode", "nearest_mode", "cubic_coeff_a", "exclude_outside", "antialias")


def resize(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    node, x, g = call.node, call.input(0), call.gradient
    if node.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise CannotDifferentiate("crops as it resizes")
    shape, result = build.shape(x), build.shape(call.output)
    rank = len(shape)
    axes = list(node.get_ints("axes", range(rank)))
    scales = node.input(2)
    numbers = None if scales is None or scales.constant is None else scales.constant.numpy().reshape(-1)
    if numbers is not None and not numbers.size:
        numbers = None
    if numbers is None and (scales is not None and node.input(3) is None):
        raise CannotDifferentiate("has scales that are computed as the model runs")
    for place, axis in enumerate(axes):
        axis %= rank
        scale = None if numbers is None else float(numbers[place])
        if scale == 1.0 or (scale is None and shape[axis] == result[axis]):
            continue
        factor = int(scale) if scale is not None and scale == int(scale) else None
        if factor is not None and factor > 1 and _repeats(call):
            g = _summed(build, g, axis, factor, rank)
        else:
            g = _along(call, build, g, axis, scale, rank)
    return (g,)


def _repeats(call: GradientCall) -> bool:
    """Whether a whole factor repeats each element."""
    node = call.node
    if node.get_string("mode", "nearest") != "nearest":
        return False
    coordinates = node.get_string("coordinate_transformation_mode", "half_pixel")
    rounding = node.get_string("nearest_mode", "round_prefer_floor")
    return (coordinates, rounding) == ("asymmetric", "floor") or (
        coordinates == "half_pixel" and rounding in ("round_prefer_floor", "round_prefer_ceil")
    )


def _summed(build: Builder, g: Value, axis: int, factor: int, rank: int) -> Value:
    sizes = build("Shape", g)
    behind = build.slice(sizes, [0], [axis + 1], [rank])
    ahead = build.ints([*[0] * axis, -1, factor])
    return build.sum(build.reshape(g, build("Concat", ahead, behind, axis=0)), [axis + 1])


def _along(call: GradientCall, build: Builder, g: Value, axis: int, scale: float | None, rank: int) -> Value:
    x, y = call.input(0), call.output
    size = build.size(x, axis)
    number = build.reshape(size, [])
    ends = Attribute.of(np.array([0.0, 1.0], build.dtype(x).numpy)).value
    values = build.graph.constant(ends)  # type: ignore[arg-type]
    identity = build("OneHot", build.positions(size), number, values, axis=-1)
    kept = {name: call.node.attributes[name] for name in _KEPT if name in call.node.attributes}
    # Four axes: runtimes resize no fewer in some modes.
    four = build.unsqueeze(identity, [0, 1])
    if scale is not None:
        scales = build.graph.constant(np.array([1, 1, 1, scale], np.float32))
        matrix = build("Resize", four, None, scales, **kept)
    else:
        sizes = build("Concat", build.ints([1, 1]), size, build.size(y, axis), axis=0)
        matrix = build("Resize", four, None, None, sizes, **kept)
    turned = build.transpose(build("Squeeze", matrix, build.ints([0, 1])), 1, 0)  # [out, in]
    if axis == rank - 1:
        return build("MatMul", g, turned)
    order = [*(i for i in range(rank) if i != axis), axis]
    back = sorted(range(rank), key=lambda i: order[i])
    return build.transpose(build("MatMul", build.transpose(g, *order), turned), *back)


RULES: dict[str, Rule] = {"Resize": resize}
