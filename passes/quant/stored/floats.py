"""What stays float in a quantized graph, and why: layers that do not pay, and islands between integer kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ..calibrate import calibrate
from .storage import store_weights

if TYPE_CHECKING:
    from ....ir.graph import Graph, Value
    from ...base import Context, Report
    from ...walk.linear import Linear
    from ..scheme import Schemes


def leave_float(
    graph: Graph,
    reasons: Mapping[Linear, str],
    schemes: Schemes,
    ctx: Context,
    report: Report,
    why: str,
    wide: Collection[Value] = (),
) -> None:
    """Store the weights of layers in int8, those of `wide` as float16, to be computed with in float; say of each its
    reason, and `why` of all."""
    layers = list(reasons)
    bits = {layer: 16 if layer.weight in wide else 8 for layer in layers}
    store_weights(graph, layers, calibrate(graph, [], layers, ctx), ctx, schemes, wide)
    for layer, reason in reasons.items():
        report.skipped(layer.name, layer.op, reason, weight_bits=bits[layer])
    report.notes.append(
        f"{len(layers)} layer(s) run in float, {why}; their weights are stored in int8{in_halves(wide)}"
    )


def in_halves(wide: Collection[Value]) -> str:
    """What a report adds of weights that have 16 bits."""
    return f", {len(wide)} of them as float16, since a mask needs them so" if wide else ""


def report_islands(graph: Graph, report: Report) -> None:
    """Tell of the float operators that are left between integer kernels, as ONNX Runtime's optimised graph has it."""
    from ....runtime.islands import islands

    between = islands(graph)
    for island in between:
        report.skipped(island.name, island.op, island.why, island=True)
    if between:
        kinds = ", ".join(f"{count} {op}" for op, count in Counter(i.op for i in between).most_common(5))
        more = ", ..." if len({i.op for i in between}) > 5 else ""
        report.notes.append(f"{len(between)} float operator(s) run between integer kernels: {kinds}{more}")
