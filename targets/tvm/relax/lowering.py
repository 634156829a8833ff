"""Operators that are lowered to kernels of our own; each rule returns nothing where it does not fit the node.

What has no rule here, or does not fit, goes through TVM's own converter.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tvm import relax

from ....ir.node import Node, Value
from ....ir.ops import clamp_bounds, cut
from ..compute import layout
from ..compute import pool as pools
from .converter import convert
from .expressions import FUSABLE, OPAQUE, Blocked, constant
from .importer import Importer
from .integer_layers import lower_crop
from .rules.call import LoweringCall
from .rules.extremes import folded
from .weights import spread
from .windows import image_size, window

_ENDLESS = 2**31 - 1
"""The end of a slice from which on it means the end of the axis."""
_PARTS = 4
"""Images that may be read apart where they are joined: each is another kernel."""


def lower_max_pool(importer: Importer, node: Node) -> relax.Expr | Blocked | None:
    size = node.get_ints("kernel_shape")
    x = node.inputs[0]
    image = importer.packed(x) if x is not None and len(node.outputs) == 1 else None
    place = window(node, x, size) if x is not None else None
    output = image_size(node.outputs[0])
    if image is None or place is None or output is None or place.dilations != (1, 1):
        return None
    parts = importer.parts.get(node.inputs[0]) if node.inputs[0] is not None else None
    pooled = [
        Blocked(
            importer.te(pools.max_pool, one.expr, pattern=FUSABLE, window=place, output=output),
            one.channels,
            *output,
            one.block,
        )
        for one in parts or [image]
    ]
    return pooled[0] if parts is None else _joined(importer, node, pooled)


def lower_average_pool(importer: Importer, node: Node) -> relax.Expr | Blocked | None:
    size = node.get_ints("kernel_shape")
    x = node.inputs[0]
    image = importer.packed(x) if x is not None and not node.get_int("ceil_mode") else None
    place = window(node, x, size) if x is not None else None
    output = image_size(node.outputs[0])
    if image is None or place is None or output is None or place.dilations != (1, 1):
        return None
    total = importer.te(pools.sum_pool, image.expr, pattern=FUSABLE, window=place, output=output)
    shares = pools.shares(place, output, bool(node.get_int("count_include_pad")))
    means = importer.emit(relax.op.multiply(total, constant(shares.astype(image.expr.ty.dtype.dtype))))
    return Blocked(means, image.channels, *output, image.block)


def lower_global_average_pool(importer: Importer, node: Node) -> relax.Expr | Blocked | None:
    x = node.inputs[0]
    image = None if x is None else importer.blocked(x) or importer.packed(x)
    if image is None:
        return None
    mean = importer.emit(relax.op.mean(image.expr, axis=2, keepdims=True))
    return Blocked(mean, image.channels, 1, 1, image.block)


def lower_reduce_mean(importer: Importer, node: Node) -> relax.Expr | Blocked | None:
    """ReduceMean over height and width of an image that is already in blocks."""
    x, axes_input = node.inputs[0], node.input(1)
    image = importer.blocked(x) if x is not None else None
    axes = node.get_ints("axes")
    if axes_input is not None and axes_input.constant is not None:
        axes = tuple(int(axis) for axis in np.ravel(axes_input.constant.numpy()))
    if image is None or not image.whole or {axis % 4 for axis in axes} != {2, 3}:
        return None
    mean = importer.emit(relax.op.mean(image.expr, axis=2, keepdims=True))
    if node.get_int("keepdims", 1):
        return Blocked(mean, image.channels, 1, 1, image.block)
    return importer.emit(relax.op.reshape(mean, (mean.ty.shape[0], image.channels)))


def lower_concat(importer: Importer, node: Node) -> relax.Expr | Blocked | None:
    """Concatenation, of channels in whole blocks where every part has them so.

    It is a kernel by itself: fused to what follows, each element would ask again which part it comes from.
    """
    parts = [importer.blocked(value) for value in node.inputs if value is not None]
    whole = [part for part in parts if part is not None and part.whole]
    first_shape = node.outputs[0].shape
    if first_shape is None:
        return None
    axis = node.get_int("axis") % len(first_shape)
    if axis != 1 or len(whole) != len(node.inputs):
        plain = [importer.flat(value) for value in node.inputs if value is not None]
        if any(isinstance(one.ty, relax.ShapeType) or not hasattr(one.ty, "dtype") for one in plain):
            return None
        return importer.te(layout.concatenate, *plain, pattern=OPAQUE, axis=axis)
    return _joined(importer, node, whole)


def _joined(importer: Importer, node: Node, parts: list[Blocked]) -> Blocked:
    """Images joined along their channels, for those that do not read them apart."""
    joined = importer.te(layout.concatenate, *(part.expr for part in parts), pattern=OPAQUE, axis=1)
    if len(parts) <= _PARTS and not importer.quantized.intersection(
        value for value in node.inputs if value is not None
    ):
        importer.parts[node.outputs[0]] = parts
    first = parts[0]
    return Blocked(joined, sum(part.channels for part in parts), first.height, first.width, first.block)


def lower_slice(importer: Importer, node: Node) -> relax.Expr | Blocked | None:
    """A slice between constants, its ends kept within the sizes: "to the end" is written as a number beyond them."""
    x, operands = node.inputs[0], [node.input(i) for i in (1, 2, 3, 4)]
    if x is None or x.shape is None or any(v is not None and v.constant is None for v in operands):
        return None
    starts, ends, axes, steps = (
        None if v is None or v.constant is None else [int(n) for n in v.constant.numpy()] for v in operands
    )
    if starts is None or ends is None:
        return None
    axes = [axis % len(x.shape) for axis in axes] if axes is not None else list(range(len(starts)))
    steps = steps if steps is not None else [1] * len(starts)
    # All of an axis whose size is open is no more to cut: TVM would write its size in two ways.
    cuts = [
        one
        for one in zip(starts, ends, axes, steps, strict=True)
        if isinstance(x.shape[one[2]], int) or one[0] != 0 or one[1] < _ENDLESS or one[3] != 1
    ]
    if not cuts:
        return importer.flat(x)
    starts, ends, axes, steps = ([one[k] for one in cuts] for k in range(4))
    sizes = [x.shape[axis] for axis in axes]
    if not all(isinstance(size, int) for size in sizes):
        return None
    places = [(cut(s, e, t, int(n or 0)), int(n or 0)) for s, e, t, n in zip(starts, ends, steps, sizes, strict=True)]
    firsts = [one.start for one, _ in places]
    lasts = [-size - 1 if one.stop is None else one.stop for one, size in places]  # -1 would be the last element
    image = importer.blocked(x)
    if (
        image is not None
        and min(steps) > 0
        and (cropped := lower_crop(importer, image, firsts, lasts, axes, steps)) is not None
    ):
        return cropped
    return importer.emit(relax.op.strided_slice(importer.flat(x), axes, firsts, lasts, steps))


def lower_elementwise(importer: Importer, node: Node) -> relax.Expr | Blocked | None:
    """What treats every element alike stays in blocks where an input is in them already."""
    images = [importer.blocked(v) if v is not None and v not in importer.quantized else None for v in node.inputs]
    first = next((one for one in images if one is not None), None)
    if first is None:
        return None
    operands: list[Any] = []
    for value in node.inputs:
        operand = None if value is None else _operand(importer, value, first)
        if value is not None and operand is None:
            return None
        operands.append(operand)
    lowered: Any
    if node.op == "Clip":
        lowered = _clip(importer, node, operands[0])
    elif node.op in ("Max", "Min"):
        lowered = folded(LoweringCall(importer, node), operands)
    else:
        lowered = convert(importer, node, operands)
    if lowered is None or isinstance(lowered, list):
        return None
    return Blocked(lowered, first.channels, first.height, first.width, first.block)


def lower_clip(importer: Importer, node: Node) -> relax.Expr | Blocked | None:
    x = node.inputs[0]
    if x is None:
        return None
    if importer.blocked(x) is not None:
        return lower_elementwise(importer, node)
    return _clip(importer, node, importer.plain(x))


def _clip(importer: Importer, node: Node, x: relax.Expr) -> relax.Expr | None:
    """Clip between constants, where NaN is no bound."""
    bounds = clamp_bounds(node)
    if bounds is None:
        return None
    low, high = bounds
    dtype = x.ty.dtype.dtype
    low, high = (-math.inf if np.isnan(low) else low), (math.inf if np.isnan(high) else high)
    if (low, high) == (0.0, math.inf):
        return importer.emit(relax.op.nn.relu(x))
    if low > -math.inf:
        x = importer.emit(relax.op.maximum(x, relax.const(low, dtype)))
    if high < math.inf:
        x = importer.emit(relax.op.minimum(x, relax.const(high, dtype)))
    return x


def _operand(importer: Importer, value: Value, like: Blocked) -> relax.Expr | None:
    """A value in the form that broadcasts against `like`: an image of its size, or one number a channel or in all."""
    if value.constant is not None:
        array = value.constant.numpy()
        if array.size == 1:
            return constant(array.reshape(()))
        if array.ndim >= 3 and array.size == array.shape[-3] == like.channels:
            return spread(array.ravel(), like.channels, like.block)
        return None
    image = importer.blocked(value)
    if image is None and value.shape is not None and len(value.shape) == 4 and like.whole:
        image = importer.packed(value)
    if image is None or (image.channels, image.block) != (like.channels, like.block):
        return None
    if (image.height, image.width) not in ((like.height, like.width), (1, 1)):
        return None
    return image.expr
