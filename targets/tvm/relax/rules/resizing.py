"""Resize and Upsample, in all their modes: one axis after the other; and RoiAlign, which TVM has.

Along an axis each result is a sum of few neighbours, whose places and weights come from the coordinate that the result
has among the elements (ONNX Resize; coordinates in floats, as ONNX Runtime computes them). Scales are an operand, known
when the model is built or only when it runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from ..expressions import constant
from .call import LoweringCall
from .sizes import every, other_sizes


def lower_resize(call: LoweringCall) -> relax.Expr:
    node = call.node
    sizes, result = call.sizes(0), call.result()
    rank = len(sizes)
    axes = tuple(axis % rank for axis in node.get_ints("axes", range(rank)))
    mode = node.get_string("mode", "nearest")
    coordinates = node.get_string("coordinate_transformation_mode", "half_pixel")
    exact = node.get_string("nearest_mode", "round_prefer_floor")
    crops = coordinates == "tf_crop_and_resize"
    factors, fixed = _factors(call, axes, sizes, result)
    corners = call.array(1) if crops else np.zeros(2 * len(axes), np.float32)
    regions = constant(corners.astype(np.float32)) if corners is not None else call.cast(call.expr(1), "float32")
    x = call.expr(0)
    if sizes == result and not crops:
        return x  # ONNX Runtime copies it, whatever the scales
    dtype = str(x.ty.dtype.dtype)
    if mode != "nearest" and not dtype.startswith("float"):
        x = call.cast(x, "float32")
    for k, axis in enumerate(axes):
        if fixed is not None and fixed[k] == 1 and sizes[axis] == result[axis] and not crops:
            continue
        place = _Axis(
            sizes[axis],
            result[axis],
            axis,
            k,
            len(axes),
            mode,
            coordinates,
            exact,
            bool(node.get_int("antialias")),
            node.get_float("cubic_coeff_a", -0.75),
            bool(node.get_int("exclude_outside")),
            node.get_float("extrapolation_value"),
        )
        if mode == "nearest" and fixed is not None and not crops and result[axis] % sizes[axis] == 0:
            times = result[axis] // sizes[axis]
            if fixed[k] == times and coordinates == "asymmetric" and exact == "floor":
                x = call.te(repeated, x, axis=axis, times=times)
                continue
        if fixed is not None and corners is not None:
            # Where one lies between two elements depends on each rounding: LLVM would leave some out.
            steps = np.arange(result[axis], dtype=np.float32)
            scales = np.array(fixed, np.float32)
            points = constant(
                _known(steps, scales, place, _coordinate(steps, scales, corners.astype(np.float32), place))
            )
        else:
            points = call.te(coordinates_of, factors, regions, place=place)
        x = call.te(resized, x, points, factors, place=place)
    return call.cast(x, dtype)


_NEAR = 1e-6
"""How far from halfway between two elements a coordinate is taken for it."""
_HALVES = 16
"""The version of ONNX since which RoiAlign takes half a pixel off, unless it says otherwise."""


class _Axis:
    """One axis: of `size` elements, `wanted` results; it is the `k`-th of `count` that are resized."""

    def __init__(
        self, size: int, wanted: int, axis: int, k: int, count: int, mode: str, coordinates: str, nearest: str,
        antialias: bool, cubic: float, exclude: bool, beyond: float,
    ) -> None:  # fmt: skip
        self.size, self.wanted, self.axis, self.k, self.count = size, wanted, axis, k, count
        self.mode, self.coordinates, self.nearest = mode, coordinates, nearest
        self.antialias, self.cubic, self.exclude, self.beyond = antialias, cubic, exclude, beyond

    @property
    def reach(self) -> int:
        """Neighbours on each side that may count."""
        base = {"nearest": 0, "linear": 1, "cubic": 2}[self.mode]
        return base * math.ceil(max(1.0, self.size / max(self.wanted, 1))) if self.antialias else base


def _factors(
    call: LoweringCall, axes: tuple[int, ...], sizes: tuple[int, ...], result: tuple[int, ...]
) -> tuple[relax.Expr, list[float] | None]:
    """The scale of each axis as a vector, and as numbers where they are known."""
    one = np.float32
    if call.has(2) and call.value(2).static_shape != (0,):
        array = call.array(2)
        if array is not None:
            return constant(array.astype(one)), [float(n) for n in array]
        scales = call.cast(call.expr(2), "float32")
        inside = [(sizes[axis], result[axis]) for axis in axes]
        call.require(call.te(scales_fit, scales, pairs=inside), other_sizes(call))
        return scales, None
    policy = call.node.get_string("keep_aspect_ratio_policy", "stretch")
    array = call.array(3)
    if policy == "stretch":
        if array is None:
            from .sizes import agree

            agree(call, call.expr(3), lambda k, size: size == result[axes[k]], len(axes))
        numbers = [one(result[axis]) / one(sizes[axis]) for axis in axes]
        return constant(np.array(numbers, one)), [float(n) for n in numbers]
    smallest = policy == "not_larger"
    if array is not None:
        each = [one(n) / one(sizes[axis]) for n, axis in zip(array, axes, strict=True)]
        number = min(each) if smallest else max(each)
        return constant(np.full(len(axes), number, one)), [float(number)] * len(axes)
    scales = call.te(kept_ratio, call.expr(3), sizes=[sizes[axis] for axis in axes], smallest=smallest)
    call.require(call.te(ratio_fits, scales, pairs=[(sizes[a], result[a]) for a in axes]), other_sizes(call))
    return scales, None


def lower_roi_align(call: LoweringCall) -> relax.Expr:
    """Means over the cells of regions; of coordinates in pixels, half a pixel is taken off (`half_pixel`)."""
    node, rois = call.node, call.cast(call.expr(1), "float32")
    scale = node.get_float("spatial_scale", 1.0)
    usual = "half_pixel" if call.importer.graph.opset() >= _HALVES else "output_half_pixel"
    halves = node.get_string("coordinate_transformation_mode", usual) == "half_pixel"
    if halves:
        # TVM scales what it is handed, and takes nothing off.
        rois = call.emit(relax.op.subtract(rois, relax.const(0.5 / scale, "float32")))
    images = call.emit(relax.op.expand_dims(call.cast(call.expr(2), "float32"), axis=1))
    aligned = relax.op.vision.roi_align(
        call.cast(call.expr(0), "float32"),
        call.emit(relax.op.concat([images, rois], axis=1)),
        pooled_size=(node.get_int("output_height", 1), node.get_int("output_width", 1)),
        spatial_scale=scale,
        sample_ratio=node.get_int("sampling_ratio"),
        aligned=halves,
        layout="NCHW",
        mode="avg",
    )
    return call.cast(call.emit(aligned), call.dtype())


def scales_fit(scales: te.Tensor, *, pairs: list[tuple[int, int]]) -> te.Tensor:
    return te.compute(
        (), lambda: every(*[tirx.floor(scales[k] * float(n)) == float(m) for k, (n, m) in enumerate(pairs)]),
        name="scales_fit",
    )  # fmt: skip


def ratio_fits(scales: te.Tensor, *, pairs: list[tuple[int, int]]) -> te.Tensor:
    return te.compute(
        (), lambda: every(*[tirx.floor(scales[k] * float(n) + 0.5) == float(m) for k, (n, m) in enumerate(pairs)]),
        name="ratio_fits",
    )  # fmt: skip


def kept_ratio(wanted: te.Tensor, *, sizes: list[int], smallest: bool) -> te.Tensor:
    each = [wanted[k].astype("float32") / tirx.const(size, "float32") for k, size in enumerate(sizes)]
    factor = each[0]
    for one in each[1:]:
        factor = tirx.min(factor, one) if smallest else tirx.max(factor, one)
    return te.compute((len(sizes),), lambda k: factor, name="kept_ratio")


def repeated(x: te.Tensor, *, axis: int, times: int) -> te.Tensor:
    """Each element so many times, one after the other."""
    shape = [size * times if a == axis else size for a, size in enumerate(x.shape)]
    return te.compute(shape, lambda *i: x[(*i[:axis], i[axis] // times, *i[axis + 1 :])], name="repeated")


def coordinates_of(factors: te.Tensor, regions: te.Tensor, *, place: _Axis) -> te.Tensor:
    def at(i: Any) -> Any:
        return _coordinate(i.astype("float32"), factors, regions, place, lambda n: tirx.const(n, "float32"))

    return te.compute((place.wanted,), at, name="coordinates_of")


def resized(x: te.Tensor, coordinate: te.Tensor, factors: te.Tensor, *, place: _Axis) -> te.Tensor:
    axis, size = place.axis, place.size
    kind = "float64" if x.dtype == "float64" else "float32"
    shape = [place.wanted if a == axis else n for a, n in enumerate(x.shape)]

    def read(i: tuple[Any, ...], at: Any) -> Any:
        return x[(*i[:axis], tirx.max(tirx.min(at, size - 1), 0), *i[axis + 1 :])]

    def seen(i: tuple[Any, ...], value: Any) -> Any:
        if place.coordinates != "tf_crop_and_resize":
            return value
        c = coordinate[i[axis]]
        inside = tirx.all(c >= 0.0, c <= float(size - 1))
        return tirx.if_then_else(inside, value, tirx.const(place.beyond, x.dtype))

    if place.mode == "nearest":
        return te.compute(
            shape, lambda *i: seen(i, read(i, _nearest(coordinate[i[axis]], place.nearest))), name="resized"
        )
    reach = place.reach
    taps = 2 * reach
    scale = tirx.min(factors[place.k], tirx.const(1, "float32")) if place.antialias else tirx.const(1, "float32")
    start = te.compute(
        (place.wanted,),
        lambda i: tirx.floor(coordinate[i]).astype("int32") - (reach - 1),
        name="start",
    )

    def raw(i: Any, t: Any) -> Any:
        far = (start[i] + t).astype("float32") - coordinate[i]
        weight = _weight(tirx.abs(far) * scale, place)
        if place.exclude:
            at = start[i] + t
            weight = tirx.Select(tirx.all(at >= 0, at < size), weight, tirx.const(0, "float32"))
        return weight

    weights = te.compute((place.wanted, taps), raw, name="weights")
    r = te.reduce_axis((0, taps), "t")
    total = te.compute((place.wanted,), lambda i: te.sum(weights[i, r], axis=r), name="total")
    whole = place.antialias or place.exclude

    def at(*i: Any) -> Any:
        answer: Any = tirx.const(0, kind)
        for t in range(taps):
            weight = weights[i[axis], t]
            weight = weight / total[i[axis]] if whole else weight
            answer = answer + read(i, start[i[axis]] + t).astype(kind) * weight.astype(kind)
        return seen(i, answer.astype(x.dtype))

    if taps <= 8:
        return te.compute(shape, at, name="resized")
    s = te.reduce_axis((0, taps), "s")

    def many(*i: Any) -> Any:
        weight = (weights[i[axis], s] / total[i[axis]]) if whole else weights[i[axis], s]
        return te.sum(read(i, start[i[axis]] + s).astype(kind) * weight.astype(kind), axis=s)

    summed = te.compute(shape, many, name="summed")
    return te.compute(shape, lambda *i: seen(i, summed[i].astype(x.dtype)), name="resized")


def _coordinate(i: Any, factors: Any, regions: Any, place: _Axis, real: Callable[[float], Any] = np.float32) -> Any:
    """Where result `i` is among the elements."""
    half, scale, size, wanted = real(0.5), factors[place.k], place.size, place.wanted
    match place.coordinates:
        case "asymmetric":
            return i / scale
        case "align_corners":
            return i * real(size - 1) / real(wanted - 1) if wanted > 1 else i * real(0)
        case "half_pixel_symmetric":
            centre = real(size / 2)
            return centre * (real(1) - real(wanted) / (scale * real(size))) + (i + half) / scale - half
        case "tf_half_pixel_for_nn":
            return (i + half) / scale
        case "tf_crop_and_resize":
            first, last = regions[place.k], regions[place.count + place.k]
            if wanted == 1:
                return half * (first + last) * real(size - 1) + i
            return first * real(size - 1) + i * (last - first) * real(size - 1) / real(wanted - 1)
        case "pytorch_half_pixel" if wanted == 1:
            return i * real(0)
    return (i + half) / scale - half


def _known(i: Any, scales: Any, place: _Axis, points: Any) -> Any:
    """Coordinates of scales that are known, rounded as often as ONNX Runtime rounds them: on a tie, that decides which
    neighbour is the nearest."""
    scale, wide = scales[place.k], np.float64
    if place.coordinates == "half_pixel_symmetric":
        kept = np.float32(place.wanted) / (scale * np.float32(place.size))
        offset = np.float32(place.size / 2) * (np.float32(1) - kept)
        return (wide(offset) + (i.astype(wide) + 0.5) / wide(scale) - 0.5).astype(np.float32)
    return points


def _nearest(c: Any, how: str) -> Any:
    """The element that a coordinate is taken from. One that is all but halfway between two counts as halfway, as with
    ONNX Runtime, so that roundings on the way there do not decide."""
    down = tirx.floor(c)
    half, near, one = (tirx.const(number, "float32") for number in (0.5, _NEAR, 1))
    match how:
        case "floor":
            at = down
        case "ceil":
            at = tirx.ceil(c)
        case _:
            prefers_ceil = how == "round_prefer_ceil"
            far = c - down - half
            up = far > -near if prefers_ceil else far >= near
            at = tirx.Select(up, down + one, down)
    return at.astype("int32")


def _weight(far: Any, place: _Axis) -> Any:
    """What a neighbour counts that is so far away, in elements of the coarser grid."""
    zero, one = tirx.const(0, "float32"), tirx.const(1, "float32")
    if place.mode == "linear":
        return tirx.max(one - far, zero)
    a = tirx.const(place.cubic, "float32")
    near = ((a + 2.0) * far - (a + 3.0)) * far * far + one
    outer = ((a * far - 5.0 * a) * far + 8.0 * a) * far - 4.0 * a
    return tirx.Select(far <= 1.0, near, tirx.Select(far < 2.0, outer, zero))
