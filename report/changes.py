"""Which nodes of one model became which of another.

A node of the second model belongs to the nodes of the first that its record of origin names; where the file holds no
such record, to the one of the same name. A node is the same where one node came of it, with the same operator,
attributes and weights. Only the outermost graphs are looked at: a body is part of the node that holds it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..ir.graph import Graph
from ..ir.node import Node
from ..ir.stored import tensor_of
from ..ir.tensor import Tensor
from .weights import Weight, look, prepares, stored_weights


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a node of the first model (`removed`, `changed`), or a node that only the second has (`added`).

    `before` and `after` are operators; `passes` are those that made the nodes after, where that is recorded. Weights
    are given where any of them differs.
    """

    kind: str
    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    passes: tuple[str, ...] = ()
    old: tuple[Weight, ...] = ()
    new: tuple[Weight, ...] = ()


def changes(first: Graph, second: Graph) -> tuple[tuple[Change, ...], int]:
    """What changed from one graph to the other, and how many nodes did not. Reads every weight."""
    known = {_name(node) for node in first}
    made: dict[str, list[Node]] = {}
    added: list[Change] = []
    for node in second:
        sources = [name for name in (*node.origin.nodes, _name(node)) if name in known]
        for name in dict.fromkeys(sources if not node.origin.passes else node.origin.nodes):
            made.setdefault(name, []).append(node)
        if not sources:
            added.append(Change("added", _name(node), (), (op_text(node),), node.origin.passes, (), _weights([node])))
    found: list[Change] = []
    same = 0
    for node in first:
        heirs = made.get(_name(node), [])
        if len(heirs) == 1 and _equal(node, heirs[0]):
            same += 1
            continue
        passes = dict.fromkeys(name for heir in heirs for name in heir.origin.passes)
        old, new = _weights([node]), _weights(heirs)
        if [w.text for w in old] == [w.text for w in new] and heirs and not _differ(node, heirs):
            old = new = ()
        kind = "changed" if heirs else "removed"
        found.append(Change(kind, _name(node), (op_text(node),), tuple(map(op_text, heirs)), tuple(passes), old, new))
    return (*found, *added), same


def _equal(node: Node, heir: Node) -> bool:
    if (node.op, node.domain, len(node.inputs)) != (heir.op, heir.domain, len(heir.inputs)):
        return False
    if {name: str(a) for name, a in node.attributes.items()} != {name: str(a) for name, a in heir.attributes.items()}:
        return False
    return not _differ(node, [heir])


def _differ(node: Node, heirs: Iterable[Node]) -> bool:
    """Whether the constants that a node and its heirs read are other ones."""
    old, new = ([tensor for one in nodes for tensor in _constants(one)] for nodes in ([node], heirs))
    if [(t.dtype, t.shape) for t in old] != [(t.dtype, t.shape) for t in new]:
        return True
    return not all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(old, new, strict=True))


def _constants(node: Node) -> list[Tensor]:
    return [tensor for value in node.inputs if value is not None and (tensor := tensor_of(value)) is not None]


def _weights(nodes: Iterable[Node]) -> tuple[Weight, ...]:
    found = {value: tensor for node in nodes if not prepares(node) for value, tensor in stored_weights(node)}
    return tuple(look(value, tensor) for value, tensor in found.items())


def _name(node: Node) -> str:
    return node.name or node.outputs[0].name


def op_text(node: Node) -> str:
    """The operator of a node, with its domain where that is not the usual one."""
    return f"{node.domain}.{node.op}" if node.domain else node.op
