"""Operators that take parts of tensors or put tensors together: Slice, Split, Gather, Concat."""

from __future__ import annotations

import math

import numpy as np

from ...ops import cut
from ..symbols import Size, Sym, floor_divide, maximum, minimum, product
from .call import LIMIT, Call, Elements, Fact, Rule, Sizes


def concat(call: Call) -> list[Fact]:
    shapes = [call.shape(i) for i in range(len(call.facts))]
    rank = len(shapes[0])
    axis = call.axis(1, rank)
    joined = list(shapes[0])
    for shape in shapes[1:]:
        if len(shape) != rank:
            raise call.error(f"the inputs have ranks {rank} and {len(shape)}")
        for i, size in enumerate(shape):
            if i == axis:
                joined[i] = joined[i] + size
            elif joined[i] != size:
                if isinstance(size, int) and isinstance(joined[i], int):
                    raise call.error(f"the inputs have sizes {joined[i]} and {size} on axis {i}")
                if isinstance(size, int) or (isinstance(joined[i], Sym) and not joined[i].named):  # type: ignore[union-attr]
                    joined[i] = size
    dtype = call.fact(0).dtype
    return [Fact(dtype, tuple(joined), _concatenated(call, tuple(joined), axis))]


def _concatenated(call: Call, shape: Sizes, axis: int) -> Elements | None:
    facts = [f for f in call.facts if f is not None]
    total = product(shape)
    if not isinstance(total, int) or total > LIMIT or all(f.elements is None for f in facts):
        return None
    parts = [call.items(f) for f in facts]
    arrays = [p for p in parts if p is not None]
    return np.concatenate(arrays, axis=axis) if len(arrays) == len(parts) else None


def split(call: Call) -> list[Fact]:
    x, shape = call.fact(0), call.shape(0)
    axis = call.axis(0, len(shape))
    size, count = shape[axis], len(call.node.outputs)
    chunk: Size
    sizes: tuple[Size, ...] | None = call.ints("split", 1)
    if sizes is None and not call.states("split", 1):
        if isinstance(size, int):
            chunk = -(-size // count)
            sizes = tuple(max(0, min(chunk, size - chunk * i)) for i in range(count))
        else:
            chunk = floor_divide(size + (count - 1 if call.opset >= 18 else 0), count)
            sizes = (*(chunk,) * (count - 1), size - chunk * (count - 1)) if call.opset >= 18 else (chunk,) * count
    if sizes is None or len(sizes) != count:
        sizes = call.unknown(count)
    parts = [part for part in sizes if isinstance(part, int)]
    whole = sum(parts) if len(parts) == count else size
    if any(part < 0 for part in parts) or (isinstance(size, int) and whole != size):
        raise call.error(f"parts of {list(sizes)} do not make up the {size} along axis {axis}")
    facts: list[Fact] = []
    start: int | None = 0
    for part in sizes:
        data = None
        if x.elements is not None and isinstance(part, int) and start is not None:
            data = np.take(x.elements, range(start, start + part), axis=axis)
        start = start + part if start is not None and isinstance(part, int) else None
        size = call.fresh() if isinstance(part, Sym) and not part.is_size else part
        facts.append(Fact(x.dtype, (*shape[:axis], size, *shape[axis + 1 :]), data))
    return facts


def slice_(call: Call) -> list[Fact]:
    x, shape = call.fact(0), call.shape(0)
    starts, ends = call.ints("starts", 1), call.ints("ends", 2)
    axes = call.numbers("axes", 3)
    steps: tuple[Size, ...] | None = call.ints("steps", 4)
    sizes: list[Size] = list(shape)
    if axes is None and not call.states("axes", 3):
        length = call.fact(1).shape if call.has(1) else None
        number = len(starts) if starts is not None else length[0] if length else None
        axes = tuple(range(number)) if isinstance(number, int) else None
    if axes is None:
        return [Fact(x.dtype, call.unknown(len(shape)))]
    if steps is None and not call.has(4):
        steps = (1,) * len(axes)
    axes = tuple(call.normalise(axis, len(shape)) for axis in axes)
    data = x.elements
    for i, axis in enumerate(axes):
        start, end, step = (None if s is None else s[i] for s in (starts, ends, steps))
        sizes[axis] = _extent(call, shape[axis], start, end, step)
        if data is not None:
            numbers = isinstance(start, int) and isinstance(end, int) and isinstance(step, int) and step
            if not numbers:
                data = None
                continue
            size = data.shape[axis]
            bounds = cut(start, end, step, size)  # type: ignore[arg-type]
            data = data[(slice(None),) * axis + (bounds,)]
    return [Fact(x.dtype, tuple(sizes), data)]


def _extent(call: Call, size: Size, start: Size | None, end: Size | None, step: Size | None) -> Size:
    """How many elements a slice keeps of an axis of `size`."""
    if start is None or end is None or not isinstance(step, int) or step == 0:
        return call.fresh()
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        return len(range(*cut(start, end, step, size).indices(size)))
    if any(isinstance(s, Sym) and not s.is_size for s in (start, end)):
        return call.fresh()
    if step == -1 and start == -1 and isinstance(end, int) and end < -(1 << 30):
        return size
    if step < 0:
        return call.fresh()
    low, high = _bound(start, size), _bound(end, size)
    length = high - low
    if isinstance(length, int):
        length = max(length, 0)
    elif not length.at_least(0):
        opposite = -length
        length = 0 if isinstance(opposite, Sym) and opposite.at_least(0) else length
    if step == 1:
        return length
    return floor_divide(length + (step - 1), step)


def _bound(bound: Size, size: Size) -> Size:
    """A slice bound within [0, size]: from the end where negative."""
    if isinstance(bound, int) and bound < 0:
        return maximum(size + bound, 0)
    if isinstance(bound, int) and bound >= 1 << 30:
        return size
    return minimum(bound, size)


def gather(call: Call) -> list[Fact]:
    x, shape, indices = call.fact(0), call.shape(0), call.shape(1)
    axis = call.axis(0, len(shape))
    gathered = shape[:axis] + indices + shape[axis + 1 :]
    data, at = x.elements, call.data(1)
    if data is None or at is None or not all(isinstance(i, int) for i in at.reshape(-1)):
        return [Fact(x.dtype, gathered)]
    index = at.astype(np.int64)
    if index.size and not (-data.shape[axis] <= index.min() and index.max() < data.shape[axis]):
        raise call.error(f"index out of range for axis {axis} of size {data.shape[axis]}")
    sizes = data.shape[:axis] + index.shape + data.shape[axis + 1 :]
    if math.prod(sizes) > LIMIT:
        return [Fact(x.dtype, gathered)]
    taken = np.empty(sizes, dtype=object)
    taken[...] = np.take(data, index, axis=axis)
    return [Fact(x.dtype, gathered, taken)]


def gather_elements(call: Call) -> list[Fact]:
    return [Fact(call.fact(0).dtype, call.shape(1))]


def gather_nd(call: Call) -> list[Fact]:
    shape, indices = call.shape(0), call.shape(1)
    depth, batch = indices[-1], call.node.get_int("batch_dims")
    if not isinstance(depth, int):
        return [Fact(call.fact(0).dtype)]
    return [Fact(call.fact(0).dtype, indices[:-1] + shape[batch + depth :])]


def grid_sample(call: Call) -> list[Fact]:
    return [Fact(call.fact(0).dtype, call.shape(0)[:2] + call.shape(1)[1:-1])]


RULES: dict[str, Rule] = {
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "GridSample": grid_sample,
}
