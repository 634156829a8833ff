"""Raising the opset of a model to what a pass writes, and making sure that it answers as before."""

from __future__ import annotations

from ..errors import ModelError, TargetError
from ..ir.graph import Graph
from ..ir.onnx.opset import convert
from ..ir.ops import RANDOM
from ..runtime.agreement import agreement
from .base import Context
from .clean.fold import constants

SAMPLES = 8
"""Samples that are answered before and after."""
ALIKE = 0.999
"""The agreement that a conversion leaves: operators are spelled in another way, and sums may round in another order."""


def raise_opset(graph: Graph, least: int, ctx: Context) -> None:
    """Bring `graph` to opset `least` where it is below; one without a version stays.

    onnx's adapters do not keep all that operators mean, so some of the samples are answered by both where there are
    any, nothing is drawn at random, and the runtime takes the old model.

    Raises `ModelError` where onnx cannot convert it, or what it converts answers otherwise.
    """
    opset = graph.opset()
    if not 0 < opset < least:
        return
    before = graph.clone()
    convert(graph, least)
    constants(graph)  # attributes became inputs, which the converter makes by nodes
    if ctx.fit is None or not ctx.fit.count or any(node.op in RANDOM for node in before.walk()):
        return
    try:
        outcome = agreement(before, graph, ctx.fit.take(SAMPLES, ctx.seed), threads=ctx.threads)
    except TargetError:
        return  # too old for this runtime
    if outcome.share < ALIKE:
        raise ModelError(
            f"the model is at opset {opset}, and what onnx makes of it at opset {least} answers otherwise "
            f"(agreement {outcome.share:.4f}); export it at opset {least} or later"
        )
