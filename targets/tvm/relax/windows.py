"""Where the kernel of a node looks."""

from __future__ import annotations

from ....ir.node import Node, Value
from ..compute.window import Window


def window(node: Node, value: Value, size: tuple[int, ...]) -> Window | None:
    """Where a node with the attributes of a convolution looks; none where it is not two-dimensional and static."""
    shape = value.shape
    if shape is None or len(shape) != 4 or len(size) != 2 or not all(isinstance(d, int) for d in shape[1:]):
        return None
    image = int(shape[2] or 0), int(shape[3] or 0)
    strides, dilations = node.get_ints("strides", (1, 1)), node.get_ints("dilations", (1, 1))
    auto = node.get_string("auto_pad", "NOTSET")
    pads = node.get_ints("pads", (0, 0, 0, 0)) if auto in ("", "NOTSET") else (0, 0, 0, 0)
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        spare = [
            max(0, (-(-image[i] // strides[i]) - 1) * strides[i] + (size[i] - 1) * dilations[i] + 1 - image[i])
            for i in (0, 1)
        ]
        less, more = [n // 2 for n in spare], [n - n // 2 for n in spare]
        pads = (*less, *more) if auto == "SAME_UPPER" else (*more, *less)
    top, left, bottom, right = pads
    return Window(
        image, (size[0], size[1]), (strides[0], strides[1]), (top, left, bottom, right), (dilations[0], dilations[1])
    )


def image_size(value: Value) -> tuple[int, int] | None:
    """Height and width of an image where they are known."""
    shape = value.shape
    if shape is None or len(shape) != 4 or not isinstance(shape[2], int) or not isinstance(shape[3], int):
        return None
    return shape[2], shape[3]
