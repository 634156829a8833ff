"""Which nodes of one model became which of another.

A node of the second model belongs to the nodes of the first that its record of origin names; where the file holds no
such record, to the one of the same name. A node is the same where one node came of it, with the same operator,
attributes and weights, that reads what the node read. Bodies (of If, Loop and Scan) and functions that both models
have are compared in turn, and their nodes go by a path: `loop/body/add`. What is in a body that only one model has is
part of the node that holds it.

Reading something else is a change only where both sources are nodes that the other model has too: behind a node that
was removed or put in between, everything would be changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..ir.attributes import Attribute
from ..ir.graph import Graph
from ..ir.node import Node, Value
from ..ir.stored import tensor_of
from ..ir.tensor import Tensor
from .weights import Weight, look, prepares, stored_weights


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a node of the first model (`removed`, `changed`), or a node that only the second has (`added`).

    `before` and `after` are operators; `passes` are those that made the nodes after, where that is recorded. Weights
    are given where any of them differs. An output that comes from another node is a change without operators.
    """

    kind: str
    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    passes: tuple[str, ...] = ()
    old: tuple[Weight, ...] = ()
    new: tuple[Weight, ...] = ()


def changes(first: Graph, second: Graph) -> tuple[tuple[Change, ...], int]:
    """What changed from one model to the other, and how many nodes did not. Reads every weight."""
    differences, same = _changes("", first, second, {}, set())
    for key in dict.fromkeys((*first.functions, *second.functions)):
        name = ".".join(part for part in key if part)
        one, other = first.functions.get(key), second.functions.get(key)
        if one is None:
            differences.append(Change("added", name, (), ("function",)))
        elif other is None:
            differences.append(Change("removed", name, ("function",), ()))
        else:
            some, count = _changes(f"{name}/", one.graph, other.graph, {}, set())
            differences += some
            same += count
    return tuple(differences), same


def _changes(
    path: str, first: Graph, second: Graph, makers: Mapping[str, list[Node]], names: Collection[str]
) -> tuple[list[Change], int]:
    """What changed from one graph to the other, and how many nodes did not.

    `names` are those of the nodes of the graphs around the first, `makers` is what came of them, which bodies may read.
    """
    here = {node.label for node in first}
    names = {*names, *here}
    makers = {name: heirs for name, heirs in makers.items() if name not in here}
    differences: list[Change] = []
    added: list[Change] = []
    same = 0
    for node in second:
        for name in _sources(node, here):
            makers.setdefault(name, []).append(node)
        if not any(name in here for name in (*node.origin.nodes, node.label)):
            name = path + node.label
            added.append(Change("added", name, (), (op_text(node),), node.origin.passes, (), _weights([node])))
    for node in first:
        heirs = makers.get(node.label, [])
        if len(heirs) == 1:
            for inner, one, other in _bodies(path, node, heirs[0]):
                some, count = _changes(inner, one, other, makers, names)
                differences += some
                same += count
            if _equal(node, heirs[0]) and not _rewired(node.inputs, heirs[0].inputs, names, makers):
                same += 1
                continue
        passes = dict.fromkeys(name for heir in heirs for name in heir.origin.passes)
        old, new = _weights([node]), _weights(heirs)
        if [w.text for w in old] == [w.text for w in new] and heirs and not _differ(node, heirs):
            old = new = ()
        kind, after = "changed" if heirs else "removed", tuple(map(op_text, heirs))
        differences.append(Change(kind, path + node.label, (op_text(node),), after, tuple(passes), old, new))
    for old_end, new_end in zip(first.outputs, second.outputs):
        if _rewired([old_end.value], [new_end.value], names, makers):
            differences.append(Change("changed", f"{path}output {old_end.name}", (), ()))
    return [*differences, *added], same


def _sources(node: Node, shared: Collection[str]) -> Iterable[str]:
    """The nodes of the first graph that a node of the second came of."""
    names = node.origin.nodes if node.origin.passes else (*node.origin.nodes, node.label)
    return dict.fromkeys(name for name in names if name in shared)


def _bodies(path: str, node: Node, heir: Node) -> Iterator[tuple[str, Graph, Graph]]:
    """The bodies that both nodes hold, and the path to each."""
    for name, attribute in node.attributes.items():
        ones, others = _graphs(attribute), _graphs(heir.attributes.get(name))
        for one, other in zip(ones, others):
            yield f"{path}{node.label}/{name}/", one, other


def _graphs(attribute: Attribute | None) -> tuple[Graph, ...]:
    value = None if attribute is None else attribute.value
    return (
        (value,)
        if isinstance(value, Graph)
        else tuple(one for one in (value if isinstance(value, tuple) else ()) if isinstance(one, Graph))
    )


def _equal(node: Node, heir: Node) -> bool:
    if (node.op, node.domain, len(node.inputs)) != (heir.op, heir.domain, len(heir.inputs)):
        return False
    return _attributes(node) == _attributes(heir) and not _differ(node, [heir])


def _attributes(node: Node) -> dict[str, str | int]:
    """The attributes as text; of bodies, which are compared node by node, only how many there are."""
    return {name: len(_graphs(one)) or str(one) for name, one in node.attributes.items()}


def _rewired(
    old: Sequence[Value | None], new: Sequence[Value | None], names: Collection[str], makers: Mapping[str, list[Node]]
) -> bool:
    """Whether any value is read from another node, or input of the graph, that the other graph has as well."""
    for one, other in zip(old, new):
        if one is None or other is None:
            if one is not other:
                return True
        elif one.producer is None or other.producer is None:
            if one.is_input and other.is_input and one.name != other.name:
                return True
        else:
            source = one.producer.label
            heirs = makers.get(source, [])
            if heirs and other.producer not in heirs and any(_sources(other.producer, names)):
                return True
            if heirs == [other.producer] and one.index != other.index and one.producer.op == other.producer.op:
                return True
    return False


def _differ(node: Node, heirs: Iterable[Node]) -> bool:
    """Whether the constants that a node and its heirs read are other ones."""
    old, new = ([tensor for one in nodes for tensor in _constants(one)] for nodes in ([node], heirs))
    if [(t.dtype, t.shape) for t in old] != [(t.dtype, t.shape) for t in new]:
        return True
    return not all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(old, new, strict=True))


def _constants(node: Node) -> list[Tensor]:
    return [tensor for value in node.inputs if value is not None and (tensor := tensor_of(value)) is not None]


def _weights(nodes: Iterable[Node]) -> tuple[Weight, ...]:
    tensors = {value: tensor for node in nodes if not prepares(node) for value, tensor in stored_weights(node)}
    return tuple(look(value, tensor) for value, tensor in tensors.items())


def op_text(node: Node) -> str:
    """The operator of a node, with its domain where that is not the usual one."""
    return f"{node.domain}.{node.op}" if node.domain else node.op
