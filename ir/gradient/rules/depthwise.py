"""The gradient of a depthwise kernel, where each channel is a convolution of its own and no product spans channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...attributes import AttributeValue
from ...graph import Graph, Value
from ...types import DType, TensorType
from ..builder import Builder
from .window import GradientWindow

WIDEST = 64
"""Places of a row, of what is read and of what is written, up to which products of whole rows are faster than a
convolution.

ONNX Runtime 1.32, one thread, ms for 8 samples, products and convolution: 144 channels, 56 x 56: 38, 44; 192, 28 x 28:
10, 16; 384, 14 x 14: 4.3, 8.6; 960, 7 x 7: 3.0, 5.5; stride 2, 96 to 56 x 56: 45, 34; 192 to 14 x 14: 3.9, 4.3; 576 to
7 x 7: 3.1, 3.7.
"""


def kernel_gradient(
    build: Builder,
    g: Value,
    x: Value,
    weight: Value,
    view: GradientWindow,
    places: Sequence[object],
    read: Sequence[object],
) -> Value:
    """Of the kernel `weight` [C, 1, …], of one or two spatial axes, from `g` [N, C, *places] and `x` [N, C, *read]."""
    sizes = [size for size in (*places[2:], *read[2:]) if isinstance(size, int) and size > 0]
    shape = build.static(weight) or ()
    if len(sizes) == 4 and build.by_sample and shape[0] % 4 == 0 and build.dtype(weight) is DType.FLOAT:
        return _by_sample(build, g, x, shape, view, sizes[:2], sizes[2:])
    if len(sizes) == 4 and max(sizes[1], sizes[3]) <= WIDEST:
        return _by_rows(build, g, x, weight, view, (sizes[0], sizes[1]), (sizes[2], sizes[3]))
    return _over_samples(build, g, x, shape, view)


def _by_sample(
    build: Builder,
    g: Value,
    x: Value,
    shape: tuple[int, ...],
    view: GradientWindow,
    places: Sequence[int],
    read: Sequence[int],
) -> Value:
    """Sample by sample, each channel of `x` convolved with that of `g`, and summed.

    Strides and dilations change places.

    ONNX Runtime 1.32, one thread, ms for 4 samples, in blocks of channels, beside the layer itself as it is trained
    (weights as inputs): 144 channels, 56 x 56: 3.4, 4.5; 32, 112 x 112: 2.7, 2.9; 96, 112 to 56: 4.7, 8.1; 384, 14 x
    14: .4, 1.1. In plain order a convolution with so large a kernel takes five times as long as the layer.
    """
    body = Graph("sample")
    total = body.add_input("sum", TensorType(DType.FLOAT, shape))
    image = body.add_input("image", TensorType(DType.FLOAT, (shape[0], *read)))
    arrived = body.add_input("gradient", TensorType(DType.FLOAT, (shape[0], *places)))

    def sized(value: Value, *sizes: int) -> Value:
        kind = TensorType(DType.FLOAT, sizes)
        return body.add("Reshape", [value, body.constant(np.array(sizes, np.int64))], types=[kind]).output

    # Where a stride leaves something over, that is cut off before the border, or behind what is too much.
    needed = [(p - 1) * s + r + 1 for p, s, r in zip(places, view.strides, view.reach)]
    end = [max(n - begin - size, 0) for n, begin, size in zip(needed, view.begin, read)]
    window: dict[str, AttributeValue] = {
        "group": shape[0], "kernel_shape": tuple(places), "pads": (*view.begin, *end), "strides": view.dilations,
        "dilations": view.strides,
    }  # fmt: skip
    sides = [sized(image, 1, shape[0], *read), sized(arrived, shape[0], 1, *places)]
    product = body.add("Conv", sides, window).output
    if any(begin + size > n for n, begin, size in zip(needed, view.begin, read)):
        cut = [[0, 0], view.kernel, [2, 3]]
        product = body.add("Slice", [product, *(body.constant(np.array(one, np.int64)) for one in cut)]).output
    summed = body.add("Add", [total, sized(product, *shape)]).output
    body.add_output(summed, "summed", TensorType(DType.FLOAT, shape))
    nothing = build.graph.constant(np.zeros(shape, np.float32))
    return build("Scan", nothing, x, g, body=body, num_scan_inputs=2)


def _by_rows(
    build: Builder,
    g: Value,
    x: Value,
    weight: Value,
    view: GradientWindow,
    places: tuple[int, int],
    read: tuple[int, int],
) -> Value:
    """For each row of the kernel, the products of all columns of `g` with all columns of `x`, summed over samples and
    rows; what belongs to the row's elements lies on diagonals, which one product with zeros and ones picks.

    That is as many multiplications as `x` has columns, where three or five would do, and no copies but of whole rows.
    """
    shape = build.static(weight) or ()
    channels, height = shape[0], view.kernel[0]
    (rows, columns), (deep, wide) = places, read
    g, x = (build.transpose(value, 1, 0, 2, 3) for value in (g, x))
    products = []
    for i in range(height):
        first = i * view.dilations[0] - view.begin[0]  # the row of x that the first row of g reads
        low = max(-(first // view.strides[0]), 0)
        high = min((deep - 1 - first) // view.strides[0], rows - 1)
        if high < low:  # the row lies in the border everywhere
            products.append(build("Expand", build.scalar(0.0, weight), build.ints([channels, 1, columns * wide])))
            continue
        begin, last = low * view.strides[0] + first, high * view.strides[0] + first
        mine = g if (low, high) == (0, rows - 1) else build.slice(g, [2], [low], [high + 1])
        step = view.strides[:1]
        whole = (begin, last) == (0, deep - 1) and step == (1,)
        theirs = x if whole else build.slice(x, [2], [begin], [last + 1], step)
        turned = build.transpose(build.reshape(mine, [channels, -1, columns]), 0, 2, 1)
        product = build("MatMul", turned, build.reshape(theirs, [channels, -1, wide]))
        products.append(build.reshape(product, [channels, 1, columns * wide]))
    stacked = build("Concat", *products, axis=1) if height > 1 else products[0]
    diagonals = build.constant(_diagonals(view, columns, wide), weight)
    return build.reshape(build("MatMul", stacked, diagonals), shape)


def _diagonals(view: GradientWindow, columns: int, wide: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """[columns of g and of x, columns of the kernel]: 1 where an element of the kernel reads one for the other."""
    ones = np.zeros((columns, wide, view.kernel[1]), np.float32)
    for j in range(view.kernel[1]):
        at = np.arange(columns) * view.strides[1] + j * view.dilations[1] - view.begin[1]
        inside = (at >= 0) & (at < wide)
        ones[np.flatnonzero(inside), at[inside], j] = 1.0
    return ones.reshape(columns * wide, -1)


def _over_samples(build: Builder, g: Value, x: Value, shape: tuple[int, ...], view: GradientWindow) -> Value:
    """Depthwise: each channel of `x` convolved with that of `g`, samples being one more axis that both have in full.

    Strides and dilations change places. ONNX Runtime 1.32, one thread, ms, beside k * k products element by element and
    the layer itself: 8 samples, 96 channels, 112 x 112, stride 2: 58, 191, 18; 144, 56 x 56: 55, 122, 13; 384, 14 x 14:
    9, 11, 3; 960, 7 x 7: 6.5, 8.8, 3.7.
    """
    first = [1, 0, *range(2, 2 + view.rank)]
    images = build.unsqueeze(build.transpose(x, *first), [0])
    kernels = build.unsqueeze(build.transpose(g, *first), [1])
    summed = build(
        "Conv", images, kernels, group=shape[0], strides=[1, *view.dilations], dilations=[1, *view.strides],
        pads=[0, *view.begin, 0, *view.end],
    )  # fmt: skip
    if max(view.strides) > 1:  # what no stride reached lies behind
        summed = build.slice(summed, [axis + 3 for axis in range(view.rank)], [0] * view.rank, view.kernel)
    return build.reshape(summed, shape)
