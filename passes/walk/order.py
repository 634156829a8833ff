"""What each layer of a walk is fitted to, and the order in which layers are visited.

Layers go by depth, so that a short skip path is walked before the long one that it meets; those that read the same rows
of the same value are visited together and share one covariance. A layer whose output is only added to a value that
is known before the visit is fitted to the *sum* (docs/algorithms.md, section 1, the residual r); others to their own
output.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.graph import Graph, Node, Value
from ...ir.order import depths
from .frontier import outermost
from .linear import Linear


@dataclass(frozen=True, slots=True)
class Goal:
    """What one layer is fitted to: its own output, or the sum that its output is added into."""

    layer: Linear
    output: Value
    sum: Node | None = None

    @property
    def skip(self) -> Value | None:
        """The other summand, as it is now: the node that makes it may have been replaced since the walk began."""
        if self.sum is None:
            return None
        return next(v for v in self.sum.inputs if v is not _decoded(self.layer.output))


def in_order(graph: Graph, layers: list[Linear]) -> list[list[Linear]]:
    """Layers by depth (so that a short skip path is walked before the long one that it meets), equal rows together."""
    depth = depths(graph)
    by_rows: dict[tuple[int, tuple[object, ...], bool, object], list[Linear]] = {}
    for layer in layers:
        first = min(depth[node] for node in _visited(layer, graph))
        key = (first, layer.geometry(), layer.bias_place is not None, None if layer.alone else layer)
        by_rows.setdefault(key, []).append(layer)
    return [group for _, group in sorted(by_rows.items(), key=lambda item: item[0][0])]


def visited_early(groups: list[list[Linear]], graph: Graph) -> set[Linear]:
    """The layers whose weight somebody reads before the layer itself does."""
    depth = depths(graph)
    layers = [layer for group in groups for layer in group if layer.others]
    return {x for x in layers if any(depth[node] < depth[x.node] for node in _visited(x, graph))}


def _visited(layer: Linear, graph: Graph | None) -> list[Node]:
    """The nodes of `graph` that read the weight of a layer, or inside of which it is read."""
    inside = [outermost(other.node, graph) for other in layer.others] if graph is not None else []
    return [*(reader.node for reader in layer.readers), *(node for node in inside if node is not None)]


def goals_of(groups: list[list[Linear]]) -> list[list[Goal]]:
    """The goal of every layer of `groups`, in the order of the visit."""
    graph = groups[0][0].node.graph if groups else None
    place = {node: n for n, group in enumerate(groups) for layer in group for node in _visited(layer, graph)}
    latest: dict[Node, int] = {}
    return [[_goal(layer, number, place, latest) for layer in group] for number, group in enumerate(groups)]


def _goal(layer: Linear, number: int, place: dict[Node, int], latest: dict[Node, int]) -> Goal:
    """The sum, where the layer's output is only added to a value that is known before the visit; else the output."""
    if not layer.alone:
        return Goal(layer, layer.output)
    out = _decoded(layer.output)
    add = _only_reader(out)
    if add is not None and add.op == "Add" and not add.domain:
        other = next((v for v in add.inputs if v is not out), None)
        same = other is not None and other.shape is not None and other.shape == out.shape == add.output.shape
        if other is None or not same or other.constant is not None:
            return Goal(layer, layer.output)
        if _latest_before(other, place, latest) < number:
            return Goal(layer, add.output, add)
    return Goal(layer, layer.output)


def _decoded(value: Value) -> Value:
    """`value` as its reader gets it, behind the codes that it may be held as."""
    while (reader := _only_reader(value)) is not None and reader.op in ("QuantizeLinear", "DequantizeLinear"):
        value = reader.output
    return value


def _only_reader(value: Value) -> Node | None:
    """The node that alone reads `value`, where it stands in the same graph, not in a body of control flow."""
    if len(value.uses) != 1 or not value.users or value.users[0].graph is not value.graph:
        return None
    return value.users[0]


def _latest_before(value: Value, place: dict[Node, int], latest: dict[Node, int]) -> int:
    """The last of the groups that have a layer before `value`, -1 for none; `latest` has those so far, by node."""
    stack = [] if value.producer is None else [value.producer]
    while stack:
        node = stack[-1]
        before = [v.producer for v in (*node.inputs, *node.captures) if v is not None and v.producer is not None]
        if missing := [producer for producer in before if producer not in latest]:
            stack += missing
            continue
        latest[node] = max([place.get(node, -1), *(latest[producer] for producer in before)])
        stack.pop()
    return -1 if value.producer is None else latest[value.producer]
