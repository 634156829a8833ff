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
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ....ir.graph import Graph, Node, Value
from ...walk.linear import Linear

Labels = NDArray[np.int64]

FROZEN = 0
SPATIAL = frozenset(
    {"Relu", "LeakyRelu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Dropout"}
)  # fmt: skip


@dataclass(slots=True)
class Classes:
    """`of` maps a value to the class of each of its channels (axis 1); `count` classes, 0 being the frozen one."""

    of: dict[Value, Labels] = field(default_factory=dict)
    count: int = 1

    def readers(self, layers: Mapping[Node, Linear]) -> list[Linear]:
        """The layers whose input channels may be scaled."""
        return [layer for layer in layers.values() if (self.of.get(layer.source, _NONE) != FROZEN).any()]

    def makers(self, layers: Mapping[Node, Linear]) -> list[Linear]:
        """The layers whose output channels may be scaled."""
        return [layer for layer in layers.values() if (self.of.get(layer.node.output, _NONE) != FROZEN).any()]


_NONE = np.zeros(0, np.int64)


def scale_classes(graph: Graph, layers: Mapping[Node, Linear]) -> Classes:
    """The classes of `graph`, whose quantized layers are `layers`."""
    flow = _Flow(graph, layers)
    for node in graph:
        flow.visit(node)
    for output in graph.outputs:
        flow.freeze(output.value)
    return flow.result()


class _Flow:
    def __init__(self, graph: Graph, layers: Mapping[Node, Linear]) -> None:
        self._graph = graph
        self._layers = layers
        self._labels: dict[Value, Labels] = {}
        self._parent = [FROZEN]

    def visit(self, node: Node) -> None:
        layer = self._layers.get(node)
        if layer is not None:
            self._layer(layer)
            return
        labels = None if node.domain or node.bodies else self._pass(node)
        if labels is None:
            for value in (*node.inputs, *node.captures):
                if value is not None:
                    self.freeze(value)
        else:
            self._labels[node.outputs[0]] = labels
            for value in node.outputs[1:]:
                if value.uses:
                    self.freeze(node.outputs[0])

    def freeze(self, value: Value) -> None:
        for label in self._labels.get(value, ()):
            self._join(FROZEN, int(label))

    def result(self) -> Classes:
        roots = np.asarray([self._find(i) for i in range(len(self._parent))])
        distinct = np.unique(np.append(roots, FROZEN))
        place = np.searchsorted(distinct, roots)
        return Classes({v: place[labels] for v, labels in self._labels.items()}, len(distinct))

    def _layer(self, layer: Linear) -> None:
        value = layer.source
        rank = None if value.shape is None else len(value.shape)
        channels, plain = layer.groups * layer.channels, layer.unshared
        if not plain or (layer.op != "Conv" and rank != 2) or len(self._labels.get(value, _NONE)) != channels:
            self.freeze(value)
        if plain and layer.op != "MatMul" and (layer.op == "Conv" or rank == 2):
            self._labels[layer.node.output] = self._fresh(layer.outputs)

    def _pass(self, node: Node) -> Labels | None:
        """The labels of the output of an operator that scales as its inputs do, or `None`."""
        x = node.input(0)
        labels = None if x is None else self._labels.get(x)
        match node.op:
            case op if op in SPATIAL:
                return labels
            case "Add":
                other = node.input(1)
                second = None if other is None else self._labels.get(other)
                if labels is None or second is None or len(labels) != len(second):
                    return None
                for a, b in zip(labels, second):
                    self._join(int(a), int(b))
                return labels
            case "Concat":
                if node.get_int("axis") != 1:
                    return None
                parts = [self._labels.get(v) if v is not None else None for v in node.inputs]
                return None if any(p is None for p in parts) else np.concatenate([p for p in parts if p is not None])
            case "Flatten":
                if labels is None or x is None or x.shape is None or node.get_int("axis", 1) != 1:
                    return None
                sizes = [d for d in x.shape[2:] if isinstance(d, int)]
                return np.repeat(labels, int(np.prod(sizes))) if len(sizes) == len(x.shape) - 2 else None
            case "Slice":
                return None if labels is None else self._slice(node, labels)
            case "Pad":
                return None if labels is None else self._pad(node, labels)
        return None

    def _slice(self, node: Node, labels: Labels) -> Labels | None:
        bounds = [None if v is None else v.numpy() for v in (node.input(1), node.input(2), node.input(3))]
        if any(f is None for f in bounds):
            return None
        steps = node.input(4)
        stride = np.ones(len(bounds[0]), np.int64) if steps is None else steps.numpy()  # type: ignore[arg-type]
        if stride is None:
            return None
        for begin, end, axis, step in zip(*(f.tolist() for f in bounds if f is not None), stride.tolist()):
            if axis == 0 or axis < 0:
                return None
            if axis == 1:
                labels = labels[slice(begin, end, step)]
        return labels

    def _pad(self, node: Node, labels: Labels) -> Labels | None:
        """Zeros that are padded on have any factor."""
        pads, fill, axes = node.input(1), node.input(2), node.input(3)
        sizes = None if pads is None else pads.numpy()
        filled = 0.0 if fill is None else fill.numpy()
        if sizes is None or filled is None or np.any(filled) or axes is not None:
            return None
        if node.get_string("mode", "constant") != "constant":
            return None
        before, after = int(sizes[1]), int(sizes[len(sizes) // 2 + 1])
        if before < 0 or after < 0 or sizes[0] or sizes[len(sizes) // 2]:
            return None
        return np.concatenate([self._fresh(before), labels, self._fresh(after)])

    def _fresh(self, count: int) -> Labels:
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count, dtype=np.int64)

    def _find(self, label: int) -> int:
        while self._parent[label] != label:
            self._parent[label] = self._parent[self._parent[label]]
            label = self._parent[label]
        return label

    def _join(self, a: int, b: int) -> None:
        first, second = sorted((self._find(a), self._find(b)))
        self._parent[second] = first
