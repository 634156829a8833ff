"""Weights of layers whose activations stay float, or find their ranges as the model runs.

The walk (`passes/walk/walk.py`) gives each layer its target weights, and those are rounded in the metric of its inputs
(`encoding.py`), as in `reconstruct.py`; here the layers before it are the rounded ones and activations are float.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.graph import Graph, Node
from ..base import Context
from ..walk.linear import Linear
from ..walk.walk import walk
from .numbers.encoding import Encoded
from .qdq.reconstruct import encode_layer, walkable
from .scheme import Schemes


@dataclass(frozen=True, slots=True)
class Narrow:
    """A weight in codes of so many bits; `error` is a share of the answer's variance."""

    coded: Encoded
    bits: int
    error: float


def round_narrow(
    graph: Graph,
    layers: Sequence[Linear],
    ctx: Context,
    schemes: Schemes,
    *,
    fit_biases: bool,
) -> dict[Node, Narrow]:
    """Round the weights of `layers` in place, still as floats, and fit their biases if asked to; returns the codes of
    each.

    Those that cannot be walked (a shared weight, too wide a row) are left out.
    """
    rounded: dict[Node, Narrow] = {}
    for step in walk(graph, ctx, walkable(layers)):
        layer, least = step.layer, np.zeros(step.layer.outputs)
        coded = encode_layer(step, ctx.target, least, schemes[layer.node])
        if fit_biases:
            step.settle(coded.weight)
        else:
            layer.write(coded.weight, None)
        rounded[layer.node] = Narrow(coded, schemes[layer.node].bits, step.target.error(coded.weight))
    return rounded
