"""Weights of layers whose activations stay float, or find their ranges as the model runs.

The walk (`passes/walk/walk.py`) gives each layer its target weights, and those are rounded in the metric of its inputs
(`encoding.py`), as in `reconstruct.py`; here the layers before it are the rounded ones and activations are float.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...ir.graph import Graph
from ..base import Context
from ..walk.walk import walk
from .layers import Layer
from .numbers.encoding import encode_target
from .numbers.params import Grid
from .qdq.reconstruct import walkable

Bits = Callable[[Layer], int]


@dataclass(frozen=True, slots=True)
class Narrow:
    """Codes of a weight in its layer's layout, their grid and width; `error` is a share of the answer's variance."""

    codes: NDArray[np.generic]
    grid: Grid
    bits: int
    error: float
    book: NDArray[np.float64] | None = None
    multiples: NDArray[np.generic] | None = None


def round_narrow(
    graph: Graph,
    layers: Sequence[Layer],
    ctx: Context,
    bits: Bits,
    per_channel: Callable[[Layer], bool],
    *,
    fit_biases: bool,
    codebook: Callable[[Layer], bool],
) -> dict[Layer, Narrow]:
    """Round the weights of `layers` in place, still as floats, and fit their biases if asked to; returns the codes of
    each.

    Those that cannot be walked (a shared weight, too wide a row) are left out.
    """
    found: dict[Layer, Narrow] = {}
    by_linear = walkable(layers)
    for step in walk(graph, ctx, list(by_linear)):
        layer = by_linear[step.layer]
        coded = encode_target(
            layer, step.layer.weights(), step.target, ctx.target, np.zeros(layer.channels),
            bits=bits(layer), per_channel=per_channel(layer), codebook=codebook(layer),
        )  # fmt: skip
        if fit_biases:
            step.settle(coded.weight)
        else:
            step.layer.write(coded.weight, None)
        error = step.target.error(coded.weight)
        found[layer] = Narrow(coded.codes, coded.grid, bits(layer), error, coded.book, coded.multiples)
    return found
