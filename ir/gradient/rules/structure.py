"""Operators that move elements without computing: views, transpositions, pieces, borders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...graph import Value
from ...types import DType
from ..builder import Builder, CannotDifferentiate
from .call import GradientCall, Rule

_DENSE = 256
"""The largest axis along which elements are put in place by a product of matrices."""


def view(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    return (build.reshape_as(call.gradient, call.input(0)),)


def cast(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    x = call.input(0)
    if not (build.dtype(x).is_float and build.dtype(call.output).is_float):
        return ()
    return (build.cast(call.gradient, build.dtype(x)),)


def expand(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    return (build.unbroadcast(call.gradient, call.output, call.input(0)),)


def tile(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """[r0 d0, r1 d1, …] seen as [r0, d0, r1, d1, …] and summed over the repeats."""
    x = call.input(0)
    rank = build.rank(x)
    pairs = build("Concat", call.input(1), build.shape_of(x), axis=0)
    interleaved = build("Gather", pairs, build.ints([i + half for i in range(rank) for half in (0, rank)]))
    return (build.sum(build.reshape(call.gradient, interleaved), range(0, 2 * rank, 2)),)


def transpose(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    rank = build.rank(call.input(0))
    perm = call.node.get_ints("perm", tuple(reversed(range(rank))))
    return (build.transpose(call.gradient, *sorted(range(rank), key=lambda axis: perm[axis])),)


def concat(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    values = [call.input(i) for i in range(len(call.node.inputs))]
    axis = call.axis(build.rank(call.output))
    if len(values) == 1:
        return (call.gradient,)
    if build.opset >= 13:
        sizes = [build.size(value, axis) for value in values]
        lengths = [build.shape(value)[axis] for value in values]
        numbers = [size for size in lengths if isinstance(size, int)]
        split = build.ints(numbers) if len(numbers) == len(lengths) else build("Concat", *sizes, axis=0)
        return build.split(call.gradient, split, len(values), axis)
    start = build.ints([0])
    gradients: list[Value | None] = []
    for value in values:
        end = build("Add", start, build.size(value, axis))
        gradients.append(build("Slice", call.gradient, start, end, build.ints([axis])))
        start = end
    return gradients


def split(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    axis = call.axis(build.rank(call.input(0)))
    parts = [g if g is not None else build.zeros(v) for g, v in zip(call.gradients, call.node.outputs)]
    return (build("Concat", *parts, axis=axis),)


def slice_(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """Zeros where nothing was taken. A negative step is undone first; larger steps have zeros between."""
    x, g = call.input(0), call.gradient
    rank = build.rank(x)
    starts = build.numbers(call.input(1))
    count = len(starts) if starts is not None else build.shape(call.input(1))[0]
    if not isinstance(count, int):
        raise CannotDifferentiate("takes an unknown number of axes")
    axes = [axis % rank for axis in call.ints(build, "axes", 3) or range(count)]
    steps = call.ints(build, "steps", 4) or (1,) * count
    ends = build.numbers(call.input(2))
    begin, after = [0] * rank, [0] * rank
    open_axes = []
    for place, (axis, step) in enumerate(zip(axes, steps)):
        size = build.shape(x)[axis]
        if starts is None or ends is None or not isinstance(size, int):
            if starts is not None and ends is not None and (starts[place], step) == (0, 1) and _whole(ends[place]):
                continue
            open_axes.append((place, axis, step))
            continue
        taken = range(size)[starts[place] : _end(ends[place], step) : step]
        if not taken:
            return (build.zeros(x),)
        if abs(step) > 1 and axis >= rank - 2 and size <= _DENSE:
            g = _placed(build, g, axis - rank, taken, size, x)
            continue
        g = _spread(build, g, axis, step, x)
        first, last = min(taken[0], taken[-1]), max(taken[0], taken[-1])
        begin[axis], after[axis] = first, size - 1 - last
    g = build.pad(g, begin, after, x)
    for place, axis, step in open_axes:
        g = _open(call, build, g, place, axis, step)
    return (g,)


def _placed(build: Builder, g: Value, axis: int, taken: range, size: int, x: Value) -> Value:
    """Elements along one of the last two axes put where they came from, by a product with a matrix of zeros and ones:
    zeros between elements of a row are slow to write in any other way."""
    matrix = np.zeros((len(taken), size), build.dtype(x).numpy)
    matrix[np.arange(len(taken)), list(taken)] = 1
    places = build.graph.constant(matrix if axis == -1 else matrix.T)
    return build("MatMul", g, places) if axis == -1 else build("MatMul", places, g)


def _whole(end: int) -> bool:
    return end >= 1 << 31


def _end(end: int, step: int) -> int | None:
    """ONNX writes "to the very first element" as a number below every size."""
    return None if step < 0 and end < -(1 << 30) else end


def _spread(build: Builder, g: Value, axis: int, step: int, x: Value) -> Value:
    """The elements along `axis` in rising order, |step| apart."""
    if step < 0:
        g = build.slice(g, [axis], [-1], [-(1 << 62)], [-1])
    if abs(step) == 1:
        return g
    rank = build.rank(x)
    g = build.unsqueeze(g, [axis + 1])
    begin, after = [0] * (rank + 1), [0] * (rank + 1)
    after[axis + 1] = abs(step) - 1
    g = build.pad(g, begin, after, x)
    # 0 keeps a size; the pair of axes becomes one, less the zeros behind its last element.
    g = build("Reshape", g, build.ints([*[0] * axis, -1]) if axis == rank - 1 else _merged(build, g, axis, rank))
    return build.slice(g, [axis], [0], [1 - abs(step)])


def _merged(build: Builder, g: Value, axis: int, rank: int) -> Value:
    sizes = build("Shape", g)
    behind = build("Gather", sizes, build.ints(list(range(axis + 2, rank + 1))))
    return build("Concat", build.ints([*[0] * axis, -1]), behind, axis=0)


def _open(call: GradientCall, build: Builder, g: Value, place: int, axis: int, step: int) -> Value:
    """One axis whose size or bounds are known only as the model runs: what the same Slice takes of its positions."""
    x = call.input(0)
    g = _spread(build, g, axis, step, x)
    size = build.size(x, axis)
    positions = build.positions(size)
    start, end = (build.cast(build("Gather", call.input(i), build.ints([place])), DType.INT64) for i in (1, 2))
    taken = build("Slice", positions, start, end, build.ints([0]), build.ints([step]))
    first = build("ReduceMin", taken, keepdims=1)
    last = build("ReduceMax", taken, keepdims=1)
    after = build("Sub", build("Sub", size, build.ints([1])), last)
    rank = build.rank(x)
    before_axes, behind_axes = build.ints([0] * axis), build.ints([0] * (rank - 1 - axis))
    pads = build("Concat", before_axes, first, behind_axes, before_axes, after, behind_axes, axis=0)
    return build("Pad", g, pads, build.scalar(0.0, x))


def pad(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    x, g = call.input(0), call.gradient
    rank = build.rank(x)
    mode = call.node.get_string("mode", "constant")
    pads = build.numbers(call.node.input(1))
    axes_input = call.node.input(3)
    axes = [axis % rank for axis in build.numbers(axes_input) or ()] if axes_input is not None else list(range(rank))
    if pads is None or len(pads) != 2 * len(axes):
        raise CannotDifferentiate("has pads that are computed as the model runs")
    pairs = {axis: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes) if pads[i] or pads[i + len(axes)]}
    if mode != "constant":
        return (_mirrored(call, build, pairs, mode),)
    return (_cropped(build, g, pairs, rank, x),)


def _cropped(build: Builder, g: Value, pairs: dict[int, tuple[int, int]], rank: int, like: Value) -> Value:
    """What was added is cut off, what was cut off is zero."""
    cut = {axis: (max(a, 0), max(b, 0)) for axis, (a, b) in pairs.items() if a > 0 or b > 0}
    if cut:
        starts, ends = [a for a, _ in cut.values()], [-b if b else (1 << 62) for _, b in cut.values()]
        g = build.slice(g, list(cut), starts, ends)
    begin = [max(-pairs.get(axis, (0, 0))[0], 0) for axis in range(rank)]
    end = [max(-pairs.get(axis, (0, 0))[1], 0) for axis in range(rank)]
    return build.pad(g, begin, end, like)


def _mirrored(call: GradientCall, build: Builder, pairs: dict[int, tuple[int, int]], mode: str) -> Value:
    """Each position of the border is a copy of one inside: its gradient goes there."""
    x, g = call.input(0), call.gradient
    rank = build.rank(x)
    for axis, (before, after) in reversed(pairs.items()):
        size = build.shape(x)[axis]
        if not isinstance(size, int):
            raise CannotDifferentiate(f"continues an axis of open size ({mode})")
        if min(before, after) < 0:
            raise CannotDifferentiate(f"cuts off and continues ({mode})")
        sources = [_source(i - before, size, mode) for i in range(before + size + after)]
        g = build.scatter_along(g, axis, build.ints(sources), size, rank, x)
    return g


def _source(position: int, size: int, mode: str) -> int:
    if mode == "edge":
        return min(max(position, 0), size - 1)
    if mode == "wrap":
        return position % size
    period = max(2 * (size - 1), 1)
    position %= period
    return min(position, period - position) if size > 1 else 0


def depth_to_space(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    block = call.node.get_int("blocksize")
    if call.node.get_string("mode", "DCR") == "DCR":
        return (build("SpaceToDepth", call.gradient, blocksize=block),)
    x = call.input(0)
    channels = build.shape(x)[1]
    if not isinstance(channels, int):
        raise CannotDifferentiate("has an open number of channels")
    size = build("Concat", build.size(x, 0), build.ints([channels // block**2]), build.size(x, 2), axis=0)
    size = build("Concat", size, build.ints([block]), build.size(x, 3), build.ints([block]), axis=0)
    parts = build.transpose(build.reshape(call.gradient, size), 0, 1, 3, 5, 2, 4)
    return (build.reshape_as(parts, x),)


def space_to_depth(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    return (build("DepthToSpace", call.gradient, blocksize=call.node.get_int("blocksize"), mode="DCR"),)


def triangle(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    return (build("Trilu", call.gradient, call.node.input(1), upper=call.node.get_int("upper", 1)),)


def dropout(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    training = call.node.input(2)
    if training is not None and (training.constant is None or bool(training.constant.numpy().any())):
        raise CannotDifferentiate("may be in training mode")
    return (call.gradient,)


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), view),
    "Cast": cast,
    "CastLike": cast,
    "Expand": expand,
    "Tile": tile,
    "Transpose": transpose,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Pad": pad,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Trilu": triangle,
    "Dropout": dropout,
}
