"""Weights stored small, everything computed with in float (`activations=none`): which of the forms a layer gets.

    weights=float16, bfloat16     `halves.py`
    block=N                       `blocks.py`, and four bits on the walk: `block_walk.py`
    otherwise                     `storage.py`: int8 with a scale a channel; also where four bits were asked for, no
                                  block was, and the reduction is not made of the usual ones

In each the runtime decodes the weights once, when it loads the model, except where it has a kernel that reads codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....ir.types import DType
from ..calibrate import calibrate
from .block_walk import walk_blocks
from .blocks import has_blocks, store_blocks
from .halves import store_halves
from .storage import store_weights

if TYPE_CHECKING:
    from ....ir.graph import Graph
    from ...base import Context, Report
    from ...walk.linear import Linear
    from ..scheme import Schemes

INT4_BLOCK = 32
"""Four bits are too few for a whole channel in float; this is the block where none was asked for."""


def store_only(
    graph: Graph,
    layers: Sequence[Linear],
    schemes: Schemes,
    ctx: Context,
    report: Report,
    *,
    fit_biases: bool,
) -> None:
    """Store the weights of `layers`, which have schemes alike; `report` is told of each."""
    scheme = schemes[layers[0].node]
    if scheme.half is not None:
        store_halves(graph, layers, scheme.half, report)
        return
    block = scheme.block or (INT4_BLOCK if scheme.bits == 4 else 0)
    parted = [layer for layer in layers if block and (scheme.block or has_blocks(layer.shape[2], block))]
    whole = [layer for layer in layers if layer not in parted]
    if scheme.bits == 4:
        parted = walk_blocks(graph, parted, ctx, block, report, fit_biases=fit_biases)
    if not parted and not whole:
        return
    seen = calibrate(graph, [], [*parted, *whole], ctx)
    store_blocks(graph, parted, seen, DType.INT4 if scheme.bits == 4 else DType.INT8, block, report)
    for layer, error in store_weights(graph, whole, seen, ctx, schemes).items():
        report.done(layer.name, layer.op, bits=8, weight_error=round(error, 6))
