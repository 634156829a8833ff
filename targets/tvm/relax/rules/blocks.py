"""Codes whose scales are one for each block of neighbours along an axis, and squares of pixels as channels."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from .call import LoweringCall


def lower_space_to_depth(call: LoweringCall) -> relax.Expr | None:
    if call.node.get_string("mode", "DCR") == "DCR":
        return None
    n, c, h, w = call.sizes(0)
    b = call.node.get_int("blocksize")
    x = call.reshape(call.expr(0), (n, c, h // b, b, w // b, b))
    moved = call.emit(relax.op.permute_dims(x, [0, 1, 3, 5, 2, 4]))
    return call.reshape(moved, (n, c * b * b, h // b, w // b))


def lower_dequantize(call: LoweringCall) -> relax.Expr | None:
    """(x - zero point) * scale, both spread out over their blocks."""
    block = call.node.get_int("block_size")
    if not block:
        return None
    sizes = call.sizes(0)
    axis = call.node.get_int("axis", 1) % len(sizes)
    scale = _spread(call, call.expr(1), axis, block, sizes)
    kind = str(scale.ty.dtype.dtype)
    x = call.cast(call.cast(call.expr(0), "float32"), kind)
    if call.has(2):
        zero = _spread(call, call.expr(2), axis, block, sizes)
        x = call.emit(relax.op.subtract(x, call.cast(zero, kind)))
    return call.cast(call.emit(relax.op.multiply(x, scale)), call.dtype())


def lower_quantize(call: LoweringCall) -> relax.Expr | None:
    """round(x / scale) + zero point, kept within the codes, the scale and zero point spread out over their blocks."""
    block = call.node.get_int("block_size")
    dtype = call.node.outputs[0].dtype
    if not block or dtype is None or not dtype.is_integer:
        return None
    sizes = call.sizes(0)
    axis = call.node.get_int("axis", 1) % len(sizes)
    scale = call.cast(_spread(call, call.expr(1), axis, block, sizes), "float32")
    y = call.emit(relax.op.round(call.emit(relax.op.divide(call.cast(call.expr(0), "float32"), scale))))
    if call.has(2):
        y = call.emit(relax.op.add(y, call.cast(_spread(call, call.expr(2), axis, block, sizes), "float32")))
    bounds = np.iinfo(dtype.numpy.name)
    low, high = relax.const(float(bounds.min), "float32"), relax.const(float(bounds.max), "float32")
    return call.cast(call.emit(relax.op.minimum(call.emit(relax.op.maximum(y, low)), high)), call.dtype())


def _spread(call: LoweringCall, x: relax.Expr, axis: int, block: int, sizes: tuple[int, ...]) -> Any:
    """Each element so many times along the axis, as far as that goes."""
    wide = call.emit(relax.op.repeat(x, block, axis))
    return call.emit(relax.op.strided_slice(wide, [axis], [0], [sizes[axis]]))
