"""Blocks that a graph can do without: what reads one reads what stands beside it instead.

Two kinds are seen. A *branch* is one operand of an Add, or of a Mul (a gate), that is computed for it alone; the other
operand stays. A *plain* block is a layer whose answer has the shape of what it reads. A block must hold a layer, and
what stays must have the shape of what goes.

The values that stay take the names of those that they stand for, where nothing else reads them: the walk asks the
teacher by name, so the layers before a block that went are asked for what stood behind it. An activation that stands
behind the block, and before it too, is kept once; of two LayerNormalizations the later one's scale and shift are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...ir.graph import Graph, Node, Value
from ...ir.ops import LAYERS
from ..structure.edit import Edit

_JOINS = frozenset({"Add", "Mul"})
_ONCE = frozenset({"Relu", "Clip", "LayerNormalization"})
"""Activations that change nothing the second time, or whose scale and shift alone count."""


@dataclass(frozen=True, slots=True, eq=False)
class BypassedBlock(Edit):
    """The readers of `out` can read `stays` instead, which its node reads as input `number`; `nodes` are then read by
    nobody."""

    stays: Value

    def apply(self, graph: Graph) -> frozenset[str]:
        return bypass(graph, self)


def blocks(graph: Graph) -> list[BypassedBlock]:
    """The blocks of `graph`, in its order. Of two branches that meet the one of more layers goes, the first of two
    alike."""
    every = []
    for node in graph:
        if node.domain or not node.outputs or node.bodies:
            continue
        sides = list(_sides(node))
        if sides:
            every.append(max(sides, key=lambda side: len(side.layers)))
    return every


def block_at(node: Node, index: int) -> BypassedBlock | None:
    """The block whose node reads as input `index` what stays; `None` where there is none (any more)."""
    return next((side for side in _sides(node) if side.number == index), None) if node.graph is not None else None


def _sides(node: Node) -> Iterator[BypassedBlock]:
    """The ways to do without what `node` makes but one of the values that it reads."""
    joins = node.op in _JOINS and len(node.inputs) == 2 and node.inputs[0] is not node.inputs[1]
    if not joins and (node.op not in LAYERS or _is_product(node)):
        return
    for index, stays in enumerate(node.inputs):
        if stays is None or stays.constant is not None or not _stands_for(stays, node.output):
            continue
        if node.output.is_output and (stays.is_input or stays.is_output):
            continue  # what has a name of its own cannot have the output's
        nodes = _orphans(node, stays)
        if nodes is not None and any(one.op in LAYERS and not _is_product(one) for one in nodes):
            yield BypassedBlock(index, node.output, nodes, stays)


def _stands_for(value: Value, other: Value) -> bool:
    """Whether `value` has the type and shape of `other`, every size of which is known or has a name."""
    shape = value.shape
    return shape is not None and None not in shape and shape == other.shape and value.dtype is other.dtype


def _is_product(node: Node) -> bool:
    """Whether a layer has no weights: it multiplies what is computed."""
    return all(value is None or value.constant is None for value in node.inputs)


def _orphans(node: Node, stays: Value) -> tuple[Node, ...] | None:
    """The nodes that nobody reads once the readers of `node` read `stays`; `None` where an input of the graph would be
    read by nobody either."""
    graph = node.graph
    dead: dict[Node, None] = {node: None}
    lost: dict[Value, None] = {}
    stack = [node]
    while stack:
        for value in (*(one := stack.pop()).inputs, *one.captures):
            if value is None or value is stays or value.constant is not None:
                continue
            if value.is_output or any(user not in dead for user in value.users):
                continue
            maker = value.producer
            if maker is None:
                lost[value] = None
            elif (
                maker not in dead
                and maker.graph is graph
                and not any(other.is_output or any(user not in dead for user in other.users) for other in maker.outputs)
            ):
                dead[maker] = None
                stack.append(maker)
    return None if lost else tuple(dead)


def bypass(graph: Graph, block: BypassedBlock) -> frozenset[str]:
    """Take `block` out of `graph`. Returns the names of the values that are now asked for more than they were: what
    the layers that end in them, or read them, should be fitted to is another than before."""
    stays, out = block.stays, block.out
    alone = all(user in block.nodes for user in stays.users) and not stays.is_output and not stays.is_input
    before, after = stays.producer, _only_reader(out)
    touched = {out.name}
    if alone and before is not None and after is not None and _once(before, after):
        for index in range(1, len(after.inputs)):  # bounds are the same, and of scale and shift the later ones count
            before.set_input(index, after.inputs[index])
        after.output.replace_uses(stays)
        inner = before.inputs[0]
        assert inner is not None
        stays.name = after.output.name
        if len(inner.users) == 1 and not inner.is_output and inner.producer is not None:
            inner.name = out.name
        touched |= {stays.name}
    else:
        out.replace_uses(stays)
        if alone:
            stays.name = out.name
    if not alone:
        touched |= {stays.name}
    graph.sweep()
    return frozenset(touched)


def _only_reader(value: Value) -> Node | None:
    if len(value.uses) != 1 or not value.users or value.is_output:
        return None
    return value.users[0]


def _once(before: Node, after: Node) -> bool:
    """Whether `before` followed by `after` is one of them."""
    if before.op not in _ONCE or after.op != before.op or before.domain or after.domain:
        return False
    if len(before.inputs) != len(after.inputs) or after.output.is_output or len(after.outputs) > 1:
        return False
    if {name: one.value for name, one in before.attributes.items()} != {
        name: one.value for name, one in after.attributes.items()
    }:
        return False
    return before.op == "LayerNormalization" or all(map(_equal, before.inputs[1:], after.inputs[1:]))


def _equal(one: Value | None, other: Value | None) -> bool:
    """Whether two bounds are absent both, or constants of the same bytes."""
    if one is None or other is None:
        return one is other
    return one is other or (
        one.constant is not None
        and other.constant is not None
        and one.constant.numpy().tobytes() == other.constant.numpy().tobytes()
    )
