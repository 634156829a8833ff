"""A graph as an SVG picture: a box a node, laid out in layers, changed ones marked, each a link to its layer's row.

Quantizers and dequantizers are drawn as a mark on the edge that they stand on, and what hangs from constants alone is
left out: both belong to a layer that is drawn. Too many boxes are drawn together by the common beginning of their
names, as far as that leaves no cycle; where names have none, the end of the graph is cut off. A note says so.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import pairwise

from ...ir.graph import Graph
from ...ir.node import Node, Value
from ...ir.view import convex_partitions
from ...passes.base import Outcome
from .layout import HEIGHT, WIDTH, layout
from .markup import Markup, element
from .rows import PageRow, PageRows

LIMIT = 320
"""Boxes in one picture, at most."""

_CODING = frozenset({"QuantizeLinear", "DequantizeLinear"})
_ROOM = 21
"""Letters of a name that fit into a box."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """The picture and, where something is drawn together or left out, a sentence about it."""

    svg: Markup
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Box:
    op: str
    name: str
    row: PageRow | None
    mark: str = ""
    by: str = ""
    outcome: str = ""


def draw(graph: Graph, rows: PageRows, side: str) -> Drawing:
    """The picture of one of the two graphs; `side` is `before` or `after`, and begins the ids of its boxes."""
    drawn = [node for node in _flowing(graph) if not _codes(node)]
    groups, note = _groups(graph, drawn, rows)
    number = {node: at for at, group in enumerate(groups) for node in group}
    boxes = [_box(group, rows, side) for group in groups]
    ends: dict[Value, int] = {}
    for value in graph.inputs:
        ends[value] = len(boxes)
        boxes.append(_Box("input", value.name, None, "end"))
    outputs = []
    for output in graph.outputs:
        outputs.append((len(boxes), output.value))
        boxes.append(_Box("output", output.name, None, "end"))
    edges: dict[tuple[int, int], bool] = {}
    for node, at in number.items():
        for read in (*node.inputs, *node.captures):
            _connect(edges, read, at, number, ends)
    for at, value in outputs:
        _connect(edges, value, at, number, ends)
    return Drawing(_svg(boxes, edges, f"graph {side}"), note)


def _flowing(graph: Graph) -> list[Node]:
    """The nodes that depend on more than constants, in order."""
    moving: set[Value | None] = {*graph.inputs}
    nodes = []
    for node in graph:
        if any(v in moving for v in node.inputs) or any(v.constant is None for v in node.captures):
            moving.update(node.outputs)
            nodes.append(node)
    return nodes


def _codes(node: Node) -> bool:
    return node.op in _CODING and node.domain in ("", "com.microsoft")


def _connect(
    edges: dict[tuple[int, int], bool], value: Value | None, at: int, number: dict[Node, int], ends: dict[Value, int]
) -> None:
    """The edge along which `value` comes to box `at`, through whatever only codes it."""
    coded = False
    while value is not None and value.producer is not None and _codes(value.producer):
        coded = True
        value = value.producer.inputs[0]
    if value is None:
        return
    source = ends.get(value) if value.producer is None else number.get(value.producer)
    if source is not None and source != at:
        edges[source, at] = edges.get((source, at), False) or coded


def _groups(graph: Graph, drawn: list[Node], rows: PageRows) -> tuple[list[list[Node]], str]:
    if len(drawn) <= LIMIT:
        return [[node] for node in drawn], ""
    wanted = set(drawn)
    paths = {node: _path(rows.of[node].name) for node in graph}
    for depth in range(max(len(path) for path in paths.values()) - 1, 0, -1):
        label: dict[Node, Hashable] = {node: path[:depth] for node, path in paths.items()}
        parts = [[n for n in nodes if n in wanted] for _, nodes in convex_partitions(graph, label.__getitem__)]
        parts = [part for part in parts if part]
        if len(parts) <= LIMIT:
            return parts, f"{len(drawn)} nodes are drawn together in {len(parts)} boxes by the beginning of their names"
    return [[node] for node in drawn[:LIMIT]], f"only the first {LIMIT} of {len(drawn)} nodes are drawn"


def _path(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.replace(".", "/").split("/") if part)


def _box(nodes: list[Node], table: PageRows, side: str) -> _Box:
    rows = [table.of[node] for node in nodes]
    by = dict.fromkeys(fate.name for row in rows for fate in row.fates if fate.layer.outcome is Outcome.DONE)
    if side == "after":
        by.update(dict.fromkeys(name for node in nodes for name in node.origin.passes))
    # What is left of a node that was fused into another is at most a quantizer.
    lost = side == "before" and all(all(_codes(one) for one in row.after.nodes) for row in rows)
    new = side == "after" and all(not row.before.nodes for row in rows)
    mark = "lost" if lost else "new" if new else "changed" if by else ""
    makers = ", ".join(by)
    outcome = _outcome(rows, list(by))
    if len(nodes) == 1:
        return _Box(nodes[0].op, rows[0].name, rows[0], mark, makers, outcome)
    paths = [_path(row.name) for row in rows]
    shared = 0
    while all(len(path) > shared and path[shared] == paths[0][shared] for path in paths):
        shared += 1
    return _Box(f"{len(nodes)} nodes", "/".join(paths[0][:shared]) or rows[0].name, rows[0], mark, makers, outcome)


def _outcome(rows: list[PageRow], by: list[str]) -> str:
    """What became of the layers in a word: the last pass that changed one, else reverted, else kept."""
    words = {"prune": "pruned", "svd": "split", "depthwise": "split", "quant": "quantized"}
    for name in reversed(by):
        if name in words:
            return words[name]
    if by:
        return "rewritten"
    undone = any(fate.layer.outcome is Outcome.REVERTED for row in rows for fate in row.fates)
    return "reverted" if undone else "kept"


def _svg(boxes: list[_Box], edges: dict[tuple[int, int], bool], label: str) -> Markup:
    # A layout wants numbers along which edges lead upwards; inputs come first and outputs last.
    order = _sorted(len(boxes), list(edges))
    place = {box: at for at, box in enumerate(order)}
    pairs = sorted((place[a], place[b]) for a, b in edges)
    places = layout(len(boxes), pairs)
    lines = [
        element(
            "path",
            d=_curve(bends),
            class_="edge coded" if edges[order[a], order[b]] else "edge",
        )
        for (a, b), bends in zip(pairs, places.edges, strict=True)
    ]
    shapes = []
    taken: set[int] = set()
    for at, box in enumerate(order):
        x, y = places.boxes[at]
        shapes.append(_shape(boxes[box], x, y, label.split()[-1], taken))
    return element(
        "svg",
        *lines,
        *shapes,
        class_="graph",
        role="group",
        aria_label=label,
        viewBox=f"0 0 {places.width:.0f} {places.height:.0f}",
        width=f"{places.width:.0f}",
        height=f"{places.height:.0f}",
    )


def _shape(box: _Box, x: float, y: float, side: str, taken: set[int]) -> Markup:
    mark = {"lost": "gone", "end": ""}.get(box.mark, box.mark)
    said = f"{box.op} {box.name}" + (f", {mark}" if mark else "") + (f" by {box.by}" if box.by else "")
    said += f", {box.outcome}" if box.outcome and not box.by else ""
    content = [
        element("title", said),
        element("rect", x=f"{x - WIDTH / 2:.1f}", y=f"{y - HEIGHT / 2:.1f}", width=WIDTH, height=HEIGHT, rx=3),
        element("text", box.op, x=f"{x:.1f}", y=f"{y - 7:.1f}", class_="op"),
        element("text", _fitted(box.name), x=f"{x:.1f}", y=f"{y + 6:.1f}", class_="name"),
        element("text", box.by, x=f"{x:.1f}", y=f"{y + 17:.1f}", class_="by") if box.by else None,
    ]
    classes = " ".join(word for word in ("box", box.mark, box.outcome) if word)
    if box.row is None:
        return element("g", *content, class_=classes)
    first = box.row.index not in taken
    taken.add(box.row.index)
    return element(
        "a",
        *content,
        class_=classes,
        href=f"#layer-{box.row.index}",
        id=f"{side}-{box.row.index}" if first else None,
        aria_label=said,
    )


def _curve(bends: tuple[tuple[float, float], ...]) -> str:
    """From the bottom of one box to the top of the other, upright where it passes between boxes."""
    points = [(x, y + side) for x, y in bends for side in (-HEIGHT / 2, HEIGHT / 2)][1:-1]
    parts = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x, y), (to_x, to_y) in pairwise(points):
        if abs(x - to_x) < 0.5:
            parts.append(f"L{to_x:.1f} {to_y:.1f}")
        else:
            half = (y + to_y) / 2
            parts.append(f"C{x:.1f} {half:.1f} {to_x:.1f} {half:.1f} {to_x:.1f} {to_y:.1f}")
    return "".join(parts)


def _sorted(count: int, edges: list[tuple[int, int]]) -> list[int]:
    """An order in which every edge leads forwards; of what may come next, the lowest number."""
    waiting = [0] * count
    out: list[list[int]] = [[] for _ in range(count)]
    for start, end in edges:
        out[start].append(end)
        waiting[end] += 1
    ready = [vertex for vertex in range(count) if not waiting[vertex]]
    heapq.heapify(ready)
    order = []
    while ready:
        vertex = heapq.heappop(ready)
        order.append(vertex)
        for end in out[vertex]:
            waiting[end] -= 1
            if not waiting[end]:
                heapq.heappush(ready, end)
    return order


def _fitted(name: str) -> str:
    return name if len(name) <= _ROOM else "…" + name[-_ROOM + 1 :]
