"""Which channels of which activations may be scaled together without changing what the model computes.

For s > 0 the operators here commute with a factor a channel: f(x / s) = f(x) / s. So the rows of the weights that make
a channel may be divided by s if the columns of all weights that read it are multiplied by s. Channels that meet in a
sum, or are the same channel before and after an operator, share one factor: a *class*. A depthwise convolution reads
one class and makes another, because its weight takes up both factors.

Clip passes for homogeneous: who picks the factors keeps s <= 1 and every scaled channel inside the range that its
tensor had before, so that the unscaled bound never bites where the scaled one would not.

Frozen (factor 1): what graph inputs hold, what an operator not listed here reads or makes, what bodies of control flow
capture, outputs of the graph, and channels of layers that are not quantized or share their weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ....ir.channels.flow import FIXED, CannotRemove, Flow, Labels, Rule, operand
from ....ir.graph import Graph, Node, Value
from ....ir.ops import cut
from ...walk.linear import Linear

FROZEN = FIXED
_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Classes:
    """`of` maps a value to the class of each of its channels (axis 1); `count` classes, 0 being the frozen one."""

    of: Mapping[Value, Labels]
    count: int

    def readers(self, layers: Mapping[Node, Linear]) -> list[Linear]:
        """The layers whose input channels may be scaled."""
        return [layer for layer in layers.values() if (self.of.get(layer.source, _NONE) != FROZEN).any()]

    def makers(self, layers: Mapping[Node, Linear]) -> list[Linear]:
        """The layers whose output channels may be scaled."""
        return [layer for layer in layers.values() if (self.of.get(layer.node.output, _NONE) != FROZEN).any()]


def scale_classes(graph: Graph, layers: Mapping[Node, Linear]) -> Classes:
    """The classes of `graph`, whose quantized layers are `layers`."""

    def linear(flow: Flow, node: Node) -> None:
        if node not in layers:
            raise CannotRemove("it is not quantized")
        _linear(flow, layers[node])

    flow = Flow(graph, {**_RULES, **dict.fromkeys(("Conv", "Gemm", "MatMul"), linear)})
    classes, frozen = flow.classes()
    classes[np.isin(classes, list(frozen))] = FROZEN
    distinct, place = np.unique(np.append(classes, FROZEN), return_inverse=True)
    return Classes({value: place[axes[1]] for value, axes in flow.arrays.items()}, len(distinct))


def _channels(flow: Flow, value: Value | None) -> Labels:
    """The labels of axis 1. Raises `CannotRemove` where it has none."""
    labels = None if value is None else flow.arrays.get(value, [None, None])[1]
    if labels is None:
        raise CannotRemove("its channels are not scaled")
    return labels


def _give(flow: Flow, node: Node, labels: Labels) -> None:
    if any(value.uses for value in node.outputs[1:]):
        raise CannotRemove("its second output is read")
    flow.give(node.outputs[0], [None, labels])


def _linear(flow: Flow, layer: Linear) -> None:
    value, node = layer.source, layer.node
    two = layer.op == "Conv" or (value.shape is not None and len(value.shape) == 2)
    if not layer.unshared:
        raise CannotRemove("its weight is shared")
    labels = flow.arrays.get(value, [None, _NONE])[1]
    if not two or labels is None or len(labels) != layer.groups * layer.channels:
        flow.pin_all(value, "it is read along another axis")
    if two and layer.op != "MatMul":
        _give(flow, node, flow.fresh(layer.outputs))


def _same(flow: Flow, node: Node) -> None:
    _give(flow, node, _channels(flow, node.input(0)))


def _add(flow: Flow, node: Node) -> None:
    first, second = (_channels(flow, node.input(i)) for i in (0, 1))
    if len(first) != len(second):
        raise CannotRemove("one operand is repeated")
    flow.unify(first, second)
    _give(flow, node, first)


def _concat(flow: Flow, node: Node) -> None:
    if node.get_int("axis") != 1:
        raise CannotRemove("it joins another axis")
    _give(flow, node, np.concatenate([_channels(flow, value) for value in node.inputs]))


def _flatten(flow: Flow, node: Node) -> None:
    x = operand(node)
    sizes = [size for size in (x.shape or ())[2:] if isinstance(size, int)]
    if x.shape is None or node.get_int("axis", 1) != 1 or len(sizes) != len(x.shape) - 2:
        raise CannotRemove("its sizes are not known")
    _give(flow, node, np.repeat(_channels(flow, x), int(np.prod(sizes))))


def _slice(flow: Flow, node: Node) -> None:
    labels = _channels(flow, node.input(0))
    starts, ends, axes, steps = (None if v is None else v.numpy() for v in map(node.input, (1, 2, 3, 4)))
    if node.input(4) is None and starts is not None:
        steps = np.ones_like(starts)
    arrays = [array for array in (starts, ends, axes, steps) if array is not None]
    if len(arrays) != 4:
        raise CannotRemove("its bounds are not known")
    for begin, end, axis, step in zip(*(array.tolist() for array in arrays), strict=True):
        if axis <= 0:
            raise CannotRemove("it cuts along the batch, or an axis counted from behind")
        if axis == 1:
            labels = labels[cut(begin, end, step, len(labels))]
    _give(flow, node, labels)


def _pad(flow: Flow, node: Node) -> None:
    """Zeros that are padded on have any factor."""
    labels = _channels(flow, node.input(0))
    pads, fill, axes = node.input(1), node.input(2), node.input(3)
    sizes = None if pads is None else pads.numpy()
    filled = 0.0 if fill is None else fill.numpy()
    plain = axes is None and node.get_string("mode", "constant") == "constant"
    if sizes is None or filled is None or np.any(filled) or not plain:
        raise CannotRemove("it does not pad by zeros")
    half = len(sizes) // 2
    if sizes[0] or sizes[half] or min(sizes[1], sizes[half + 1]) < 0:
        raise CannotRemove("it pads the batch, or cuts channels")
    _give(flow, node, np.concatenate([flow.fresh(int(sizes[1])), labels, flow.fresh(int(sizes[half + 1]))]))


_SAME = ("Relu", "LeakyRelu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Dropout")
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME, _same), "Add": _add, "Concat": _concat, "Flatten": _flatten, "Slice": _slice, "Pad": _pad,
}  # fmt: skip
