"""The minimum cut of a network whose nodes each may go to either side, at a price.

Flow along shortest augmenting paths (Edmonds and Karp 1972). Every node has an edge from the source and one to the
sink, so all that flows over two edges is sent before any path is searched; what is left to search is little.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Hashable, Mapping
from typing import TypeVar

Side = TypeVar("Side", bound=Hashable)


def sink_side(
    left: Mapping[Side, float], right: Mapping[Side, float], apart: Mapping[tuple[Side, Side], float]
) -> set[Side]:
    """The nodes on the sink's side of the cut of least price; of several, the one with fewest of them.

    A node costs its price in `left` where it is on the sink's side, that in `right` where it is on the source's; two
    nodes on different sides cost what `apart` says of the pair.
    """
    nodes = list(dict.fromkeys([*left, *right, *(node for pair in apart for node in pair)]))
    direct = {node: min(left.get(node, 0.0), right.get(node, 0.0)) for node in nodes}
    enters = {node: left.get(node, 0.0) - direct[node] for node in nodes}
    leaves = {node: right.get(node, 0.0) - direct[node] for node in nodes}
    rest: dict[Side, dict[Side, float]] = {node: {} for node in nodes}
    for (one, other), price in apart.items():
        for a, b in ((one, other), (other, one)):
            rest[a][b] = rest[a].get(b, 0.0) + price
    while path := _augmenting(enters, leaves, rest):
        steps = list(itertools.pairwise(path))
        most = min(enters[path[0]], leaves[path[-1]], *(rest[a][b] for a, b in steps))
        enters[path[0]] -= most
        leaves[path[-1]] -= most
        for a, b in steps:
            rest[a][b] -= most
            rest[b][a] += most
    reaches = {node for node in nodes if leaves[node] > 0.0}
    waiting = deque(reaches)
    while waiting:
        node = waiting.popleft()
        new = [before for before in rest[node] if rest[before][node] > 0.0 and before not in reaches]
        reaches.update(new)
        waiting.extend(new)
    return reaches


def _augmenting(
    enters: Mapping[Side, float], leaves: Mapping[Side, float], rest: Mapping[Side, Mapping[Side, float]]
) -> list[Side]:
    """The shortest path with room from a node that the source still feeds to one that the sink still drains."""
    before: dict[Side, Side | None] = {node: None for node, room in enters.items() if room > 0.0}
    waiting = deque(before)
    while waiting:
        node = waiting.popleft()
        if leaves[node] > 0.0:
            path = [node]
            while (last := before[path[-1]]) is not None:
                path.append(last)
            return path[::-1]
        for after, room in rest[node].items():
            if room > 0.0 and after not in before:
                before[after] = node
                waiting.append(after)
    return []
