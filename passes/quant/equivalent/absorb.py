"""Means of channels taken out of an activation and into the biases of those who read it.

    y = W (f(x) ) + b  =  W (f(x) - c) + (b + W c),        f(x) - c = f(x - c)    where f is linear, or Relu and x >= c

One grid must span every channel. Channels that sit far from 0 cost it codes, though a constant holds nothing to be
known: taken out of the bias of the layer that makes them, and put into the biases of the layers that read them, it is
gone. (Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", section 4.1.3,
where c = max(0, mean - 3 deviations) of what a Relu reads.) Here

    in front of a Relu           c = max(0, the least of what was seen and of mean - 3 deviations)
    where no Relu is             c = mean

with both measured. Through sums constants add up, and those of channels are means, so those of the sum are too.

Does not fire where anything else than quantized Conv and Gemm without padding reads the channels (padding is 0, and c
would have to be padded instead), through anything but Add, Relu, Identity, Flatten and pooling, or at graph outputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ....ir.graph import Graph, Node, Value
from ...walk.linear import Linear
from ..calibrate import Seen

Array = NDArray[np.float64]

LEAST = 0.05
"""Share of a channel's own deviation that a mean must be to be worth moving."""


def free_means(layers: Mapping[Node, Linear]) -> dict[Value, Linear]:
    """The answers of `layers` whose means can be moved."""
    return {
        layer.node.output: layer
        for layer in layers.values()
        if _can_make(layer) and not _blocked(layer.node.output, layers, {})
    }


def absorb(graph: Graph, layers: Mapping[Node, Linear], seen: Seen) -> int:
    """Move means of `graph` in place, into the biases of `layers`; returns how many channels'."""
    free = free_means(layers)
    shifts: dict[Value, Array] = {}
    for layer, one in zip(free.values(), seen.channels(dict.fromkeys(free, 1)), strict=True):
        mean, low = one.mean, np.where(np.isinf(one.low), 0.0, one.low)
        with np.errstate(invalid="ignore", over="ignore"):  # what overflows has no mean to move
            deviation = np.sqrt(np.maximum(one.square - mean**2, 0.0))
        if any(user.op == "Relu" for user in layer.node.output.users):
            c = np.maximum(np.minimum(low, mean - 3 * deviation), 0.0)
        else:
            c = np.where(np.abs(mean) > LEAST * deviation, mean, 0.0)
        if np.isfinite(c).all() and c.any():
            shifts[layer.node.output] = c
    count = sum(int(np.count_nonzero(c)) for c in shifts.values())
    if not count:
        return 0
    for value, shift in shifts.items():
        free[value].shift_bias(-shift)
    for node in graph:
        layer_read = layers.get(node)
        if layer_read is not None:
            if layer_read.source in shifts:
                layer_read.shift_bias(_answer(layer_read, shifts[layer_read.source]))
            continue
        terms = [shifts[v] for v in node.inputs if v is not None and v in shifts]
        if terms:
            total = np.asarray(sum(terms))
            if node.op == "Flatten":
                total = np.repeat(total, _positions(node))
            shifts[node.output] = total
    return count


def _can_make(layer: Linear) -> bool:
    return layer.op in ("Conv", "Gemm") and layer.unshared


def _blocked(value: Value, layers: Mapping[Node, Linear], blocked: dict[Value, bool], *, first: bool = True) -> bool:
    """Whether somebody who reads `value`, the answer of a layer at `first`, cannot do without its mean."""
    if value in blocked:
        return blocked[value]
    blocked[value] = value.is_output or not value.uses or any(
        not isinstance(user, Node) or _stops(user, value, layers, blocked, first) for user, _ in value.uses
    )  # fmt: skip
    return blocked[value]


def _stops(node: Node, value: Value, layers: Mapping[Node, Linear], blocked: dict[Value, bool], first: bool) -> bool:
    layer = layers.get(node)
    if layer is not None:
        plain = len(layer.weight.uses) == 1
        return not (layer.source is value and plain and layer.op in ("Conv", "Gemm") and not _padded(node))
    if node.domain or node.bodies:
        return True
    match node.op:
        case "Add":
            shapes = {v.shape for v in (*node.inputs, *node.outputs) if v is not None}
            if len(shapes) != 1 or node.inputs[0] is node.inputs[1]:
                return True
        case "Relu":
            # Of a sum nobody knows beforehand which constants it will lose; and a second reader wants the same one.
            if not first or len(value.uses) != 1:
                return True
        case "MaxPool" | "AveragePool":
            averaged = node.op == "AveragePool" and _padded(node)
            if averaged or any(v.uses for v in node.outputs[1:]) or node.get_int("ceil_mode"):
                return True
        case "Flatten":
            if _positions(node) == 0:
                return True
        case "Identity" | "GlobalAveragePool":
            pass
        case _:
            return True
    return _blocked(node.output, layers, blocked, first=False)


def _padded(node: Node) -> bool:
    return any(node.get_ints("pads", ())) or node.get_string("auto_pad", "NOTSET") not in ("", "NOTSET", "VALID")


def _positions(node: Node) -> int:
    """How many elements of each channel a Flatten lays side by side; 0 where that is open, or it is another Flatten."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    sizes = [d for d in (shape or ())[2:] if isinstance(d, int)]
    open_sized = shape is not None and len(sizes) == len(shape) - 2 and node.get_int("axis", 1) == 1
    return int(np.prod(sizes)) if open_sized else 0


def _answer(layer: Linear, c: Array) -> Array:
    """W c, the answer to a constant input with these channels."""
    groups, n, _ = layer.shape
    summed = layer.weights().reshape(groups, n, layer.channels, -1).sum(axis=3)
    return np.asarray(np.einsum("gnc,gc->gn", summed, c.reshape(groups, -1)).reshape(-1))
