"""What an edit takes out of a graph as a graph of its own, and how long what would stand for it takes beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ...ir.clone import copy_nodes
from ...ir.cost import cost
from ...ir.graph import Graph, Node, Value
from ...ir.types import TensorType
from ..base import Context
from ..recall import ratio
from .edit import Edit

LIMIT, STRETCH = 0.2, 2e-3
"""Seconds that both are timed in turns, and of one measurement."""

Stand = Callable[[Node], Edit | None]
"""The edit of a node in a copy of the graph."""


def apart(edit: Edit, source: Value, kind: TensorType, stand: Stand) -> tuple[Graph, Graph]:
    """The nodes of `edit`, which reads `source` alone, as a graph from "x" of the type `kind` to "y", and what would
    stand for them, which `stand` finds."""
    graphs = []
    for edited in (False, True):
        whole = edit.node.graph
        assert whole is not None
        part = Graph("part", opsets=whole.opsets)
        twins: dict[Value, Value] = {source: part.add_input("x", kind)}
        copy_nodes(whole, [node for node in whole if node in edit.nodes], part, twins)
        part.add_output(twins[edit.out], "y", None)
        if edited:
            node = twins[edit.out].producer
            twin = None if node is None else stand(node)
            assert twin is not None
            twin.apply(part)
        part.sweep()
        for node in part:
            for value in node.outputs:
                value.type = None
        graphs.append(part)
    return graphs[0], graphs[1]


def share_left(graphs: tuple[Graph, Graph], shape: tuple[int, ...], ctx: Context, of: str, name: str) -> float:
    """What the second of two graphs costs as a share of the first; `shape` is that of what they read for one sample,
    and `name` what the clock is asked about."""
    whole, other = graphs
    if of != "latency":
        return float(getattr(cost(other), of)) / max(float(getattr(cost(whole), of)), 1.0)
    if ctx.latencies is not None:
        return ctx.latencies.ratio(whole, other)
    return ctx.recall(name, lambda: f"{_timed(whole, other, shape, ctx):.3f}", ratio)


def shape_of(graph: Graph, value: Value, ctx: Context) -> tuple[int, ...]:
    """The shape of a value for one sample."""
    from ...runtime.session import Session

    assert ctx.fit is not None
    feeds = next(ctx.fit.batches(1))
    if value.is_input:
        return np.shape(feeds[value.name])
    return tuple(np.shape(Session(graph, outputs=[value], threads=ctx.threads).run(feeds)[0]))


def _timed(whole: Graph, other: Graph, shape: tuple[int, ...], ctx: Context) -> float:
    """How many times as long the second takes as the first."""
    from ...runtime.latency import latency
    from ...runtime.session import Session

    sessions = [Session(graph, threads=ctx.threads) for graph in (whole, other)]
    kind = whole.inputs[0].dtype
    assert kind is not None
    feeds: Mapping[str, object] = {"x": np.random.default_rng(0).standard_normal(shape).astype(kind.numpy)}
    return latency(sessions, feeds, limit=LIMIT, stretch=STRETCH)[1].ratio  # type: ignore[arg-type]
