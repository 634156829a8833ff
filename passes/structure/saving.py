"""What it saves to do without some nodes: of the time on the target, of the work, or of the weights.

Time is that of the table where one was given, else as profiled here, node by node; what is left in the end is measured
in whole runs, in turns. Where nothing tells the time, the work stands for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ...ir.cost import cost
from ...ir.graph import Graph, Node, Value
from ...runtime.sizes import sizes
from ..base import Context
from ..recall import count, ratio

LIMIT = 1.0
"""Seconds that two graphs are timed in turns."""


@dataclass(frozen=True, slots=True)
class Saving:
    """The costs of nodes in the unit `of` (latency, macs or params), and their `total` in the graph."""

    of: str
    total: float
    each: Mapping[Node, float]

    @staticmethod
    def in_graph(graph: Graph, ctx: Context, of: str) -> Saving:
        """`of` is a unit, or auto: latency where anything tells it, else macs."""
        if of in ("auto", "latency") and ctx.timed:
            each = _seconds(graph, ctx)
            if each:
                return Saving("latency", sum(each.values()), each)
        unit = "params" if of == "params" else "macs"
        whole = cost(graph, sizes(graph, ctx.fit))
        costs = {node: float(getattr(whole.nodes[node], unit)) for node in graph}
        return Saving(unit, float(getattr(whole, unit)), costs)

    def share(self, nodes: Iterable[Node]) -> float:
        """What nodes cost, as a share of the total."""
        return sum(self.each.get(node, 0.0) for node in nodes) / max(self.total, 1e-30)

    def carried(self, copies: Mapping[Value, Value]) -> Saving:
        """The same for a copy of the graph, whose values `copies` gives."""
        twins = {node: copies[node.output].producer for node in self.each if node.output in copies}
        return replace(self, each={twin: self.each[node] for node, twin in twins.items() if twin is not None})

    def left(self, before: Graph, after: Graph, ctx: Context, what: str) -> float:
        """The cost of `after` as a share of that of `before`. `what` names what is gone."""
        if self.of != "latency":
            old, new = (getattr(cost(one, sizes(one, ctx.fit)), self.of) for one in (before, after))
            return float(new) / max(float(old), 1.0)
        if ctx.latencies is not None:
            return ctx.latencies.ratio(before, after)
        return ctx.recall(f"time without {what}", lambda: f"{_in_turns(before, after, ctx):.4f}", ratio)


def _seconds(graph: Graph, ctx: Context) -> dict[Node, float]:
    """Seconds of each node in one run, none where they cannot be told."""
    if ctx.latencies is not None:
        return dict(ctx.latencies.by_node(graph))
    if ctx.fit is None:
        return {}
    nodes = list(graph)

    def measured() -> str:
        from ...runtime.profile import node_seconds

        assert ctx.fit is not None
        seconds = node_seconds(graph, next(ctx.fit.batches(1)), threads=ctx.threads)
        return " ".join(f"{i}:{seconds[node]:.3g}" for i, node in enumerate(nodes) if node in seconds)

    def read(text: str) -> dict[Node, float]:
        pairs = [one.split(":") for one in text.split()]
        numbers = {count(i): ratio(seconds) for i, seconds in pairs}
        if max(numbers, default=-1) >= len(nodes):
            raise ValueError("there are fewer nodes")
        return {nodes[i]: seconds for i, seconds in numbers.items()}

    return ctx.recall("seconds of nodes", measured, read)


def _in_turns(before: Graph, after: Graph, ctx: Context) -> float:
    from ...runtime.latency import latency
    from ...runtime.session import Session

    assert ctx.fit is not None
    sessions = [Session(graph, threads=ctx.threads) for graph in (before, after)]
    return latency(sessions, next(ctx.fit.batches(1)), limit=LIMIT)[1].ratio
