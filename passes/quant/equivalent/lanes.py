"""Channels of depthwise convolutions, filled up with zeros to as many as their integer kernel takes at a time.

The kernel works on `lanes` channels at once and on those that are left one by one: 72 take twice as long as 80. So
layers that make such channels get rows of zeros, those that read them columns of zeros, and nothing that is computed
changes: whatever an operator between makes of the new channels is multiplied by zero in the end.

Fires on a depthwise layer where all that makes and reads its channels, through operators that work on each channel by
itself, are convolutions with weights of their own. Not where the filled model would be larger by more than `GROWTH`, or
the layer by more than `LARGEST`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ....ir.graph import Graph, Node, Value
from ....ir.types import TensorType
from ...walk.linear import Linear

BY_CHANNEL = frozenset(
    {
        "Add", "AveragePool", "Clip", "GlobalAveragePool", "HardSigmoid", "Identity", "LeakyRelu", "MaxPool", "Mul",
        "Relu", "Sigmoid",
    }
)  # fmt: skip
"""Operators that make each channel of their output from that channel of their inputs."""
GROWTH = 0.01
"""Share of all weights that may be added."""
LARGEST = 0.25
"""Channels that a layer may get, as a share of its own: where they are few, what makes and reads them would pay."""


@dataclass(slots=True)
class Region:
    """The `values` that hold the same channels, the layers that make them, read them, and do both, one by one."""

    values: dict[Value, None] = field(default_factory=dict)
    makers: dict[Node, Linear] = field(default_factory=dict)
    readers: dict[Node, Linear] = field(default_factory=dict)
    depthwise: dict[Node, Linear] = field(default_factory=dict)

    def added(self, channels: int) -> int:
        """The weights that so many more channels would add."""
        one_more = [layer.channels * _positions(layer) for layer in self.makers.values()]
        one_more += [layer.outputs * _positions(layer) for layer in self.readers.values()]
        one_more += [_positions(layer) for layer in self.depthwise.values()]
        return channels * sum(one_more)


def fill_lanes(graph: Graph, layers: Mapping[Node, Linear], lanes: int) -> int:
    """Fill up the channels of depthwise `layers` to a multiple of `lanes`; returns how many layers that are."""
    most = GROWTH * sum(layer.weight.constant.size for layer in layers.values() if layer.weight.constant is not None)
    filled: set[Node] = set()
    for node, layer in layers.items():
        missing = -layer.outputs % lanes
        if not layer.depthwise or node in filled or not 0 < missing <= LARGEST * layer.outputs:
            continue
        region = _region(layer, layers)
        if region is None or (added := region.added(missing)) > most:
            continue
        most -= added
        filled.update(region.depthwise)
        _fill(region, missing)
    return len(filled)


def _region(layer: Linear, layers: Mapping[Node, Linear]) -> Region | None:
    """All that holds the channels of a depthwise layer; `None` where anything cannot be filled."""
    region, channels = Region(), layer.outputs
    stack = [layer.source, layer.node.output]
    while stack:
        value = stack.pop()
        if value in region.values:
            continue
        shape = value.shape
        if value.is_output or value.producer is None or shape is None or len(shape) < 3 or shape[1] != channels:
            return None
        region.values[value] = None
        for node in dict.fromkeys((value.producer, *value.users)):
            joined = _joined(node, value, region, layers) if isinstance(node, Node) else None
            if joined is None:
                return None
            stack += joined
    return region


def _joined(node: Node, value: Value, region: Region, layers: Mapping[Node, Linear]) -> list[Value] | None:
    """What has the channels of `value` because `node` makes or reads it; `None` where the node does not allow it."""
    layer = layers.get(node)
    if layer is not None:
        if layer.op != "Conv" or not layer.unshared:
            return None
        if layer.depthwise and layer.outputs == layer.groups:
            region.depthwise[node] = layer
            return [layer.source, node.output]
        if layer.groups != 1 or layer.source is node.output:
            return None
        (region.makers if node.output is value else region.readers)[node] = layer
        return []
    if node.domain or node.op not in BY_CHANNEL or len(node.outputs) != 1 or node.bodies:
        return None
    joined = [node.output]
    for read in node.inputs:
        if read is not None and read.constant is None:
            joined.append(read)
        elif read is not None and read.constant is not None and read.constant.size != 1:
            return None
    return joined


def _fill(region: Region, missing: int) -> None:
    for layer in region.makers.values():
        _extend(layer, 0, missing)
    for layer in region.readers.values():
        _extend(layer, 1, missing)
    for layer in region.depthwise.values():
        _extend(layer, 0, missing)
        layer.node.set_attribute("group", layer.groups + missing)
    for value in region.values:
        kind = value.type
        if isinstance(kind, TensorType) and kind.shape is not None and isinstance(channels := kind.shape[1], int):
            value.type = TensorType(kind.dtype, (kind.shape[0], channels + missing, *kind.shape[2:]))


def _extend(layer: Linear, axis: int, missing: int) -> None:
    """Zeros at the end of an axis of a layer's weight, and of its bias where that are its outputs."""
    node = layer.node
    assert node.graph is not None
    for index in (1, 2) if axis == 0 else (1,):
        value = node.input(index)
        if value is not None:
            numbers = np.asarray(value.numpy())
            around = [(0, missing if i == axis else 0) for i in range(numbers.ndim)]
            node.set_input(index, node.graph.constant(np.pad(numbers, around), value.name))


def _positions(layer: Linear) -> int:
    return int(np.prod(layer.kernel, dtype=np.int64))
