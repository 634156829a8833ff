"""Forms of operators that the importer does not know, as those that it does.

TopK picks in order, where the model lets it pick in any. ScatterElements reaches all of the data but along its axis.

`auto_pad` of pools becomes the pads that it stands for, where sizes are known: the importer asks for the batch, too.
"""

from __future__ import annotations

import numpy as np

from ....ir.node import Node, Value
from .writer import Writer

_BROADCAST = frozenset({"Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor"})


def lift_broadcast(node: Node) -> bool:
    """What says since which axis a second operand is broadcast (before version 7; for PRelu, that of the channels) as
    sizes of one behind it, which say it alone. Whether that was so."""
    first, second = node.input(0), node.input(1)
    since = node.op in _BROADCAST and "axis" in node.attributes and bool(node.get_int("broadcast"))
    if first is None or second is None or first.shape is None or second.static_shape is None:
        return False
    rank, sizes = len(first.shape), second.static_shape
    axis = node.get_int("axis") if since else 1
    behind = rank - axis % max(rank, 1) - len(sizes)
    slopes = node.op == "PRelu" and len(sizes) == 1 and sizes != (1,)
    if not (since or slopes) or behind <= 0:
        return False
    node.set_input(1, Writer(node).reshape(second, *sizes, *[1] * behind))
    node.attributes.pop("axis", None)
    return True


def lift_transposed(node: Node) -> bool:
    """ConvTranspose whose `output_shape` is larger than what its windows cover: what is beyond holds the bias alone, as
    `output_padding` says it. Whether that was so."""
    x, weights = node.input(0), node.input(1)
    wanted = node.get_ints("output_shape")
    shape = None if x is None else x.static_shape
    kernel = None if weights is None else weights.static_shape
    if not wanted or shape is None or kernel is None:
        return False
    rank = len(shape) - 2
    strides, dilations = node.get_ints("strides", (1,) * rank), node.get_ints("dilations", (1,) * rank)
    added = node.get_ints("output_padding", (0,) * rank)
    covered = [
        stride * (size - 1) + (k - 1) * dilation + 1
        for size, k, stride, dilation in zip(shape[2:], kernel[2:], strides, dilations, strict=True)
    ]
    over = [size + more - want for size, more, want in zip(covered, added, wanted[-rank:], strict=True)]
    if all(one >= 0 for one in over):
        return False
    cut = [max(one, 0) for one in over]
    upper = node.get_string("auto_pad", "NOTSET") == "SAME_UPPER"
    first = [one // 2 if upper else one - one // 2 for one in cut]
    node.set_attribute("pads", [*first, *(one - begin for one, begin in zip(cut, first, strict=True))])
    node.set_attribute("output_padding", [more + max(-one, 0) for more, one in zip(added, over, strict=True)])
    for name in ("output_shape", "auto_pad"):
        node.attributes.pop(name, None)
    return True


POOLS = frozenset({"AveragePool", "LpPool", "MaxPool"})


def lift_auto_pad(node: Node) -> bool:
    """Write down the pads of a pool whose `auto_pad` asks for them; whether its sizes tell."""
    mode, x = node.get_string("auto_pad", "NOTSET"), node.inputs[0]
    kernel = node.get_ints("kernel_shape", ())
    image = () if x is None or x.shape is None else x.shape[2:]
    sizes = [size for size in image if isinstance(size, int)]
    if mode == "VALID":
        node.attributes.pop("auto_pad")
        return True
    if mode not in ("SAME_LOWER", "SAME_UPPER") or not image or not len(sizes) == len(image) == len(kernel):
        return False
    strides, dilations = (node.get_ints(name, (1,) * len(kernel)) for name in ("strides", "dilations"))
    spare = [
        (-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size
        for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    _skip(node, sizes, [-n for n in spare], mode)
    less, more = [max(n, 0) // 2 for n in spare], [max(n, 0) - max(n, 0) // 2 for n in spare]
    node.attributes.pop("auto_pad")
    node.set_attribute("pads", (*less, *more) if mode == "SAME_UPPER" else (*more, *less))
    node.set_attribute("ceil_mode", 0)
    return True


def _skip(node: Node, sizes: list[int], over: list[int], mode: str) -> None:
    """Let a pool start behind what its windows, which leave out `over` elements of each axis, do not reach: with ONNX's
    formula these are pads below zero, half of them before the first window."""
    x = node.inputs[0]
    firsts = [max(0, n // 2 if mode == "SAME_UPPER" else (n - 1) // 2) for n in over]
    if x is None or not any(firsts):
        return
    write = Writer(node)
    bounds = (firsts, sizes, [2 + at for at in range(len(sizes))])
    node.set_input(0, write.add("Slice", x, *map(write.constant, bounds)))


def lift_scatter(node: Node) -> bool:
    """A ScatterElements whose indices are fewer than the data along other axes, too, as one into that part of the data,
    to which the rest is joined: TVM counts elements as if all other sizes were the data's. Whether that was so."""
    data, indices = node.inputs[0], node.inputs[1]
    sizes = None if data is None else data.static_shape
    reach = None if indices is None else indices.static_shape
    if data is None or not sizes or reach is None or 0 in reach:
        return False
    axis = node.get_int("axis") % len(sizes)
    fewer = [at for at, (size, part) in enumerate(zip(sizes, reach, strict=True)) if at != axis and part < size]
    if not fewer:
        return False

    write = Writer(node)

    def sliced(value: Value, at: int, first: int, last: int) -> Value:
        return write.add("Slice", value, write.ints(first), write.ints(last), write.ints(at))

    parts, rests = data, []
    for at in fewer:
        rests.append(sliced(parts, at, reach[at], sizes[at]))
        parts = sliced(parts, at, 0, reach[at])
    answer = write.add(node.op, parts, *node.inputs[1:], name=node.name, **node.attributes)
    for at, rest in zip(reversed(fewer), reversed(rests), strict=True):
        answer = write.add("Concat", answer, rest, axis=at)
    return write.put(answer)


def lift_order(node: Node) -> bool:
    """Ask a TopK that leaves the order of what it picks open for the largest first; whether it left it open."""
    if node.get_int("sorted", 1):
        return False
    node.set_attribute("sorted", 1)
    return True


def lift_affine_grid(node: Node) -> bool:
    """Write down the points of an AffineGrid whose size is a constant; whether it is.

    grid[n, p] = theta[n] (x_p, y_p, 1), or (x_p, y_p, z_p, 1), where coordinates run from -1 to 1: from the middle of
    the first pixel to that of the last where `align_corners`, else from edge to edge.
    """
    theta, size = node.inputs[0], node.inputs[1]
    if theta is None or theta.dtype is None or size is None or size.constant is None:
        return False
    count, _, *image = (int(number) for number in size.constant.numpy())
    ends = [1.0 if node.get_int("align_corners") else 1 - 1 / max(one, 1) for one in image]
    # A single one stands at the end, as with ONNX Runtime.
    lines = [np.linspace(-end, end, one) if one > 1 else np.array([end]) for end, one in zip(ends, image, strict=True)]
    axes = np.meshgrid(*lines, indexing="ij")[::-1]
    points = np.stack([*(axis.ravel() for axis in axes), np.ones(axes[0].size)], axis=1).astype(theta.dtype.numpy)
    write = Writer(node)
    turned = write.add("Transpose", theta, perm=[0, 2, 1])
    product = write.add("MatMul", write.constant(points, points.dtype), turned)
    return write.put(write.add("Reshape", product, write.ints(count, *image, len(image)), name=node.name))
