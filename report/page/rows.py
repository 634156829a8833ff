"""One row a layer: a node of the original, with what became of it.

Nodes of the result are counted at the node of the original that their origin names (the one that multiplies most, where
there are several), so the two dequantizers and the convolution that quantization makes of one convolution are one row.
What comes from nowhere, such as a quantizer of the graph's input, gets a row of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...ir.cost import NodeCost, cost
from ...ir.graph import Graph
from ...ir.node import Node
from ...passes.base import Layer
from ..build import BuildReport


@dataclass(slots=True)
class PartCost:
    """What the nodes of one layer cost in one graph: stored bytes (shared constants at each reader), multiply-
    accumulates, and seconds of one run where they were measured. `work` are the nodes that multiply."""

    nodes: list[Node] = field(default_factory=list)
    work: list[Node] = field(default_factory=list)
    bytes: int = 0
    macs: int = 0
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Fate:
    """What one pass, by its name and its place in the build's steps, did to a layer."""

    step: int
    name: str
    layer: Layer


@dataclass(slots=True)
class PageRow:
    """One layer. `snr_db` tells how far the result's value here is from the original's; `None` where none compares."""

    index: int
    name: str
    op: str
    before: PartCost = field(default_factory=PartCost)
    after: PartCost = field(default_factory=PartCost)
    fates: list[Fate] = field(default_factory=list)
    snr_db: float | None = None

    @property
    def changed(self) -> bool:
        """Whether a pass says that it changed this layer, or left its mark on a node of it, or it is not in both."""
        return (
            any(fate.layer.outcome.value == "done" for fate in self.fates)
            or any(node.origin.passes for node in self.after.nodes)
            or bool(self.before.nodes) != bool(self.after.nodes)
        )


@dataclass(frozen=True, slots=True)
class PageRows:
    """All rows, in the original's order, and where to find that of a node of either graph."""

    all: tuple[PageRow, ...]
    of: Mapping[Node, PageRow]


def title(node: Node) -> str:
    """What a node is called: its name, or that of its first output."""
    return node.name or (node.outputs[0].name if node.outputs else "") or node.op


def rows(original: Graph, result: Graph, report: BuildReport, dims: Mapping[str, int]) -> PageRows:
    """Join both graphs, which stay as they are, and the report of the passes. Raises `ModelError` where shape
    inference does."""
    table = _Table()
    costs = cost(original, dims).nodes
    for node in original:
        row = table.add(title(node), node.op)
        for name in (row.name, *node.origin.nodes):
            table.by_name.setdefault(name, row)
        table.of[node] = row
        _count(row.before, node, costs[node])
    costs = cost(result, dims).nodes
    for node in result:
        table.of[node] = row = table.origin(node)
        _count(row.after, node, costs[node])
    for step, one in enumerate(report.steps):
        for layer in one.report.layers:
            entry = table.by_name.get(layer.name)
            if entry is None:
                entry = table.by_name[layer.name] = table.add(layer.name, layer.op)
            entry.fates.append(Fate(step, one.name, layer))
    return PageRows(tuple(table.rows), table.of)


def count_seconds(rows: PageRows, seconds: Mapping[Node, float], *, after: bool) -> None:
    """Enter measured times of the nodes of one of the graphs."""
    for node, taken in seconds.items():
        part = rows.of[node].after if after else rows.of[node].before
        part.seconds = (part.seconds or 0.0) + taken


def _count(part: PartCost, node: Node, cost: NodeCost) -> None:
    part.nodes.append(node)
    if cost.macs:
        part.work.append(node)
    part.bytes += cost.bytes
    part.macs += cost.macs


class _Table:
    """The rows so far."""

    def __init__(self) -> None:
        self.rows: list[PageRow] = []
        self.by_name: dict[str, PageRow] = {}
        self.of: dict[Node, PageRow] = {}

    def add(self, name: str, op: str) -> PageRow:
        row = PageRow(len(self.rows), name, op)
        self.rows.append(row)
        return row

    def origin(self, node: Node) -> PageRow:
        """The row that a node of the result belongs to."""
        rows = [self.by_name[name] for name in node.origin.nodes if name in self.by_name]
        if not rows and not node.origin.nodes and title(node) in self.by_name:
            rows = [self.by_name[title(node)]]
        if rows:
            row = max(rows, key=lambda one: (one.before.macs, one.before.bytes))
        else:
            row = self.add(title(node), node.op)
        self.by_name.setdefault(title(node), row)
        return row
