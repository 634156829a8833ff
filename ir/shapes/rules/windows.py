"""Operators that slide a window: convolutions, transposed convolutions, pooling, short-time Fourier transforms.

For size `x`, kernel `k`, stride `s`, dilation `d` and pads `p`, `q` the output size is
`floor((x + p + q - ((k - 1) d + 1)) / s) + 1` (`ceil` with `ceil_mode`, less one where the last window would start in
the end padding), and `ceil(x / s)` for the SAME kinds of `auto_pad`.
"""

from __future__ import annotations

from ...types import DType
from ..symbols import Size, floor_divide
from .call import Call, Fact, Rule, Sizes


def _window(call: Call, spatial: Sizes, kernel: Sizes) -> Sizes:
    node, rank = call.node, len(spatial)
    strides = node.get_ints("strides", (1,) * rank)
    dilations = node.get_ints("dilations", (1,) * rank)
    pads = node.get_ints("pads", (0,) * 2 * rank)
    auto, ceil = node.get_string("auto_pad", "NOTSET"), node.get_int("ceil_mode")
    if not (len(strides) == len(dilations) == len(kernel) == rank and len(pads) == 2 * rank):
        raise call.error(f"strides, dilations, pads or kernel_shape do not fit {rank} spatial axes")
    result: list[Size] = []
    for axis, size in enumerate(spatial):
        stride, extent = strides[axis], (kernel[axis] - 1) * dilations[axis] + 1
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            result.append(floor_divide(size + (stride - 1), stride))
            continue
        start, end = (0, 0) if auto == "VALID" else (pads[axis], pads[axis + rank])
        room = size + (start + end) - extent
        if isinstance(room, int) and room < 0:
            raise call.error(f"the window of size {extent} does not fit axis {axis + 2} of size {size} with its pads")
        count = floor_divide(room + (stride - 1 if ceil else 0), stride) + 1
        if ceil and isinstance(count, int) and isinstance(size, int):
            count -= (count - 1) * stride >= size + start
        elif ceil and not (isinstance(extent, int) and end + stride <= extent):
            count = call.fresh()
        result.append(count)
    return tuple(result)


def _weight(call: Call, index: int) -> Sizes:
    weight = call.shape(index)
    kernel = call.node.get_ints("kernel_shape")
    return (*weight[:2], *kernel) if kernel else weight


def _conv(call: Call, weight: int, dtype: DType) -> list[Fact]:
    x, w = call.shape(0), _weight(call, weight)
    if len(x) != len(w) or len(x) < 2:
        raise call.error(f"the input has rank {len(x)} and the weight rank {len(w)}")
    channels = w[1] * call.node.get_int("group", 1)
    if isinstance(channels, int) and isinstance(x[1], int) and channels != x[1]:
        raise call.error(f"the input has {x[1]} channels and the weight takes {channels}")
    return [Fact(dtype, (x[0], w[0], *_window(call, x[2:], w[2:])))]


def conv(call: Call) -> list[Fact]:
    return _conv(call, 1, call.fact(0).dtype)


def conv_integer(call: Call) -> list[Fact]:
    return _conv(call, 1, DType.INT32)


def qlinear_conv(call: Call) -> list[Fact]:
    return _conv(call, 3, call.fact(7).dtype)


def conv_transpose(call: Call) -> list[Fact]:
    """Size `s (x - 1) + output_padding + (k - 1) d + 1 - pads`, `s x` for SAME, or `output_shape` where given."""
    node, x, w = call.node, call.shape(0), _weight(call, 1)
    rank = len(x) - 2
    strides = node.get_ints("strides", (1,) * rank)
    dilations = node.get_ints("dilations", (1,) * rank)
    pads = node.get_ints("pads", (0,) * 2 * rank)
    extra = node.get_ints("output_padding", (0,) * rank)
    auto, wanted = node.get_string("auto_pad", "NOTSET"), node.get_ints("output_shape")
    spatial: list[Size] = []
    for axis, size in enumerate(x[2:]):
        if wanted:
            spatial.append(wanted[len(wanted) - rank + axis])
        elif auto in ("SAME_UPPER", "SAME_LOWER"):
            spatial.append(size * strides[axis])
        else:
            taken = 0 if auto == "VALID" else pads[axis] + pads[axis + rank]
            extent = (w[axis + 2] - 1) * dilations[axis] + 1
            spatial.append((size - 1) * strides[axis] + extent + (extra[axis] - taken))
    return [Fact(call.fact(0).dtype, (x[0], w[1] * node.get_int("group", 1), *spatial))]


def pool(call: Call) -> list[Fact]:
    x = call.shape(0)
    shape = (*x[:2], *_window(call, x[2:], call.node.get_ints("kernel_shape")))
    return [Fact(call.fact(0).dtype, shape), Fact(DType.INT64, shape)]


def global_pool(call: Call) -> list[Fact]:
    x = call.shape(0)
    return [Fact(call.fact(0).dtype, x[:2] + (1,) * (len(x) - 2))]


def roi(call: Call) -> list[Fact]:
    """RoiAlign and MaxRoiPool: one window of a fixed size a region."""
    node, x, regions = call.node, call.shape(0), call.shape(1)
    height, width = node.get_int("output_height", 1), node.get_int("output_width", 1)
    if node.op == "MaxRoiPool":
        height, width = node.get_ints("pooled_shape")
    return [Fact(call.fact(0).dtype, (regions[0], x[1], height, width))]


def stft(call: Call) -> list[Fact]:
    """(batch, samples, 1 or 2) to (batch, frames, bins, 2); half of the bins where they are one-sided."""
    signal = call.shape(0)
    steps, lengths = call.ints("", 1), call.ints("", 3) if call.has(3) else None
    length: Size = lengths[0] if lengths else call.fresh()
    if not lengths and call.has(2) and call.fact(2).shape:
        length = call.shape(2)[0]
    step: Size = steps[0] if steps else call.fresh()
    bins = floor_divide(length, 2) + 1 if call.node.get_int("onesided", 1) else length
    frames = floor_divide(signal[1] - length, step) + 1 if steps and step != 0 else call.fresh()
    return [Fact(call.fact(0).dtype, (signal[0], frames, bins, 2))]


RULES: dict[str, Rule] = {
    "STFT": stft,
    "Conv": conv,
    "DeformConv": conv,
    "ConvInteger": conv_integer,
    "QLinearConv": qlinear_conv,
    "ConvTranspose": conv_transpose,
    "RoiAlign": roi,
    "MaxRoiPool": roi,
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), global_pool),
}
