"""Operators that give the same elements another shape, and those that turn shapes into elements.

The elements of small tensors are carried along, which is what takes shape arithmetic through
Shape -> Gather -> Concat -> Reshape.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from ...types import DType
from ..symbols import Size, Sym, divide, floor_divide, product
from .call import LIMIT, Call, Elements, Fact, Rule, Sizes


def shape_of(call: Call) -> list[Fact]:
    shape = call.shape(0)
    start, end = call.node.get_int("start", 0), call.node.get_int("end", len(shape))
    part = shape[slice(start, end)]
    return [Fact(DType.INT64, (len(part),), elements(part))]


def elements(sizes: Sizes) -> Elements:
    data = np.empty(len(sizes), dtype=object)
    data[:] = sizes
    return data


def size_of(call: Call) -> list[Fact]:
    return [Fact(DType.INT64, (), elements((product(call.shape(0)),)).reshape(()))]


def reshape(call: Call) -> list[Fact]:
    x = call.fact(0)
    if x.other is not None:
        return [Fact(x.dtype)]
    wanted = call.ints("shape", 1)
    if wanted is None:
        length = call.fact(1).shape
        fixed = length is not None and len(length) == 1 and isinstance(length[0], int)
        return [Fact(x.dtype, call.unknown(length[0]) if fixed and length else None)]  # type: ignore[arg-type]
    shape: list[Size | None] = []
    for axis, size in enumerate(wanted):
        if size == 0 and not call.node.get_int("allowzero"):
            copied = x.shape[axis] if x.shape is not None and axis < len(x.shape) else call.fresh()
            shape.append(copied)
        elif isinstance(size, Sym) and not size.is_size:
            shape.append(call.fresh())
        else:
            shape.append(None if size == -1 else size)
    return [Fact(x.dtype, _fill(call, x.shape, shape), _reshaped(x, shape))]


def _fill(call: Call, source: Sizes | None, shape: list[Size | None]) -> Sizes:
    """Compute the size left open by -1: what is left of the input once the sizes on both sides are cancelled."""
    sizes = [s for s in shape if s is not None]
    if len(sizes) == len(shape):
        total = None if source is None else product(source)
        if isinstance(total, int) and all(isinstance(s, int) for s in sizes) and product(sizes) != total:
            raise call.error(f"{total} elements cannot be reshaped to {tuple(sizes)}")
        unknown = [i for i, s in enumerate(sizes) if isinstance(s, Sym) and not s.named]
        if source is None or len(unknown) != 1:
            return tuple(sizes)
        # One size of which nothing is known follows from the others.
        open_axis: int | None = unknown[0]
        if sizes[unknown[0]] in source:
            return tuple(sizes)
    else:
        open_axis = None
    if source is None:
        return tuple(call.fresh() if s is None else s for s in shape)
    hole = shape.index(None) if open_axis is None else open_axis
    rest = [s for i, s in enumerate(shape) if i != hole and s is not None]
    common = Counter(source) & Counter(rest)
    above, below = product((Counter(source) - common).elements()), product((Counter(rest) - common).elements())
    quotient = divide(above, below)
    if quotient is None and isinstance(above, int) and isinstance(below, int) and below:
        raise call.error(f"{above} elements do not divide by {below}")
    if quotient is None and isinstance(below, int) and below > 0:
        quotient = floor_divide(above, below)
    fallback = shape[hole]
    return (*rest[:hole], quotient if quotient is not None else fallback or call.fresh(), *rest[hole:])


def _reshaped(x: Fact, shape: list[Size | None]) -> Elements | None:
    data = x.elements
    sizes = [-1 if s is None else s for s in shape if s is None or isinstance(s, int)]
    if data is None or len(sizes) != len(shape) or sizes.count(-1) > 1:
        return None
    try:
        return data.reshape(sizes)
    except ValueError:
        return None


def flatten(call: Call) -> list[Fact]:
    shape = call.shape(0)
    axis = call.node.get_int("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return [Fact(call.fact(0).dtype, (product(shape[:axis]), product(shape[axis:])))]


def transpose(call: Call) -> list[Fact]:
    x, shape = call.fact(0), call.shape(0)
    order = call.node.get_ints("perm", range(len(shape))[::-1])
    if sorted(order) != list(range(len(shape))):
        raise call.error(f"perm {order} is no permutation of the {len(shape)} axes")
    data = x.elements
    return [Fact(x.dtype, tuple(shape[i] for i in order), None if data is None else data.transpose(order))]


def squeeze(call: Call) -> list[Fact]:
    x, shape = call.fact(0), call.shape(0)
    axes = call.numbers("axes", 1)
    if axes is None:
        if call.states("axes", 1) or not all(isinstance(s, int) for s in shape):
            length = call.fact(1).shape if call.has(1) else None
            if length and isinstance(length[0], int):
                return [Fact(x.dtype, call.unknown(len(shape) - length[0]))]
            return [Fact(x.dtype)]
        axes = tuple(i for i, s in enumerate(shape) if s == 1)
    gone = {call.normalise(axis, len(shape)) for axis in axes}
    for axis in gone:
        size = shape[axis]
        if isinstance(size, int) and size != 1:
            raise call.error(f"axis {axis} of size {size} cannot be squeezed")
    kept = tuple(s for i, s in enumerate(shape) if i not in gone)
    return [Fact(x.dtype, kept, _view(x, kept))]


def unsqueeze(call: Call) -> list[Fact]:
    x, shape = call.fact(0), call.shape(0)
    axes = call.numbers("axes", 1)
    if axes is None:
        length = call.fact(1).shape
        if length and isinstance(length[0], int):
            return [Fact(x.dtype, call.unknown(len(shape) + length[0]))]
        return [Fact(x.dtype)]
    rank = len(shape) + len(axes)
    new = {call.normalise(axis, rank) for axis in axes}
    rest = iter(shape)
    sizes = tuple(1 if i in new else next(rest) for i in range(rank))
    return [Fact(x.dtype, sizes, _view(x, sizes))]


def _view(x: Fact, shape: Sizes) -> Elements | None:
    sizes = [s for s in shape if isinstance(s, int)]
    return None if x.elements is None or len(sizes) != len(shape) else x.elements.reshape(sizes)


def expand(call: Call) -> list[Fact]:
    x, shape = call.fact(0), call.shape(0)
    wanted = call.ints("shape", 1)
    if wanted is None:
        length = call.fact(1).shape
        if length and isinstance(length[0], int):
            return [Fact(x.dtype, call.unknown(max(length[0], len(shape))))]
        return [Fact(x.dtype)]
    target = tuple(call.fresh() if isinstance(s, Sym) and not s.is_size else s for s in wanted)
    sizes = call.broadcast([shape, target])
    data = None
    if x.elements is not None and all(isinstance(s, int) for s in sizes) and math.prod(sizes) <= LIMIT:  # type: ignore
        data = np.broadcast_to(x.elements, sizes)  # type: ignore[arg-type]
    return [Fact(x.dtype, sizes, data)]


def tile(call: Call) -> list[Fact]:
    x, shape = call.fact(0), call.shape(0)
    if call.has(2):
        return [Fact(x.dtype, call.unknown(len(shape)))]
    repeats = call.ints("repeats", 1)
    if repeats is None:
        return [Fact(x.dtype, call.unknown(len(shape)))]
    sizes = tuple(call.fresh() if isinstance(r, Sym) and not r.is_size else s * r for s, r in zip(shape, repeats))
    data = None
    if x.elements is not None and all(isinstance(s, int) for s in sizes) and math.prod(sizes) <= LIMIT:  # type: ignore
        data = np.tile(x.elements, repeats)  # type: ignore[arg-type]
    return [Fact(x.dtype, sizes, data)]


RULES: dict[str, Rule] = {
    "Shape": shape_of,
    "Size": size_of,
    "Reshape": reshape,
    "Flatten": flatten,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Expand": expand,
    "Tile": tile,
}
