"""Stable topological order."""

from __future__ import annotations

import heapq

from ..errors import ModelError
from .graph import Graph, Node


def depths(graph: Graph) -> dict[Node, int]:
    """How many nodes lie on the longest way to each node of `graph`, itself counted; `graph` must be sorted."""
    depth: dict[Node, int] = {}
    for node in graph:
        reads = (v.producer for v in (*node.inputs, *node.captures) if v is not None)
        depth[node] = 1 + max((depth.get(p, 0) for p in reads if p is not None), default=0)
    return depth


def sort(graph: Graph) -> bool:
    """Order the nodes of `graph` and of its bodies so that every value is made before it is read.

    Among nodes that are ready the one that stood first goes first, so a sorted graph is left as it is. A node reads
    what its bodies capture. Returns whether anything moved; raises `ModelError` naming a node on a cycle.
    """
    moved = False
    nodes = list(graph)
    position = {node: i for i, node in enumerate(nodes)}
    waiting: dict[Node, int] = {}
    readers: dict[Node, list[Node]] = {}
    in_order = True
    for node in nodes:
        reads = [v for v in node.inputs if v is not None]
        if node.attributes and node.bodies:
            reads.extend(node.captures)
            for body in node.bodies:
                moved = sort(body) or moved
        producers = {v.producer for v in reads if v.producer in position}
        for producer in producers:
            if producer is not None:
                readers.setdefault(producer, []).append(node)
                in_order = in_order and position[producer] < position[node]
        waiting[node] = len(producers)
    if in_order:
        return moved
    ready = [position[node] for node in nodes if waiting[node] == 0]
    heapq.heapify(ready)
    ordered = []
    while ready:
        node = nodes[heapq.heappop(ready)]
        ordered.append(node)
        for reader in readers.get(node, ()):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, position[reader])
    if len(ordered) != len(nodes):
        stuck = next(node for node in nodes if waiting[node] > 0)
        name = stuck.name or (stuck.outputs[0].name if stuck.outputs else "")
        raise ModelError(
            f"graph {graph.name!r}: node {name!r} ({stuck.op}) is on a cycle or behind one; no order can run it"
        )
    for node in ordered:
        graph.move(node)
    return True
