"""Convolutions of floats, and transposed ones as convolutions.

    y[q s + r - p] = sum_j x[q - j] w[r + j s]

So each of the s x s phases `r` of a transposed convolution is one over the image as it is, and all of them are one with
s x s times the channels, whose results are put side by side (the "sub-pixel" form: Shi et al., "Is the deconvolution
layer the same as a convolutional layer?", 2016).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from tvm import relax

from ....ir.node import Node, Value
from ..compute import conv as convs
from ..compute import winograd as filtering
from ..compute.window import Window
from ..compute.workload import fastest
from .expressions import FUSABLE, INJECTIVE, Blocked, constant, number
from .importer import Importer
from .integer_layers import lower_coded
from .weights import Weights, bias_of
from .windows import image_size, window


def lower_conv(importer: Importer, node: Node) -> relax.Expr | Blocked | None:
    if (coded := lower_coded(importer, node)) is not None:
        return coded
    x, weights, bias = node.inputs[0], node.inputs[1], node.input(2)
    w = None if x is None or weights is None else Weights.of(importer, weights)
    if x is None or w is None:
        return None
    place = window(node, x, w.shape[2:])
    if place is None:
        return None
    groups, machine = node.get_int("group", 1), importer.machine
    block, out = machine.block, w.shape[0]
    height, width = place.output
    if groups > 1 and w.shape[1] == 1 and groups == out:
        blocked = importer.packed(x)
        if blocked is None:
            return None
        tile = importer.tile("depthwise", blocked.expr, w.shape, place, groups)
        sums = importer.te(
            convs.depthwise,
            blocked.expr,
            w.packed_depthwise(importer),
            pattern=FUSABLE,
            window=place,
            tile=tile,
        )
    else:
        if groups > 1 and (out // groups) % block:
            return None
        sums = _apart(importer, x, w.array, place) if groups == 1 and w.array is not None else None
        if sums is None:
            image = _channelled(importer, x) if groups == 1 else importer.image(x)
            if image is None or (groups > 1 and w.shape[1] % image.block):
                return None
            sums = _convolved(importer, image, w, place, groups)
    if bias is not None:
        sums = _add(importer, sums, bias_of(importer, bias, out, block))
    return Blocked(sums, out, height, width, block)


def _convolved(importer: Importer, image: Blocked, w: Weights, window: Window, groups: int) -> relax.Expr:
    if groups == 1 and (filtered := _filtered(importer, image, w.array, window)) is not None:
        return filtered
    tile = importer.tile("conv", image.expr, w.shape, window, groups)
    return importer.te(
        convs.conv,
        image.expr,
        w.packed(importer, tile, math.gcd(w.shape[1], image.block)),
        pattern=FUSABLE,
        channels=w.shape[0],
        window=window,
        tile=tile,
        groups=groups,
    )


def _apart(importer: Importer, x: Value, w: npt.NDArray[np.generic], window: Window) -> relax.Expr | None:
    """The sum of a convolution over each of the images that `x`, which nothing else reads, was joined from: where the
    result, which is read once more, is smaller than what need not be copied."""
    height, width = window.output
    parts = importer.parts.get(x, ()) if len(x.uses) == 1 else ()
    if 2 * w.shape[0] * height * width > w.shape[1] * window.image[0] * window.image[1]:
        return None
    total, first = None, 0
    for part in parts:
        piece = w[:, first : first + part.channels]
        one = _convolved(importer, part, Weights(piece.shape, piece), window, 1)
        total, first = one if total is None else _add(importer, one, total), first + part.channels
    return total


def _channelled(importer: Importer, x: Value) -> Blocked | None:
    """The image as it is where its channels fill blocks or halves of them; else in blocks of a size that they fill."""
    image = importer.blocked(x)
    return image if image is not None and image.channels % max(1, image.block // 2) == 0 else importer.image(x)


def _filtered(importer: Importer, x: Blocked, w: npt.NDArray[np.generic] | None, window: Window) -> relax.Expr | None:
    """A convolution by minimal filtering, where the machine does so, its weights are constants, and it takes less time
    than summing up."""
    machine = importer.machine
    if w is None or not machine.filtering or w.dtype != np.float32 or x.block != machine.block or not x.whole:
        return None
    if not filtering.fits(window):
        return None
    data = tuple(number(size) for size in x.expr.ty.shape)
    kernel = fastest(machine, data, w.shape, window)
    if kernel == "conv":
        return None
    tile, scheme = importer.tile(kernel, x.expr, w.shape, window), filtering.SCHEMES[kernel]
    return importer.te(
        filtering.winograd,
        x.expr,
        constant(filtering.pack(w, tile, x.block, scheme)),
        pattern=FUSABLE,
        channels=w.shape[0],
        window=window,
        tile=tile,
        scheme=scheme,
    )


def lower_conv_transpose(importer: Importer, node: Node) -> Blocked | None:
    x, weights, bias, size = node.inputs[0], node.inputs[1], node.input(2), image_size(node.outputs[0])
    w = None if weights is None else Weights.of(importer, weights)
    if x is None or w is None or w.array is None or size is None:
        return None
    if node.get_int("group", 1) > 1 or max(node.get_ints("dilations", (1,))) > 1:
        return None
    image, kernel, block = _channelled(importer, x), w.array, importer.machine.block
    if image is None:
        return None
    strides, pads = node.get_ints("strides", (1, 1)), _first_pads(node, (image.height, image.width), kernel.shape, size)
    if min(pads) < 0:
        return None
    # Where the first and the last result of each axis lie, counted in strides.
    first = [pad // stride for pad, stride in zip(pads, strides, strict=True)]
    last = [(n - 1 + pad) // stride for n, pad, stride in zip(size, pads, strides, strict=True)]
    terms = [-(-k // stride) for k, stride in zip(kernel.shape[2:], strides, strict=True)]
    before = [n - 1 - at for n, at in zip(terms, first, strict=True)]
    behind = [at - (n - 1) for n, at in zip((image.height, image.width), last, strict=True)]
    if min(*before, *behind) < 0:
        return None
    place = Window(
        (image.height, image.width), (terms[0], terms[1]), (1, 1), (before[0], before[1], behind[0], behind[1]), (1, 1)
    )
    phases = _phases(kernel, strides, terms, block)
    sums = importer.te(
        convs.side_by_side,
        _convolved(importer, image, Weights(phases.shape, phases), place, 1),
        pattern=INJECTIVE,
        width=place.output[1],
        size=size,
        strides=strides,
        pads=pads,
        first=tuple(first),
    )
    if bias is not None:
        sums = _add(importer, sums, bias_of(importer, bias, kernel.shape[1], block))
    return Blocked(sums, kernel.shape[1], *size, block)


def _first_pads(node: Node, image: tuple[int, int], kernel: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    """What is cut from the top and from the left."""
    auto = node.get_string("auto_pad", "NOTSET")
    if "output_shape" not in node.attributes and not auto.startswith("SAME"):
        top, left, *_ = node.get_ints("pads", (0, 0, 0, 0)) if auto in ("", "NOTSET") else (0, 0)
        return top, left
    strides, added = node.get_ints("strides", (1, 1)), node.get_ints("output_padding", (0, 0))
    whole = [s * (n - 1) + more + k for s, n, more, k in zip(strides, image, added, kernel[2:], strict=True)]
    cut = [one - n for one, n in zip(whole, size, strict=True)]
    top, left = (one // 2 if auto == "SAME_UPPER" else one - one // 2 for one in cut)
    return top, left


def _phases(
    kernel: npt.NDArray[np.generic], strides: tuple[int, ...], terms: list[int], block: int
) -> npt.NDArray[np.generic]:
    """Weights [phases * Co, Ci, terms], the channels of each phase filled up to whole blocks."""
    ci, co, kh, kw = kernel.shape
    (sh, sw), (th, tw) = strides, terms
    filled = np.pad(kernel, ((0, 0), (0, -co % block), (0, th * sh - kh), (0, tw * sw - kw)))
    cut = filled.reshape(ci, -1, th, sh, tw, sw)[:, :, ::-1, :, ::-1]
    return np.ascontiguousarray(cut.transpose(3, 5, 1, 0, 2, 4)).reshape(-1, ci, th, tw)


def _add(importer: Importer, x: relax.Expr, y: relax.Expr) -> relax.Expr:
    return importer.emit(relax.op.add(x, y))
