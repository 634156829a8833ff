"""Operators that rearrange elements without computing: the shape follows from shapes, and the elements of small tensors
are rearranged alike, which is what carries shape arithmetic through Shape -> Gather -> Concat -> Reshape."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from ..symbols import Size, Sym, divide, floor_divide, maximum, minimum, product
from ..types import DType
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
        known = length is not None and len(length) == 1 and isinstance(length[0], int)
        return [Fact(x.dtype, call.unknown(length[0]) if known and length else None)]  # type: ignore[arg-type]
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
    given = [s for s in shape if s is not None]
    if len(given) == len(shape):
        total = None if source is None else product(source)
        if isinstance(total, int) and all(isinstance(s, int) for s in given) and product(given) != total:
            raise call.error(f"{total} elements cannot be reshaped to {tuple(given)}")
        unknown = [i for i, s in enumerate(given) if isinstance(s, Sym) and not s.named]
        if source is None or len(unknown) != 1:
            return tuple(given)
        # One size of which nothing is known follows from the others.
        open_axis: int | None = unknown[0]
        if given[unknown[0]] in source:
            return tuple(given)
    else:
        open_axis = None
    if source is None:
        return tuple(call.fresh() if s is None else s for s in shape)
    hole = shape.index(None) if open_axis is None else open_axis
    rest = [s for i, s in enumerate(shape) if i != hole and s is not None]
    common = Counter(source) & Counter(rest)
    above, below = product((Counter(source) - common).elements()), product((Counter(rest) - common).elements())
    found = divide(above, below)
    if found is None and isinstance(above, int) and isinstance(below, int) and below:
        raise call.error(f"{above} elements do not divide by {below}")
    if found is None and isinstance(below, int) and below > 0:
        found = floor_divide(above, below)
    fallback = shape[hole]
    return (*rest[:hole], found if found is not None else fallback or call.fresh(), *rest[hole:])


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
        if call.given("axes", 1) or not all(isinstance(s, int) for s in shape):
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
    made = tuple(1 if i in new else next(rest) for i in range(rank))
    return [Fact(x.dtype, made, _view(x, made))]


def _view(x: Fact, shape: Sizes) -> Elements | None:
    sizes = [s for s in shape if isinstance(s, int)]
    return None if x.elements is None or len(sizes) != len(shape) else x.elements.reshape(sizes)


def concat(call: Call) -> list[Fact]:
    shapes = [call.shape(i) for i in range(len(call.facts))]
    rank = len(shapes[0])
    axis = call.axis(1, rank)
    made = list(shapes[0])
    for shape in shapes[1:]:
        if len(shape) != rank:
            raise call.error(f"the inputs have ranks {rank} and {len(shape)}")
        for i, size in enumerate(shape):
            if i == axis:
                made[i] = made[i] + size
            elif made[i] != size:
                if isinstance(size, int) and isinstance(made[i], int):
                    raise call.error(f"the inputs have sizes {made[i]} and {size} on axis {i}")
                if isinstance(size, int) or (isinstance(made[i], Sym) and not made[i].named):  # type: ignore[union-attr]
                    made[i] = size
    dtype = call.fact(0).dtype
    return [Fact(dtype, tuple(made), _concatenated(call, tuple(made), axis))]


def _concatenated(call: Call, shape: Sizes, axis: int) -> Elements | None:
    facts = [f for f in call.facts if f is not None]
    total = product(shape)
    if not isinstance(total, int) or total > LIMIT or all(f.elements is None for f in facts):
        return None
    parts = [call.items(f) for f in facts]
    known = [p for p in parts if p is not None]
    return np.concatenate(known, axis=axis) if len(known) == len(parts) else None


def split(call: Call) -> list[Fact]:
    x, shape = call.fact(0), call.shape(0)
    axis = call.axis(0, len(shape))
    size, count = shape[axis], len(call.node.outputs)
    chunk: Size
    sizes: tuple[Size, ...] | None = call.ints("split", 1)
    if sizes is None and not call.given("split", 1):
        if isinstance(size, int):
            chunk = -(-size // count)
            sizes = tuple(max(0, min(chunk, size - chunk * i)) for i in range(count))
        else:
            chunk = floor_divide(size + (count - 1 if call.opset >= 18 else 0), count)
            sizes = (*(chunk,) * (count - 1), size - chunk * (count - 1)) if call.opset >= 18 else (chunk,) * count
    if sizes is None or len(sizes) != count:
        sizes = call.unknown(count)
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
    made: list[Size] = list(shape)
    if axes is None and not call.given("axes", 3):
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
        made[axis] = _extent(call, shape[axis], start, end, step)
        if data is not None:
            numbers = isinstance(start, int) and isinstance(end, int) and isinstance(step, int) and step
            if not numbers:
                data = None
                continue
            size = data.shape[axis]
            bounds = slice(*_clamp(start, end, step, size))  # type: ignore[arg-type]
            data = data[(slice(None),) * axis + (bounds,)]
    return [Fact(x.dtype, tuple(made), data)]


def _clamp(start: int, end: int, step: int, size: int) -> tuple[int, int | None, int]:
    """Start, end and step as a Python slice that means what ONNX means."""
    if step > 0:
        return slice(start, end).indices(size)[0], slice(start, end).indices(size)[1], step
    first, last, _ = slice(start, end, step).indices(size)
    return first, None if last < 0 else last, step


def _extent(call: Call, size: Size, start: Size | None, end: Size | None, step: Size | None) -> Size:
    """How many elements a slice keeps of an axis of `size`."""
    if start is None or end is None or not isinstance(step, int) or step == 0:
        return call.fresh()
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        return len(range(*slice(start, end, step).indices(size))) if step > 0 else _backwards(size, start, end, step)
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


def _backwards(size: int, start: int, end: int, step: int) -> int:
    first, last, _ = slice(start, end if end >= -size else None, step).indices(size)
    return len(range(first, last, step))


def gather(call: Call) -> list[Fact]:
    x, shape, indices = call.fact(0), call.shape(0), call.shape(1)
    axis = call.axis(0, len(shape))
    made = shape[:axis] + indices + shape[axis + 1 :]
    data, at = x.elements, call.data(1)
    if data is None or at is None or not all(isinstance(i, int) for i in at.reshape(-1)):
        return [Fact(x.dtype, made)]
    index = at.astype(np.int64)
    if index.size and not (-data.shape[axis] <= index.min() and index.max() < data.shape[axis]):
        raise call.error(f"index out of range for axis {axis} of size {data.shape[axis]}")
    taken = np.empty(data.shape[:axis] + index.shape + data.shape[axis + 1 :], dtype=object)
    taken[...] = np.take(data, index, axis=axis)
    return [Fact(x.dtype, made, taken)]


def gather_elements(call: Call) -> list[Fact]:
    return [Fact(call.fact(0).dtype, call.shape(1))]


def gather_nd(call: Call) -> list[Fact]:
    shape, indices = call.shape(0), call.shape(1)
    depth, batch = indices[-1], call.node.get_int("batch_dims")
    if not isinstance(depth, int):
        return [Fact(call.fact(0).dtype)]
    return [Fact(call.fact(0).dtype, indices[:-1] + shape[batch + depth :])]


def expand(call: Call) -> list[Fact]:
    x, shape = call.fact(0), call.shape(0)
    wanted = call.ints("shape", 1)
    if wanted is None:
        length = call.fact(1).shape
        if length and isinstance(length[0], int):
            return [Fact(x.dtype, call.unknown(max(length[0], len(shape))))]
        return [Fact(x.dtype)]
    target = tuple(call.fresh() if isinstance(s, Sym) and not s.is_size else s for s in wanted)
    made = call.broadcast([shape, target])
    data = None
    if x.elements is not None and all(isinstance(s, int) for s in made) and math.prod(made) <= LIMIT:  # type: ignore
        data = np.broadcast_to(x.elements, made)  # type: ignore[arg-type]
    return [Fact(x.dtype, made, data)]


def grid_sample(call: Call) -> list[Fact]:
    return [Fact(call.fact(0).dtype, call.shape(0)[:2] + call.shape(1)[1:-1])]


def tile(call: Call) -> list[Fact]:
    x, shape = call.fact(0), call.shape(0)
    if call.has(2):
        return [Fact(x.dtype, call.unknown(len(shape)))]
    repeats = call.ints("repeats", 1)
    if repeats is None:
        return [Fact(x.dtype, call.unknown(len(shape)))]
    made = tuple(call.fresh() if isinstance(r, Sym) and not r.is_size else s * r for s, r in zip(shape, repeats))
    data = None
    if x.elements is not None and all(isinstance(s, int) for s in made) and math.prod(made) <= LIMIT:  # type: ignore
        data = np.tile(x.elements, repeats)  # type: ignore[arg-type]
    return [Fact(x.dtype, made, data)]


def pad(call: Call) -> list[Fact]:
    x, shape = call.fact(0), call.shape(0)
    pads = call.ints("paddings", 1) if "paddings" in call.node.attributes else call.ints("pads", 1)
    if pads is None or (call.has(3) and call.numbers("", 3) is None):
        return [Fact(x.dtype, call.unknown(len(shape)))]
    axes = call.numbers("", 3) if call.has(3) else tuple(range(len(shape)))
    made = list(shape)
    if axes is None or len(pads) != 2 * len(axes):
        raise call.error(f"{len(pads)} pads for rank {len(shape)}")
    for i, axis in enumerate(axes):
        before, after = pads[i], pads[i + len(axes)]
        bad = any(isinstance(p, Sym) and not p.is_size for p in (before, after))
        made[call.normalise(axis, len(shape))] = call.fresh() if bad else shape[axis] + before + after
    return [Fact(x.dtype, tuple(made))]


def depth_to_space(call: Call) -> list[Fact]:
    n, c, h, w = call.shape(0)
    block = call.node.get_int("blocksize")
    return [Fact(call.fact(0).dtype, (n, floor_divide(c, block * block), h * block, w * block))]


def space_to_depth(call: Call) -> list[Fact]:
    n, c, h, w = call.shape(0)
    block = call.node.get_int("blocksize")
    return [Fact(call.fact(0).dtype, (n, c * block * block, floor_divide(h, block), floor_divide(w, block)))]


def resize(call: Call) -> list[Fact]:
    """Resize and Upsample: `floor(size * scale)`, or the sizes given."""
    node, x, shape = call.node, call.fact(0), call.shape(0)
    rank = len(shape)
    axes = tuple(call.normalise(a, rank) for a in node.get_ints("axes", range(rank)))
    made: list[Size] = list(shape)
    sizes = call.ints("", 3) if call.has(3) else None
    policy = node.get_string("keep_aspect_ratio_policy", "stretch")
    if call.has(3) and policy != "stretch":
        return [Fact(x.dtype, _kept_aspect(call, shape, axes, sizes, policy))]
    if call.has(3) and call.fact(3).shape != (0,):
        for i, axis in enumerate(axes):
            size = sizes[i] if sizes else None
            made[axis] = call.fresh() if size is None or (isinstance(size, Sym) and not size.is_size) else size
        return [Fact(x.dtype, tuple(made))]
    where = 1 if call.opset < 11 else 2
    scales: list[float] | None = None
    if "scales" in node.attributes:
        scales = list(node.attributes["scales"].value)  # type: ignore[arg-type]
    elif call.data(where) is not None:
        scales = call.data(where).reshape(-1).tolist()  # type: ignore[union-attr]
    for i, axis in enumerate(axes):
        made[axis] = _scaled(call, shape[axis], scales[i] if scales and len(scales) == len(axes) else None)
    return [Fact(x.dtype, tuple(made))]


def _kept_aspect(call: Call, shape: Sizes, axes: tuple[int, ...], sizes: Sizes | None, policy: str) -> Sizes:
    """One scale for all axes, the smallest or the largest asked for; sizes rounded, halves up."""
    made = list(shape)
    pairs = [(shape[axis], size) for axis, size in zip(axes, sizes or ())]
    numbers = [(old, new) for old, new in pairs if isinstance(old, int) and isinstance(new, int) and old]
    if sizes is None or len(numbers) != len(axes):
        return tuple(call.fresh() if i in axes else s for i, s in enumerate(shape))
    scale = (min if policy == "not_larger" else max)(new / old for old, new in numbers)
    for axis, (old, _) in zip(axes, numbers):
        made[axis] = math.floor(scale * old + 0.5)
    return tuple(made)


def _scaled(call: Call, size: Size, scale: float | Sym | None) -> Size:
    if scale is None or isinstance(scale, Sym):
        return call.fresh()
    if scale == 1:
        return size
    if isinstance(size, int):
        return math.floor(np.float32(size) * np.float32(scale))
    above, below = float(np.float32(scale)).as_integer_ratio()
    return floor_divide(size * above, below) if below <= 64 else call.fresh()


RULES: dict[str, Rule] = {
    "Shape": shape_of,
    "Size": size_of,
    "Reshape": reshape,
    "Flatten": flatten,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "GridSample": grid_sample,
    "Expand": expand,
    "Tile": tile,
    "Pad": pad,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Resize": resize,
    "Upsample": resize,
}
