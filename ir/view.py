"""Where a graph falls in two, and in which parts of one kind it can run.

Nodes are those of one graph; bodies belong to the node that holds them. Constants do not flow. Which channels depend on
each other is told by `channels`.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Hashable, Sequence

from .graph import Graph, Node, Value


def cut_values(graph: Graph) -> list[Value]:
    """The values at which the graph falls in two, in order: each is all that its later part needs of its earlier one.

    No input, no branch and no output goes around it. What depends on no input counts as constant. The graph's input is
    among them where there is but one.
    """
    order: dict[Node, int] = {}
    for node in _sorted(graph):
        if any(v.producer is None or v.producer in order for v in _reads(node)):
            order[node] = len(order)
    end = len(order)
    # A value is alive from where it is made to where it is last read; a cut is where exactly one is.
    spans: list[tuple[int, int, Value]] = []
    for value in (*graph.inputs, *(value for node in order for value in node.outputs)):
        place = -1 if value.producer is None else order[value.producer]
        last = max((order[user] for user in _readers(value, graph)), default=place)
        spans.append((place, end if any(user is graph for user, _ in value.uses) else last, value))
    alive = [0] * (end + 2)
    for place, last, _ in spans:
        if last > place:
            alive[place + 1] += 1
            alive[last + 1] -= 1
    for i in range(1, len(alive)):
        alive[i] += alive[i - 1]
    cuts = [(first, value) for first, last, value in spans if last > first and alive[first + 1] == 1]
    return [value for _, value in sorted(cuts, key=lambda cut: cut[0])]


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


def _readers(value: Value, graph: Graph) -> list[Node]:
    """The nodes of `graph` that read `value`, themselves or in a body."""
    readers = []
    for user, _ in value.uses:
        node = _outermost(user, graph)
        if node is not None:
            readers.append(node)
    return readers


def _outermost(user: Node | Graph | None, graph: Graph) -> Node | None:
    """The node of `graph` that `user` is or lies in; `None` for `graph` itself."""
    while user is not None and user is not graph:
        owner = user.graph if isinstance(user, Node) else user.parent
        if owner is graph and isinstance(user, Node):
            return user
        user = owner
    return None


def _sorted(graph: Graph) -> Sequence[Node]:
    """The nodes in an order in which they can run, whatever order they stand in."""
    from .shapes.infer import ordered

    return list(ordered(graph))
