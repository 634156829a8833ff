"""Weights of layers whose activations stay float, or find their ranges as the model runs.

The walk (`walk/layerwise.py`) gives each layer its target weights, and those are rounded in the metric of its inputs
(`encoding.py`), as in `reconstruct.py`; here the layers before it are the rounded ones and activations are float.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.graph import Graph, Node
from ..base import Context, Report
from ..walk.layerwise import rewrite
from ..walk.linear import Linear
from .numbers.encoding import Encoded
from .qdq.reconstruct import Rounding, walkable
from .scheme import Schemes


@dataclass(frozen=True, slots=True)
class Narrow:
    """A weight in quantized values of so many bits; `error` is a share of the output's variance."""

    coded: Encoded
    bits: int
    error: float


def round_narrow(
    graph: Graph, layers: Sequence[Linear], ctx: Context, schemes: Schemes, *, fit_biases: bool
) -> dict[Node, Narrow]:
    """Round the weights of `layers` in place, still as floats, and fit their biases if asked to; returns what each
    became.

    Those that cannot be walked (a shared weight, too wide a row) are left out.
    """
    hooks, walked = Rounding(ctx, fit_biases=fit_biases), walkable(layers)
    own = {layer: schemes[layer.node] for layer in walked}
    return {
        one.step.layer.node: Narrow(one.form.packed, own[one.step.layer].bits, one.error)
        for one in rewrite(hooks, graph, walked, own, Report())
    }
