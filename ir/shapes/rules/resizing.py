"""Operators that make images larger or smaller: padding, resampling, moving between channels and space."""

from __future__ import annotations

import math

import numpy as np

from ..symbols import Size, Sym, floor_divide
from .call import Call, Fact, Rule, Sizes


def pad(call: Call) -> list[Fact]:
    x, shape = call.fact(0), call.shape(0)
    pads = call.ints("paddings", 1) if "paddings" in call.node.attributes else call.ints("pads", 1)
    if pads is None or (call.has(3) and call.numbers("", 3) is None):
        return [Fact(x.dtype, call.unknown(len(shape)))]
    axes = call.numbers("", 3) if call.has(3) else tuple(range(len(shape)))
    padded = list(shape)
    if axes is None or len(pads) != 2 * len(axes):
        raise call.error(f"{len(pads)} pads for rank {len(shape)}")
    for i, axis in enumerate(axes):
        before, after = pads[i], pads[i + len(axes)]
        bad = any(isinstance(p, Sym) and not p.is_size for p in (before, after))
        padded[call.normalise(axis, len(shape))] = call.fresh() if bad else shape[axis] + before + after
    return [Fact(x.dtype, tuple(padded))]


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
    resized: list[Size] = list(shape)
    sizes = call.ints("", 3) if call.has(3) else None
    policy = node.get_string("keep_aspect_ratio_policy", "stretch")
    if call.has(3) and policy != "stretch":
        return [Fact(x.dtype, _kept_aspect(call, shape, axes, sizes, policy))]
    if call.has(3) and call.fact(3).shape != (0,):
        for i, axis in enumerate(axes):
            size = sizes[i] if sizes else None
            resized[axis] = call.fresh() if size is None or (isinstance(size, Sym) and not size.is_size) else size
        return [Fact(x.dtype, tuple(resized))]
    where = 1 if call.opset < 11 else 2
    scales: list[float] | None = None
    if "scales" in node.attributes:
        scales = list(node.attributes["scales"].value)  # type: ignore[arg-type]
    elif call.data(where) is not None:
        scales = call.data(where).reshape(-1).tolist()  # type: ignore[union-attr]
    for i, axis in enumerate(axes):
        resized[axis] = _scaled(call, shape[axis], scales[i] if scales and len(scales) == len(axes) else None)
    return [Fact(x.dtype, tuple(resized))]


def _kept_aspect(call: Call, shape: Sizes, axes: tuple[int, ...], sizes: Sizes | None, policy: str) -> Sizes:
    """One scale for all axes, the smallest or the largest asked for; sizes rounded, halves up."""
    resized = list(shape)
    pairs = [(shape[axis], size) for axis, size in zip(axes, sizes or ())]
    numbers = [(old, new) for old, new in pairs if isinstance(old, int) and isinstance(new, int) and old]
    # ONNX Runtime leaves axes that count from behind as they are, ONNX does not.
    if sizes is None or len(numbers) != len(axes) or min(call.node.get_ints("axes", (0,)), default=0) < 0:
        return tuple(call.fresh() if i in axes else s for i, s in enumerate(shape))
    scale = (min if policy == "not_larger" else max)(new / old for old, new in numbers)
    for axis, (old, _) in zip(axes, numbers):
        resized[axis] = math.floor(scale * old + 0.5)
    return tuple(resized)


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
    "Pad": pad,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Resize": resize,
    "Upsample": resize,
}
