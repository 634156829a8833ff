"""ConvInteger: sums of products of codes from which their zero points are taken, in 32-bit integers."""

from __future__ import annotations

import math

from tvm import relax

from .call import LoweringCall

_CONVOLUTIONS = {1: "conv1d", 2: "conv2d", 3: "conv3d"}


def lower_conv_integer(call: LoweringCall) -> relax.Expr:
    sizes, kernel = call.sizes(0), call.sizes(1)
    x, w = _shifted(call, 0, 2, ()), _shifted(call, 1, 3, (1,) * (len(kernel) - 1))
    rank = len(sizes) - 2
    strides, dilations = (call.node.get_ints(name, (1,) * rank) for name in ("strides", "dilations"))
    convolve = getattr(relax.op.nn, _CONVOLUTIONS[rank])
    pads = _pads(call, sizes[2:], kernel[2:], strides, dilations)
    return call.emit(
        convolve(x, w, list(strides), pads, list(dilations), call.node.get_int("group", 1), out_dtype="int32")
    )


def _shifted(call: LoweringCall, index: int, zero: int, behind: tuple[int, ...]) -> relax.Expr:
    """An operand less its zero point; several, of its first axis, have sizes of one `behind` them."""
    codes = call.cast(call.expr(index), "int32")
    if not call.has(zero):
        return codes
    count = math.prod(call.sizes(zero))
    point = call.reshape(call.cast(call.expr(zero), "int32"), (count, *behind) if count > 1 else ())
    return call.emit(relax.op.subtract(codes, point))


def _pads(
    call: LoweringCall,
    image: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
) -> list[int]:
    """What stands around the image: before it along each axis, then behind it."""
    mode = call.node.get_string("auto_pad", "NOTSET")
    if mode not in ("SAME_LOWER", "SAME_UPPER"):
        return list(call.node.get_ints("pads", (0,) * 2 * len(image))) if mode != "VALID" else [0] * 2 * len(image)
    spare = [
        max(0, (-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size)
        for size, k, stride, dilation in zip(image, kernel, strides, dilations, strict=True)
    ]
    less, more = [n // 2 for n in spare], [n - n // 2 for n in spare]
    return [*less, *more] if mode == "SAME_UPPER" else [*more, *less]
