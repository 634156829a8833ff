"""Blocks that another kind of block can stand for: chains of convolutions that nobody else reads into.

A place runs from the value that its first layer reads to what its last one answers. A branch of a sum goes whole, where
it is not too deep; elsewhere a place is two layers over all channels, with the depthwise ones and activations between
them. No layer is in two places.

Not taken: what does not keep the size but for its strides (padding other than "same"), layers that are shared, and what
holds an operator other than convolutions and activations of one input: behind a pooling there are other positions than
before it, and a gate reads all of them, so that no convolution answers as both sides of either do. `outside` tells why.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ...ir.graph import Graph, Node, Value
from ...ir.types import DType
from ..base import Skip
from ..merge.pairs import ACTIVATIONS
from ..walk.linear import Linear
from ..walk.readers import linear_layer

DEEPEST = 4
"""Layers up to which a branch goes whole."""
WIDE = 2
"""Layers over all channels in a place that is no branch."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """`layers` in order; `nodes` are theirs, and the activations between them."""

    layers: tuple[Linear, ...]
    nodes: tuple[Node, ...]

    @property
    def node(self) -> Node:
        """The node that ends it, and names it."""
        return self.layers[-1].node

    @property
    def begin(self) -> Value:
        return self.layers[0].source

    @property
    def end(self) -> Value:
        return self.layers[-1].output

    @property
    def inputs(self) -> int:
        first = self.layers[0]
        return first.channels * first.groups

    @property
    def outputs(self) -> int:
        return self.layers[-1].outputs

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(math.prod(one) for one in zip(*(layer.strides for layer in self.layers), strict=True))

    @property
    def widest(self) -> Linear:
        """The first layer of the largest kernel."""
        return max(self.layers, key=lambda layer: math.prod(layer.kernel))


def places(graph: Graph) -> list[Place]:
    """The places of `graph` in its order: branches of sums first, and what is left."""
    taken: set[Node] = set()
    chosen: dict[Node, Place] = {}
    nodes = list(graph)
    for branches in (True, False):
        for node in nodes:
            place = place_at(node)
            if place is None or _is_branch(place) is not branches or any(one in taken for one in place.nodes):
                continue
            taken.update(place.nodes)
            chosen[node] = place
    return [chosen[node] for node in nodes if node in chosen]


def outside(graph: Graph, inside: Collection[Place]) -> Iterator[tuple[Node, str]]:
    """The convolutions that are in no place, each with the reason."""
    taken = {node for place in inside for node in place.nodes}
    for node in graph:
        if node.op == "Conv" and not node.domain and node not in taken:
            yield node, _why_outside(node)


def _why_outside(node: Node) -> str:
    layer = _layer(node)
    if layer is None:
        return "a block is of convolutions of two dimensions that keep the size and are nobody else's"
    before, after = _made_by(layer.source), _read_by(layer.output)
    if " and " in after:
        return f"{after} read what it answers, and nobody else reads into a block"
    if "Conv" in (before, after):
        return "with the convolutions beside it, it makes no two layers over all channels that nobody else reads into"
    return f"it stands alone between {before} and {after}, and a block is of convolutions and activations"


def _made_by(value: Value) -> str:
    node = value.producer
    if node is not None and node.op in ACTIVATIONS and node.inputs[0] is not None:
        node = node.inputs[0].producer
    return "the input" if node is None else _named(node)


def _read_by(value: Value) -> str:
    readers = [user for user in value.users if isinstance(user, Node)]
    if len(readers) == 1 and readers[0].op in ACTIVATIONS and len(value.uses) == 1:
        return _read_by(readers[0].output)
    words = [*dict.fromkeys(map(_named, readers)), *["the output"] * value.is_output]
    return " and ".join(words)


def _named(node: Node) -> str:
    """An operator by its name; a product of two values that are computed is a gate's."""
    gate = node.op == "Mul" and all(value is not None and value.constant is None for value in node.inputs)
    return "a gate's Mul" if gate else node.op


def place_at(node: Node) -> Place | None:
    """The place that ends with `node`; `None` where there is none, or a layer reads on at once."""
    users = node.output.users if len(node.outputs) == 1 else ()
    if len(users) == 1 and isinstance(users[0], Node) and _layer(users[0]) is not None:
        return None
    cut: Place | None = None
    for place in _ending(node):
        if _is_fork(place.begin):
            return place if len(place.layers) > 1 else None
        if cut is None and sum(one.groups == 1 for one in place.layers) >= WIDE:
            cut = place
    return cut


def place_from(begin: str, node: Node) -> Place | None:
    """The place from the value called `begin` to the end of `node`; `None` where there is none (any more)."""
    return next((place for place in _ending(node) if place.begin.name == begin), None)


def _ending(node: Node) -> Iterator[Place]:
    """The chains of up to `DEEPEST` layers that end with `node`, the shortest first."""
    layer = _layer(node)
    layers: list[Linear] = []
    nodes = [node]
    while layer is not None:
        layers.append(layer)
        yield Place(tuple(layers[::-1]), tuple(nodes[::-1]))
        before = None if _is_fork(layer.source) or len(layers) == DEEPEST else _before(layer.source)
        if before is None:
            return
        layer, between = before
        nodes += [*between, layer.node]


def _before(value: Value) -> tuple[Linear, tuple[Node, ...]] | None:
    """The layer that `value` comes from, and the activation between them; `None` where others read either's answer."""
    between: tuple[Node, ...] = ()
    node = value.producer
    if node is not None and node.op in ACTIVATIONS and not node.domain:
        inner = node.inputs[0]
        if inner is None or _is_fork(inner) or any(v is not None and v.constant is None for v in node.inputs[1:]):
            return None
        between = (node,)
        node = inner.producer
    layer = None if node is None else _layer(node)
    return None if layer is None else (layer, between)


def _is_branch(place: Place) -> bool:
    """Whether others read what the place does, and its answer is added to something."""
    users = place.end.users
    return _is_fork(place.begin) and len(users) == 1 and users[0].op == "Add"


def _is_fork(value: Value) -> bool:
    return len(value.uses) > 1 or value.is_output or value.producer is None


def _layer(node: Node) -> Linear | None:
    """A convolution of floats that keeps the size but for its strides, and is nobody else's."""
    try:
        layer = linear_layer(node) if node.op == "Conv" and not node.domain else None
    except Skip:
        return None
    if layer is None or not layer.alone or len(layer.kernel) != 2 or layer.output.dtype is not DType.FLOAT:
        return None
    auto = node.get_string("auto_pad", "NOTSET")
    if auto not in ("", "NOTSET") or any(size % 2 == 0 for size in layer.kernel):
        return None
    same = [(size - 1) * dilation // 2 for size, dilation in zip(layer.kernel, layer.dilations, strict=True)]
    return layer if list(node.get_ints("pads", (0,) * 4)) == same * 2 else None
