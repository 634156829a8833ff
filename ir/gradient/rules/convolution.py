"""Convolutions, of 1 to 3 spatial axes, grouped, strided, dilated, with any borders.

The gradient of the input is a convolution too. With stride 1 it is an ordinary one, of the kernel turned round with its
axes exchanged, for which runtimes have their fastest kernels; else a transposed one. The gradient of the weight is a
sum of products over all samples and places; see `weight_gradient`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ...attributes import AttributeValue
from ...graph import Value
from ..builder import Builder, CannotDifferentiate
from .call import GradientCall, Rule
from .depthwise import kernel_gradient
from .window import FAR, GradientWindow, shifted, spread, window

LARGE = {True: 100, False: 2048}
"""Places of a map above which one product a sample is faster than one over all samples for each kernel element: for
kernels of one element, and of several.

ONNX Runtime 1.32, one thread, ms, one a sample and one over all. 1 x 1, 8 samples: 16 -> 96 channels, 112 x 112: 5.5
and 15.2; 192 -> 32, 28 x 28: 1.2 and 2.6; 64 -> 384, 14 x 14: .8 and 1.2; 960 -> 160, 7 x 7: 1.9 and 1.3. 3 x 3:
16 of 64 -> 64, 56 x 56: 46.8 and 64.6; 64 of 16 -> 16, 32 x 32: 22.6 and 12.3; 64 of 64 -> 64, 8 x 8: 9.5 and 4.9; 8
of 3 -> 32, 224 x 224, stride 2: 5.1 and 10.6. A convolution with samples and channels exchanged takes up to twice the
better one.
"""


def _kernel(build: Builder, weight: Value) -> tuple[int, ...]:
    shape = build.static(weight)
    if shape is None:
        raise CannotDifferentiate(f"has a weight '{weight.name}' of open size")
    return shape[2:]


def conv(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    g, x, weight = call.gradient, call.input(0), call.input(1)
    group = call.node.get_int("group", 1)
    view = window(call.node, build, _kernel(build, weight), x, call.output)
    across = by_weight = by_bias = None
    if call.wants(0):
        across = _input_gradient(build, g, weight, view, group, x, call.output)
    if call.wants(1):
        sizes = build.shape(call.output), build.shape(x)
        by_weight = weight_gradient(build, g, x, weight, view, group, *sizes)
    if call.node.input(2) is not None and call.wants(2):
        by_bias = build.sum(g, [axis for axis in range(view.rank + 2) if axis != 1])
    return across, by_weight, by_bias


def _input_gradient(
    build: Builder, g: Value, weight: Value, view: GradientWindow, group: int, x: Value, y: Value
) -> Value:
    if view.plain and group == 1:
        turned = build.transpose(build("Flatten", weight, axis=1), 1, 0)
        return build.reshape_as(build("MatMul", turned, build.reshape(g, [0, 0, -1])), x)
    begin = [reach - pad for reach, pad in zip(view.reach, view.begin)]
    end = [reach - pad for reach, pad in zip(view.reach, view.end)]
    if set(view.strides) != {1} or min(*begin, *end) < 0:
        return spread(build, g, weight, view, group, x, y)
    turned = _exchanged(build, _turned(build, weight, view), group, view, weight)
    common: dict[str, AttributeValue] = {"dilations": view.dilations, "group": group, "kernel_shape": view.kernel}
    return build("Conv", g, turned, pads=[*begin, *end], **common)


def _turned(build: Builder, weight: Value, view: GradientWindow) -> Value:
    """The kernel with every spatial axis reversed."""
    axes = [axis for axis, size in enumerate(view.kernel, 2) if size > 1]
    if not axes:
        return weight
    return build.slice(weight, axes, [-1] * len(axes), [-FAR] * len(axes), [-1] * len(axes))


def _exchanged(build: Builder, kernel: Value, group: int, view: GradientWindow, weight: Value) -> Value:
    """[O, C / group, …] as [C, O / group, …]."""
    out, channels = (build.static(weight) or (0, 0))[:2]
    if channels == 1 and out == group:
        return kernel
    spatial = range(2, 2 + view.rank)
    if group == 1:
        return build.transpose(kernel, 1, 0, *spatial)
    parts = build.reshape(kernel, [group, out // group, channels, *view.kernel])
    swapped = build.transpose(parts, 0, 2, 1, *(axis + 1 for axis in spatial))
    return build.reshape(swapped, [group * channels, out // group, *view.kernel])


def weight_gradient(
    build: Builder,
    g: Value,
    x: Value,
    weight: Value,
    view: GradientWindow,
    group: int,
    places: Sequence[object],
    reach: Sequence[object],
) -> Value:
    """Of a kernel [O, C / group, …]: for each of its elements, the products of `g` and what the element read of `x`.

    `places` and `reach` are the sizes of `g` and `x`. Three forms. Depthwise: see `depthwise`. Large maps: what all
    elements read side by side, one product a sample, summed over samples. Else samples and places as one axis, and one
    product for each element. Copies of `x`: one in all for the last, one an element for the second.
    """
    shape = build.static(weight)
    assert shape is not None
    out, channels = shape[:2]
    if channels == 1 and out == group and view.rank < 3:
        return kernel_gradient(build, g, x, weight, view, places, reach)
    elements = list(itertools.product(*(range(size) for size in view.kernel)))
    one_product = group == 1 and _over_all_is_faster(places, view)
    if one_product:
        return _over_all(build, g, x, shape, view, elements)
    x = _bordered(build, x, view, weight)
    if channels == 1 and out == group:
        axes = [0, *range(2, 2 + view.rank)]
        sums = [build.sum(build("Mul", g, shifted(build, x, place, view)), axes) for place in elements]
        stacked = build("Concat", *(build.unsqueeze(one, [1]) for one in sums), axis=1) if len(sums) > 1 else sums[0]
        return build.reshape(stacked, shape)
    parts = [build.reshape(shifted(build, x, place, view), [0, group, channels, -1]) for place in elements]
    read = build("Concat", *parts, axis=2) if len(parts) > 1 else parts[0]
    arrived = build.reshape(g, [0, group, out // group, -1])
    products = build.sum(build("MatMul", arrived, build.transpose(read, 0, 1, 3, 2)), [0])
    return _ordered(build, products, [out, *view.kernel, channels])


def _bordered(build: Builder, x: Value, view: GradientWindow, like: Value, lead: int = 2) -> Value:
    """Zeros around the spatial axes; one axis behind them where `lead` is 1."""
    behind = [0] * (2 - lead)
    return build.pad(x, [0] * lead + [*view.begin, *behind], [0] * lead + [*view.end, *behind], like)


def _over_all_is_faster(places: Sequence[object], view: GradientWindow) -> bool:
    count = 1
    for size in places[2:]:
        if not isinstance(size, int):
            return True
        count *= size
    return count <= LARGE[set(view.kernel) == {1}]


def _over_all(
    build: Builder, g: Value, x: Value, shape: tuple[int, ...], view: GradientWindow, elements: list[tuple[int, ...]]
) -> Value:
    """`g` as [O, samples and places], times what each element reads as [samples and places, C]: channels stand last,
    so that rows are long where borders are added and pieces taken."""
    out, channels = shape[:2]
    spatial = range(2, 2 + view.rank)
    arrived = build.reshape(build.transpose(g, 1, 0, *spatial), [out, -1])
    turned = _bordered(build, build.transpose(x, 0, *spatial, 1), view, x, lead=1)
    parts = [build.reshape(shifted(build, turned, place, view, lead=1), [-1, channels]) for place in elements]
    products = [build("Gemm", arrived, part) for part in parts]
    if len(products) == 1:
        return build.reshape(products[0], shape)
    return _ordered(build, build("Concat", *products, axis=1), [out, *view.kernel, channels])


def _ordered(build: Builder, products: Value, sizes: list[int]) -> Value:
    """Kernel elements before channels, as they were summed, brought to [O, C, …]."""
    rank = len(sizes) - 2
    if set(sizes[1:-1]) == {1}:
        return build.reshape(products, [sizes[0], sizes[-1], *sizes[1:-1]])
    return build.transpose(build.reshape(products, sizes), 0, rank + 1, *range(1, rank + 1))


def conv_transpose(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """The convolution that it transposes, of the gradient; the two sides of the weight change places."""
    node, g, x, weight = call.node, call.gradient, call.input(0), call.input(1)
    group = node.get_int("group", 1)
    view = _transposed_window(call, build, _kernel(build, weight))
    across = by_weight = by_bias = None
    common: dict[str, AttributeValue] = {
        "strides": view.strides,
        "dilations": view.dilations,
        "kernel_shape": view.kernel,
    }
    if call.wants(0):
        across = build("Conv", g, weight, pads=[*view.begin, *view.end], group=group, **common)
    if call.wants(1):
        sizes = build.shape(x), build.shape(call.output)
        by_weight = weight_gradient(build, x, g, weight, view, group, *sizes)
    if node.input(2) is not None and call.wants(2):
        by_bias = build.sum(g, [axis for axis in range(view.rank + 2) if axis != 1])
    return across, by_weight, by_bias


def _transposed_window(call: GradientCall, build: Builder, kernel: tuple[int, ...]) -> GradientWindow:
    """The window of the convolution from the output to the input; its end leaves out what `output_padding` added."""
    node, rank = call.node, len(kernel)
    strides = node.get_ints("strides", (1,) * rank)
    dilations = node.get_ints("dilations", (1,) * rank)
    extra = node.get_ints("output_padding", (0,) * rank)
    pads = node.get_ints("pads", (0,) * 2 * rank)
    auto, wanted = node.get_string("auto_pad", "NOTSET"), node.get_ints("output_shape")
    begin, end = list(pads[:rank]), list(pads[rank:])
    for axis in range(rank):
        if wanted or auto in ("SAME_UPPER", "SAME_LOWER"):
            size, count = build.shape(call.output)[axis + 2], build.shape(call.input(0))[axis + 2]
            if not isinstance(size, int) or not isinstance(count, int):
                raise CannotDifferentiate("has borders that depend on an open size")
            total = (count - 1) * strides[axis] + extra[axis] + (kernel[axis] - 1) * dilations[axis] + 1 - size
            total = max(total, 0)
            begin[axis] = total - total // 2 if auto == "SAME_LOWER" else total // 2
            end[axis] = total - begin[axis]
        elif auto == "VALID":
            begin[axis] = end[axis] = 0
        end[axis] -= extra[axis] if not wanted and auto == "NOTSET" else 0
    if min(*begin, *end) < 0:
        raise CannotDifferentiate("adds more behind its output than it cuts off")
    return GradientWindow(tuple(kernel), strides, dilations, tuple(begin), tuple(end))


RULES: dict[str, Rule] = {"Conv": conv, "ConvTranspose": conv_transpose}
