"""Weights stored small, everything computed with in float (`activations=none`): which of the forms a layer gets.

    weights=float16, bfloat16     `halves.py`
    block=N                       `blocks.py`, and four bits on the walk: `block_walk.py`
    otherwise                     `storage.py`: int8 with a scale a channel; also where four bits were asked for, no
                                  block was, and the reduction is not made of the usual ones

In each the runtime decodes the weights once, when it loads the model, except where it has a kernel that reads codes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from ....ir.types import DType
from ..calibrate import calibrate
from .block_walk import walk_blocks
from .blocks import has_blocks, store_blocks
from .floats import in_halves
from .halves import store_halves
from .storage import store_weights

if TYPE_CHECKING:
    from ....ir.graph import Graph, Value
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
    wide: Callable[[Sequence[Linear]], Collection[Value]],
) -> None:
    """Store the weights of `layers`, which have schemes alike; `report` is told of each. `wide` tells of those with a
    scale a channel which weights are to be float16."""
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
    halves = wide(whole)
    bits = {layer: 16 if layer.weight in halves else 8 for layer in whole}
    for layer, error in store_weights(graph, whole, seen, ctx, schemes, halves).items():
        report.done(layer.name, layer.op, bits=bits[layer], weight_error=round(error, 6))
    if halves:
        report.notes.append(f"weights are stored in int8{in_halves(halves)}")
