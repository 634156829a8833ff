"""In which parts of one kind a graph can run.

Nodes are those of one graph; bodies belong to the node that holds them. Constants do not flow. Which channels depend on
each other is told by `channels`.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Hashable, Sequence

from .graph import Graph, Node, Value


def convex_partitions(graph: Graph, label: Callable[[Node], Hashable]) -> list[tuple[Hashable, list[Node]]]:
    """All nodes in parts of one label each, every part convex and connected, and the parts without a cycle among them.

    A node joins a part of its label that it reads from where no other path leads there; the parts come in an order in
    which they can run. Greedy: few parts, not provably the fewest.
    """
    part_of: dict[Node, int] = {}
    members: list[list[Node]] = []
    labels: list[Hashable] = []
    # For every part, all parts that it depends on, itself included, as bits.
    needs: list[int] = []
    for node in _sorted(graph):
        mine = label(node)
        sources = dict.fromkeys(part_of[v.producer] for v in _reads(node) if v.producer in part_of)
        needed = functools.reduce(operator.or_, (needs[part] for part in sources), 0)
        chosen = -1
        for part in sources:
            if labels[part] != mine:
                continue
            # Joining is safe where nothing else that the node reads depends on the part.
            if not any(needs[other] >> part & 1 for other in sources if other != part):
                chosen = part
                break
        if chosen < 0:
            chosen = len(members)
            members.append([])
            labels.append(mine)
            needs.append(needed | 1 << chosen)
        elif needed & ~needs[chosen]:
            needs = [need | needed if need >> chosen & 1 else need for need in needs]
        part_of[node] = chosen
        members[chosen].append(node)
    order = sorted(range(len(members)), key=lambda part: (needs[part].bit_count(), part))
    return [(labels[part], members[part]) for part in order]


def _reads(node: Node) -> list[Value]:
    """What flows into `node`: its inputs and what its bodies capture, without constants."""
    values = (*(v for v in node.inputs if v is not None), *node.captures)
    return [v for v in values if v.constant is None]


def _sorted(graph: Graph) -> Sequence[Node]:
    """The nodes in an order in which they can run, whatever order they stand in."""
    from .shapes.infer import ordered

    return list(ordered(graph))
