"""Layers inside the bodies of If, Loop and Scan, which no walk visits.

What arrives there depends on the iteration, or on the branch, and nothing of it is measured. So such a layer is changed
by its weights alone, as if its inputs were white: with H = I in the objective of `target.py`, the error of What is
|W - What|^2 / |W|^2. Pruning is then by magnitude, factoring is the truncated singular value decomposition, and the
bias stays. Products are taken; convolutions inside bodies stay, as do weights that the graph around the body reads too.
"""

from __future__ import annotations

import numpy as np

from ...ir.graph import Graph, Node
from ..base import Skip
from .linear import OPS, Linear, linear_layer
from .target import Target
from .walk import Step


def body_layers(graph: Graph) -> list[Linear]:
    """The products inside bodies of `graph` that can be changed, in its order."""
    layers: list[Linear] = []
    behind: set[Node] = set()
    for node in graph.walk():
        if node.graph is graph or node.domain or node.op not in OPS or node in behind:
            continue
        try:
            layer = linear_layer(node)
        except Skip:
            continue
        if not layer.is_conv:
            layers.append(layer)
            behind.update(reader.node for reader in layer.readers)
    return layers


def white_step(layer: Linear) -> Step:
    """The layer with itself as its target, on white inputs of mean zero."""
    weight, bias = layer.weights(), layer.bias()
    groups, n, d = weight.shape
    target = Target(
        weight,
        np.broadcast_to(np.eye(d), (groups, d, d)).copy(),
        np.zeros((groups, d)),
        np.zeros((groups, n)) if bias is None else bias.reshape(groups, n),
        energy=float(np.sum(weight**2)), floor=0.0, ridge=0.0, damping=0.0, rows=4 * d,
    )  # fmt: skip
    return Step(layer, target, (1, groups * n), disturbed=False)
