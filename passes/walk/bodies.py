"""Layers inside the bodies of If, Loop and Scan, which no walk visits.

What arrives there depends on the iteration, or on the branch, and nothing of it is measured. So such a layer is changed
by its weights alone, as if its inputs were white: with H = I in the objective of `target.py`, the error of What is
|W - What|^2 / |W|^2. Pruning is then by magnitude, factoring is the truncated singular value decomposition, and the
bias stays. Weights that a layer of the graph around the body reads, too, are changed with that layer.
"""

from __future__ import annotations

import numpy as np

from ...ir.graph import Graph, Node
from ..base import Skip
from .linear import OPS, Linear
from .readers import linear_layer
from .target import LayerTarget
from .walk import Step


def body_layers(graph: Graph) -> list[Linear]:
    """The layers inside bodies of `graph` that can be changed, in its order; a weight that a layer of `graph` reads,
    too, is that layer's."""
    layers: list[Linear] = []
    behind: set[Node] = set()
    for node in graph.walk():
        if node.graph is graph or node.domain or node.op not in OPS or node in behind:
            continue
        try:
            layer = linear_layer(node)
        except Skip:
            continue
        others = [other.node for other in layer.others]
        if not any(other.graph is graph and other.op in OPS for other in others):
            layers.append(layer)
            behind.update(others, (reader.node for reader in layer.readers))
    return layers


def white_step(layer: Linear) -> Step:
    """The layer with itself as its target, on white inputs of mean zero."""
    weight, bias = layer.weights(), layer.bias()
    groups, n, d = weight.shape
    target = LayerTarget(
        weight,
        np.broadcast_to(np.eye(d), (groups, d, d)).copy(),
        np.zeros((groups, d)),
        np.zeros((groups, n)) if bias is None else bias.reshape(groups, n),
        energy=float(np.sum(weight**2)), floor=0.0, ridge=0.0, damping=0.0, rows=4 * d,
    )  # fmt: skip
    strides = layer.strides if layer.is_conv else ()
    # One position after striding; a transposed convolution makes as many of one as it strides.
    sizes = strides if layer.transposed else (1,) * len(strides)
    return Step(layer, target, (1, groups * n, *sizes), disturbed=False)
