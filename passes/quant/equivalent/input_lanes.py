"""Channels of what a model's first convolutions read, filled up with zeros to as many as their integer kernel takes.

The kernel takes `lanes` input channels at a time and no others: a layer that reads three colours is written out as a
matrix of all its patches and multiplied, in one and a half to three times the time of a layer that reads four channels.
So the input gets channels of zeros, by a Pad, which moves codes, and the weights columns of zeros. Exact.

    Conv(x; W)  ->  Conv(Pad(x); (W 0))

Fires on a Conv over two axes, in one group, that reads no layer's answer and nothing transposed: what layers make, and
images whose channels come last, lie in the order of the kernel, in which channels are dear to add. Not where the kernel
has more than `POSITIONS` places, where outputs are fewer than `OUTPUTS` or no multiple of `lanes`, where the image has
fewer than `PLACES` places, or where more than `GROWTH` of all weights were added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ....ir.graph import Graph, Node, Value
from ....ir.origin import Origin
from ....ir.types import TensorType
from ...walk.linear import Linear
from ..layers import WEIGHTED
from .lanes import GROWTH

POSITIONS = 25
"""Of a kernel, at most: over more of them, the products with zeros cost what the kernel gains."""
OUTPUTS = 16
CODES_SINCE = 13
"""The first opset in which a Pad moves codes."""
PLACES = 784
"""Of an image whose sizes are fixed, at least: on fewer a Pad costs more than it gains."""


def fill_inputs(graph: Graph, layers: Mapping[Node, Linear], lanes: int) -> int:
    """Fill up the channels that the first of `layers` read to a multiple of `lanes`; returns how many layers did."""
    if graph.opset() < CODES_SINCE:
        return 0
    most = GROWTH * sum(layer.weight.constant.size for layer in layers.values() if layer.weight.constant is not None)
    padded: dict[Value, Value] = {}
    count = 0
    for layer in layers.values():
        added = -layer.channels % lanes * layer.outputs * math.prod(layer.kernel)
        if not 0 < added <= most or not _takes(layer, lanes) or not _is_given(layer.source):
            continue
        source = layer.source
        if source not in padded:
            padded[source] = _pad(graph, layer, -layer.channels % lanes)
        layer.node.set_input(0, padded[source])
        weight = np.asarray(layer.weight.numpy())
        around = [(0, 0), (0, -weight.shape[1] % lanes), (0, 0), (0, 0)]
        layer.node.set_input(1, graph.constant(np.pad(weight, around), layer.weight.name))
        most -= added
        count += 1
    return count


def _takes(layer: Linear, lanes: int) -> bool:
    """Whether the kernel takes the layer, once its input is filled."""
    if layer.op != "Conv" or layer.groups != 1 or len(layer.kernel) != 2 or not layer.unshared:
        return False
    sizes = (layer.source.shape or ())[2:]
    fixed = [size for size in sizes if isinstance(size, int)]
    large = len(fixed) < len(sizes) or math.prod(fixed) >= PLACES
    return large and layer.outputs >= OUTPUTS and not layer.outputs % lanes and math.prod(layer.kernel) <= POSITIONS


def _is_given(value: Value) -> bool:
    """Whether `value` is an input of the model, or what is made of one in its order, with no layer between."""
    seen, stack = {value}, [value]
    while stack:
        maker = stack.pop().producer
        if maker is None:
            continue
        if maker.op in WEIGHTED or maker.op == "Transpose" or maker.bodies:
            return False
        new = [read for read in maker.inputs if read is not None and read not in seen]
        seen.update(new)
        stack += new
    return True


def _pad(graph: Graph, layer: Linear, missing: int) -> Value:
    source, shape = layer.source, layer.source.shape
    pads = graph.constant(np.asarray([0, 0, 0, 0, 0, missing, 0, 0], np.int64), "pads")
    kind = source.type
    if isinstance(kind, TensorType) and shape is not None:
        kind = TensorType(kind.dtype, (shape[0], layer.channels + missing, *shape[2:]))
    return graph.add(
        "Pad", [source, pads], outputs=[f"{source.name}_filled"], types=[kind],
        origin=Origin.merge([layer.node.origin], "quant"), before=layer.node,
    ).output  # fmt: skip
