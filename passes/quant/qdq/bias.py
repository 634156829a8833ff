"""Bias correction: each layer's answer gets the mean that the float model's answer has, channel by channel.

Rounding weights and clipping activations shift means, and a shift, unlike noise, survives every average after it.
Layers are corrected in order, each from what the corrected layers before it now really produce:

    b_l += E[y_l] - E[y^_l]          (docs/algorithms.md, eq. 2: the optimum for given weights)

The quantized graph is run once over the samples, up to each layer in turn, so the cost does not grow with the depth.

Not corrected: a MatMul whose answer is not plainly shifted by a constant vector; an answer that is not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ....ir.clone import copy_nodes
from ....ir.graph import Graph, Node, Value
from ....ir.types import DType, TensorType
from ....runtime.parallel import threads_each
from ...base import Context
from ...walk.frontier import Frontier
from ...walk.linear import Linear
from ..calibrate import channel_statistics

if TYPE_CHECKING:
    from ....runtime.samples import Samples
    from ....storage.spill import Data

Means = NDArray[np.float64]

BATCH = 8
SAMPLES = 64
"""More change nothing: means over positions, of the same samples on both sides, settle early."""


def answer_means(graph: Graph, layers: Sequence[Linear], ctx: Context, samples: Samples) -> list[Means]:
    """The mean of every layer's answer over all but its channel axis, (channels,) each."""
    axes = {layer.node.output: 1 if layer.op == "Conv" else -1 for layer in layers}
    return [one.mean for one in channel_statistics(graph, axes, ctx, "averaging", samples)] if layers else []


def correct(
    graph: Graph, layers: Sequence[Linear], means: Sequence[Means], ctx: Context, samples: Samples
) -> list[float]:
    """Correct `layers` of the quantized `graph`, given in graph order, towards `means`; biases are float constants.

    Returns for each layer the size of its correction, relative to the root mean square of its channel means.
    """
    from ....storage.spill import Spill

    sizes = []
    with Spill() as live, ctx.progress.task("correcting biases", len(layers)) as advance:
        frontier = Frontier(graph, samples, BATCH, live, ctx.threads, exact=ctx.exact)
        for layer, mean in zip(layers, means):
            source = layer.source
            total, count = np.zeros(len(mean)), 0
            for rows in frontier.advance([source], _answer(graph, layer, source, ctx)):
                total += rows.sum(axis=0, dtype=np.float64)
                count += len(rows)
            shift = mean - total / max(count, 1)
            if np.isfinite(shift).all():
                layer.shift_bias(shift)
            sizes.append(float(np.linalg.norm(shift) / max(float(np.linalg.norm(mean)), 1e-30)))
            advance(1)
    return sizes


def correctable(layer: Linear) -> bool:
    return layer.op != "MatMul" or layer.add is not None


def _answer(
    graph: Graph, layer: Linear, source: Value, ctx: Context
) -> Callable[[int, Mapping[Value, Data]], NDArray[np.generic]]:
    """From the input of a layer, `source`, to its answer as rows; that of a Conv is averaged over positions before."""
    from ....runtime.session import Session

    node = layer.node
    part = Graph(graph.name, opsets=graph.opsets)
    part.header = graph.header
    twins: dict[Value, Value] = {source: part.add_input("x", TensorType(DType.FLOAT))}
    copy_nodes(graph, [*_makers(node.inputs[1:]), node], part, twins)
    answer = twins[node.output]
    if layer.op == "Conv":
        answer.type = None
        answer = part.add("GlobalAveragePool", [answer]).output
    answer.type = TensorType(DType.FLOAT)
    session = Session(part, outputs=[answer], threads=threads_each(ctx.threads), exact=ctx.exact)
    return lambda batch, values: _rows(session.run({"x": values[source]})[0], layer)


def _makers(values: Sequence[Value | None]) -> list[Node]:
    """The nodes that make `values`, in order."""
    makers: dict[Node, None] = {}
    for value in values:
        if value is not None and value.producer is not None:
            makers.update(dict.fromkeys((*_makers(value.producer.inputs), value.producer)))
    return list(makers)


def _rows(answer: NDArray[np.generic], layer: Linear) -> NDArray[np.generic]:
    """An answer as (rows, channels)."""
    return np.moveaxis(answer, 1 if layer.op == "Conv" else -1, -1).reshape(-1, layer.outputs)
