"""Weights stored small, everything computed with in float (`activations=none`): which of the forms a layer gets.

    weights=float16, bfloat16     `halves.py`
    block=N                       `blocks.py`
    otherwise                     `storage.py`: int8 with a scale a channel

In each the runtime decodes the weights once, when it loads the model, except where it has a kernel that reads codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...ir.types import DType
from .blocks import store_blocks
from .calibrate import calibrate
from .halves import store_halves
from .storage import store_weights

if TYPE_CHECKING:
    from ...ir.graph import Graph
    from ..base import Context, Report
    from .layers import Layer
    from .quant import Quant

INT4_BLOCK = 32
"""Four bits are too few for a whole channel in float; this is the block where none was asked for."""


def store_only(
    graph: Graph,
    layers: Sequence[Layer],
    one: Quant,
    ctx: Context,
    per_channel: Callable[[Layer], bool],
    report: Report,
) -> None:
    """Store the weights of `layers` as `one` says; `report` is told of each."""
    if one.weights in ("float16", "bfloat16"):
        store_halves(graph, layers, DType[one.weights.upper()], report)
        return
    seen = calibrate(graph, [], layers, ctx)
    block = one.block or (INT4_BLOCK if one.weights == "int4" else 0)
    if block:
        store_blocks(graph, layers, seen, DType[one.weights.upper()], block, report)
        return
    for layer, error in store_weights(graph, layers, seen, ctx, per_channel).items():
        report.done(layer.name, layer.op, bits=8, error=round(error, 6))
