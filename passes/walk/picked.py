"""Rows of a value picked inside of a graph, so that what is not picked never leaves it.

A convolution of ONNX Runtime holds its channels in blocks, and whoever cannot read these has its answer written out.
That is as soon done with the channels of a position side by side, and then a position is picked as one piece of memory,
not as a number of each channel (64 positions of all convolutions of MobileNetV2: 1.5 ms a sample instead of 10). Where
somebody else has the answer written out anyway, a second copy would cost what that saves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...ir.graph import Graph, Value

BLOCKED = frozenset(
    {"Conv", "Relu", "Sigmoid", "Tanh", "Add", "Sum", "Mul", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool",
     "GlobalMaxPool", "BatchNormalization"}
)  # fmt: skip
"""Operators that read channels in blocks as they are."""


def picked(graph: Graph, value: Value, sizes: Sequence[int], at: Value) -> Value:
    """What stands in `value` (samples, channels, *`sizes`) at the flat positions `at`: (samples, positions, channels).
    Adds nodes to `graph`."""
    maker = value.producer
    decoded = maker is not None and maker.op == "DequantizeLinear"
    if decoded or not all(user.op in BLOCKED for user in value.users):  # written out anyway, positions side by side
        sites = graph.add("Reshape", [value, graph.constant(np.asarray([0, 0, -1], np.int64))]).output
        some = graph.add("Gather", [sites, at], {"axis": 2}).output
        return graph.add("Transpose", [some], {"perm": [0, 2, 1]}).output
    last = graph.add("Transpose", [value], {"perm": [0, *range(2, 2 + len(sizes)), 1]}).output
    flat = graph.constant(np.asarray([0, math.prod(sizes), -1], np.int64))
    return graph.add("Gather", [graph.add("Reshape", [last, flat]).output, at], {"axis": 1}).output
