"""Convolutions that no kernel is written for, over images of open size or of three axes, as products of their patches.

    y[n, p, :] = sum_k x[n, p s + k d - pads, :] W[k]

with channels last: for each place `k` of the kernel a slice of the padded image, side by side along the channels, times
the weights in that order (Chellapilla et al. 2006, "High performance convolutional neural networks for document
processing"). Places of the first axis of the kernel are products of their own where a patch would be long, so that what
is held is a few times the image. Where every channel has a kernel of its own, slices times weights are summed up.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from ....ir.node import Node, Value
from ....ir.types import DType
from ....passes.base import Context, Pass, Report
from .writer import Writer

if TYPE_CHECKING:
    from ....ir.graph import Graph

Array: TypeAlias = "npt.NDArray[np.generic]"

LONGEST = 256
"""Numbers of a patch up to which it is one."""
FEW = 9
"""Places of a kernel of one channel up to which it is taken: all of them are one loop, which takes long to build."""
_SINCE = 11
"""The version of the operators that are written."""
_END = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Patches(Pass):
    """Conv becomes Pad, Slice, Concat and MatMul, between Transposes.

    Exact but for the order of sums. Does not fire for images of two axes whose sizes are known, weights that are
    computed, several channels a group, large kernels of one channel, and pads that follow from an open size.
    """

    name: ClassVar[str] = "patches"

    def run(self, graph: Graph, ctx: Context) -> Report:
        from ....passes.clean.clean import Clean

        report = Report()
        if graph.opset() < _SINCE:
            return report
        count = sum(_lift(node) for node in list(graph) if node.op == "Conv" and not node.domain)
        if count:
            report.rewrote("patches", count)
            Clean().run(graph, ctx)
        return report


def _lift(node: Node) -> bool:
    x, weights = node.input(0), node.input(1)
    shape = None if x is None else x.shape
    if x is None or shape is None or weights is None or weights.constant is None or x.dtype is not DType.FLOAT:
        return False
    if len(shape) == 4 and all(isinstance(size, int) for size in shape[2:]):
        return False
    kernel = np.asarray(weights.numpy())
    groups, size = node.get_int("group", 1), kernel.shape[2:]
    alone = groups > 1 and kernel.shape[1] == 1 and groups == kernel.shape[0] and kernel[0].size <= FEW
    pads = _pads(node, shape[2:], size)
    if (groups > 1 and not alone) or pads is None:
        return False
    write, axes = Writer(node), len(size)
    last = write.add("Transpose", x, perm=[0, *range(2, axes + 2), 1])
    if any(pads):
        first, behind = pads[:axes], pads[axes:]
        last = write.add("Pad", last, write.ints(0, *first, 0, 0, *behind, 0))
    sums = _apart(write, node, last, kernel) if alone else _products(write, node, last, kernel)
    bias = node.input(2)
    if bias is not None:
        sums = write.add("Add", sums, bias)
    return write.put(write.add("Transpose", sums, perm=[0, axes + 1, *range(1, axes + 1)]))


def _products(write: Writer, node: Node, x: Value, kernel: Array) -> Value:
    """The sum of products of patches, for all places of the kernel at once or for each of its first axis."""
    size = kernel.shape[2:]
    places = list(itertools.product(*map(range, size)))
    if kernel[0].size > LONGEST and size[0] > 1:
        parts = [[place for place in places if place[0] == row] for row in range(size[0])]
    else:
        parts = [places]
    total: Value | None = None
    for part in parts:
        taken = [_taken(write, node, x, place, size) for place in part]
        patch = taken[0] if len(taken) == 1 else write.add("Concat", *taken, axis=-1)
        weights = np.concatenate([_at(kernel, place) for place in part])
        product = write.add("MatMul", patch, write.graph.constant(weights))
        total = product if total is None else write.add("Add", total, product)
    assert total is not None
    return total


def _apart(write: Writer, node: Node, x: Value, kernel: Array) -> Value:
    """The sum of slices, each times the weights that all channels have at one place."""
    size = kernel.shape[2:]
    total: Value | None = None
    for place in itertools.product(*map(range, size)):
        weights = write.graph.constant(_at(kernel[:, :1], place)[0])
        term = write.add("Mul", _taken(write, node, x, place, size), weights)
        total = term if total is None else write.add("Add", total, term)
    assert total is not None
    return total


def _at(kernel: Array, place: tuple[int, ...]) -> Array:
    """The weights of one place, [Ci, Co]."""
    at = int(np.ravel_multi_index(place, kernel.shape[2:]))
    return np.ascontiguousarray(kernel.reshape(*kernel.shape[:2], -1)[:, :, at].T)


def _taken(write: Writer, node: Node, x: Value, place: tuple[int, ...], size: tuple[int, ...]) -> Value:
    """What all results read of `x` at one place of the kernel."""
    axes = len(size)
    strides, dilations = node.get_ints("strides", (1,) * axes), node.get_ints("dilations", (1,) * axes)
    first = [at * dilation for at, dilation in zip(place, dilations, strict=True)]
    behind = [(k - 1 - at) * dilation for k, at, dilation in zip(size, place, dilations, strict=True)]
    if not any(first) and not any(behind) and all(stride == 1 for stride in strides):
        return x
    bounds = [first, [-n or _END for n in behind], list(range(1, axes + 1)), list(strides)]
    return write.add("Slice", x, *(write.ints(*one) for one in bounds))


def _pads(node: Node, image: tuple[int | str | None, ...], size: tuple[int, ...]) -> tuple[int, ...] | None:
    """What is added in front of each axis, then behind each; none where that follows from an open size."""
    axes, auto = len(size), node.get_string("auto_pad", "NOTSET")
    if auto in ("", "NOTSET"):
        return node.get_ints("pads", (0,) * (2 * axes))
    if auto == "VALID":
        return (0,) * (2 * axes)
    strides, dilations = node.get_ints("strides", (1,) * axes), node.get_ints("dilations", (1,) * axes)
    spare = []
    for pixels, k, stride, dilation in zip(image, size, strides, dilations, strict=True):
        reach = (k - 1) * dilation + 1
        if stride == 1:
            spare.append(reach - 1)
        elif isinstance(pixels, int):
            spare.append(max(0, (-(-pixels // stride) - 1) * stride + reach - pixels))
        else:
            return None
    less, more = [n // 2 for n in spare], [n - n // 2 for n in spare]
    return (*less, *more) if auto == "SAME_UPPER" else (*more, *less)
