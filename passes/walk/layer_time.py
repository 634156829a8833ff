"""How long another form of a layer takes, against the layer as it is, both run alone on this machine.

Fewer multiply-accumulates are not less time: thin factors, depthwise filters and odd channel counts use a kernel badly,
and every further node moves its tensor through memory once more. The layer and the form that stands for it are each cut
out as a graph of their own and run in turns on one sample's input, for some ten milliseconds. What both have in
common, such as the change of layout before and behind, falls out of the comparison.

Layers alike (operator, sizes, attributes) and forms alike are measured once for all builds (`Context.measure`); what
was found is recorded (`Context.recall`), so that a build can be repeated. A table of latencies says it without a run.
Not measured: where the target is not this machine, and where nothing is known of the input's size; there fewer
multiply-accumulates have to do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...ir.clone import copy_nodes
from ...ir.graph import Graph, Value
from ...ir.types import DType, TensorType
from ..base import Context
from ..recall import ratio
from .linear import Linear
from .readers import linear_layer
from .walk import Step

LIMIT, STRETCH = 0.015, 5e-4
"""Seconds that a comparison may take beyond its fewest rounds, and of one measurement in it."""


def time_ratio(step: Step, ctx: Context, form: str, apply: Callable[[Linear], None]) -> float | None:
    """How many times as long the layer of `step` takes in the form that `apply` gives it; `None` where nothing tells.

    `form` names it with its ranks; `apply` is handed a copy of the layer in a graph of its own. Raises `TargetError`
    where the form does not run.
    """
    if not ctx.timed or not step.input:
        return None
    if ctx.latencies is not None:
        whole, _ = _cut_out(step)
        other, layer = _cut_out(step)
        apply(layer)
        return ctx.latencies.ratio(whole, other)
    question = f"time of {form} for {_kind(step)}"

    def measured() -> str:
        return ctx.measure(question, lambda: f"{_measured(step, ctx, apply):.3f}", ratio)

    return ctx.recall(question, measured, ratio)


def slower(ratio: float | None) -> bool:
    """Whether a form takes more time than the layer; one that takes as much still stores less."""
    return ratio is not None and ratio > 1.0


def _kind(step: Step) -> str:
    """What decides about the time of a layer."""
    layer = step.layer
    attributes = {name: attribute.value for name, attribute in sorted(layer.node.attributes.items())}
    size = layer.weight.constant.shape if layer.weight.constant else ()
    size = size[::-1] if layer.turn is not None else size
    return f"{layer.op} {list(size)} on {list(step.input)} {attributes}"


def _measured(step: Step, ctx: Context, apply: Callable[[Linear], None]) -> float:
    from ...runtime.latency import latency
    from ...runtime.session import Session

    whole, _ = _cut_out(step)
    other, layer = _cut_out(step)
    apply(layer)
    sessions = [Session(graph, threads=ctx.threads) for graph in (whole, other)]
    data = np.random.default_rng(0).standard_normal(step.input).astype(step.layer.dtype)
    return latency(sessions, {"x": data}, limit=LIMIT, stretch=STRETCH, border=1.0)[1].ratio


def _cut_out(step: Step) -> tuple[Graph, Linear]:
    """The layer, with the Add of its bias, as a graph from "x" to "y"; and the layer in it."""
    layer, source = step.layer, step.layer.node.graph
    assert source is not None
    part = Graph("layer", opsets=source.opsets)
    twins: dict[Value, Value] = {layer.source: part.add_input("x", TensorType(DType.of(layer.dtype), step.input))}
    nodes = [node for node in (layer.turn, layer.node, layer.add) if node is not None]
    copy_nodes(source, nodes, part, twins)
    for node in part:
        for value in node.outputs:
            value.type = None
    part.add_output(twins[layer.output], "y", TensorType(DType.of(layer.dtype), None))
    part.sweep()
    twin = twins[layer.node.output].producer
    assert twin is not None
    return part, linear_layer(twin)
