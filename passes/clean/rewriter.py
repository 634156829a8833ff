"""What a rule may ask of a graph, and the edits it may make.

Every edit goes through the `Rewriter`, so that the nodes whose surroundings changed are looked at again: the rules run
to a fixed point at a cost that follows the number of rewrites, not the number of nodes times the number of sweeps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.allowance import Effort
from ...ir.attributes import Attribute, AttributeValue
from ...ir.graph import Graph, Node, Value
from ...ir.origin import Origin
from ...ir.tensor import SparseTensor, Tensor
from ...ir.types import TensorType, Type
from .fill import Array, compact, store, stored_bytes
from .one_node import Runtime

SMALL = 256
"""Bytes by which one rewrite may enlarge the constants: what the record of a removed node takes in a file."""

_LONGEST = 1 << 16
"""Integers up to which a constant is taken for a list: of axes, sizes, pads."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A local rewrite: looked up by operator (default domain), tried on a node, counted under its name.

    `rewrite` returns whether it changed the graph; it must leave the graph as it was when it returns `False`.
    """

    name: str
    ops: Collection[str]
    rewrite: Callable[[Node, Rewriter], bool]


class Rewriter:
    """The view that rules have of one graph, its bodies included, under one version of the default operator set.

    `recorded` are the values whose types the model records, with these; what replaces one of them joins them. `effort`
    is what is left to spend on evaluating nodes.
    """

    def __init__(self, graph: Graph, recorded: dict[Value, Type | None], effort: Effort) -> None:
        self.graph = graph
        self.effort = effort
        self.runtime = Runtime()
        self.recorded = recorded
        self.opset = graph.opset()
        self._queue: deque[Node] = deque()
        self._queued: set[Node] = set()

    # -- asking

    def array(self, value: Value | None) -> Array | None:
        """The elements of a constant; `None` for anything else, an absent input included."""
        constant = None if value is None else value.constant
        return None if constant is None or not constant.fits else compact(constant.numpy())

    def ints(self, value: Value | None) -> tuple[int, ...] | None:
        """The elements of a constant of integers, of rank 0 or 1."""
        if (
            value is None
            or value.constant is None
            or not value.constant.dtype.is_integer
            or len(value.constant.shape) > 1
            or value.constant.size > _LONGEST
        ):
            return None
        return tuple(int(v) for v in value.constant.numpy().reshape(-1).tolist())

    def axes(self, node: Node, index: int) -> tuple[int, ...] | None:
        """The `axes` of a node, an attribute in older operator sets and input `index` in newer; `()` where absent."""
        if "axes" in node.attributes:
            return node.get_ints("axes")
        value = node.input(index)
        return () if value is None else self.ints(value)

    def made_by(self, node: Node, index: int, *ops: str) -> Node | None:
        """The node that makes input `index`, if it is one of `ops` and stands in the same graph."""
        value = node.input(index)
        producer = None if value is None else value.producer
        if producer is None or producer.op not in ops or producer.graph is not node.graph or not is_plain(producer):
            return None
        return producer

    def made_only_for(self, node: Node, index: int, *ops: str) -> Node | None:
        """As `made_by`, if besides `node` nothing reads any of that node's outputs."""
        producer = self.made_by(node, index, *ops)
        if producer is None or len(producer.output.uses) != 1 or any(v.uses for v in producer.outputs[1:]):
            return None
        return producer

    def pays(self, arrays: Sequence[Array], *nodes: Node) -> bool:
        """Whether new constants take no more bytes than those that only `nodes` read, plus `SMALL`."""
        freed: dict[Value, int] = {}
        for value in (v for node in nodes for v in node.inputs):
            if value is not None and value.constant is not None and all(user in nodes for user, _ in value.uses):
                tensor = value.constant
                freed[value] = tensor.nbytes if isinstance(tensor, SparseTensor) else stored_bytes(tensor.numpy())
        return sum(stored_bytes(array) for array in arrays) <= sum(freed.values()) + SMALL

    # -- doing

    def replace(self, node: Node, value: Value) -> None:
        """Let every reader of the first output of `node` read `value`, and remove `node` if nothing reads it now."""
        old = node.output
        if value.producer is not None:
            refine(value, old.type)
            if old in self.recorded:
                self.recorded.setdefault(value, value.type)
        value.name = value.name or old.name
        self.push(old.users)
        old.replace_uses(value)
        if value.producer is not None:
            self.push((value.producer,))
        self.drop(node)

    def bypass(self, node: Node, source: Value) -> bool:
        """Let the readers of `node`, which changes nothing, read `source`; returns whether that was done.

        It is not where the node stands between a graph output and something that cannot have that output's name (an
        input, a constant, another output, a value of the graph around): an Identity would have to take its place.
        """
        if node.output.is_output and (source.producer is None or source.is_output or source.graph is not node.graph):
            return False
        self.replace(node, source)
        return True

    def drop(self, node: Node) -> None:
        """Remove `node`, and what was made only for it, unless something reads them."""
        pending = [node]
        while pending:
            node = pending.pop()
            if node.graph is None or any(v.uses for v in node.outputs):
                continue
            sources = [*(v for v in node.inputs if v is not None), *node.captures]
            node.graph.remove(node)
            for source in dict.fromkeys(sources):
                if source.producer is not None:
                    pending.append(source.producer)
                elif source.constant is not None and not source.uses and source.graph is not None:
                    source.graph.remove(source)
                self._push_last_reader(source)

    def make(
        self,
        node: Node,
        op: str,
        inputs: Sequence[Value | None],
        attributes: Mapping[str, AttributeValue | list[int] | Attribute] | None = None,
        *,
        merged: Iterable[Node] = (),
        type: Type | None = None,
        name: str = "",
    ) -> Value:
        """Make a node just before `node`, which it replaces together with the nodes `merged`; returns its output."""
        graph = node.graph
        assert graph is not None
        new = graph.add(
            op,
            inputs,
            attributes,
            outputs=[name or node.output.name],
            types=[node.output.type if type is None else type],
            name=node.name,
            origin=Origin.merge([node.origin, *(n.origin for n in merged)], "clean"),
            before=node,
        )
        if node.output in self.recorded:
            self.recorded[new.output] = new.output.type
        self.push((new,))
        return new.output

    def constant(self, node: Node, data: Array | Sequence[int] | Tensor, name: str = "") -> Value:
        """A new constant of the graph of `node`; a sequence of integers becomes int64."""
        graph = node.graph
        assert graph is not None
        if isinstance(data, Tensor):
            return graph.constant(data, name)
        array = data if isinstance(data, np.ndarray) else np.asarray(data, np.int64)
        return graph.constant(store(array), name)

    def set_input(self, node: Node, index: int, value: Value | None) -> None:
        """Read `value` as input `index`; what was read before goes if nothing else reads it."""
        old = node.input(index)
        node.set_input(index, value)
        self.push((node,))
        if old is not None:
            self._push_last_reader(old)
            if old.producer is not None:
                self.drop(old.producer)
            elif old.constant is not None and not old.uses and old.graph is not None:
                old.graph.remove(old)

    def touch(self, node: Node, *merged: Node) -> None:
        """Record that `node` was changed in place and now also answers for the nodes `merged`."""
        node.origin = Origin.merge([node.origin, *(n.origin for n in merged)], "clean")
        self.push((node, *node.output.users))

    # -- the worklist

    def _push_last_reader(self, value: Value) -> None:
        """What one node alone reads may be merged into it; for many readers nothing has changed."""
        if len(value.uses) == 1:
            self.push(value.users)

    def push(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            if node.graph is not None and node not in self._queued:
                self._queued.add(node)
                self._queue.append(node)

    def drain(self) -> Iterator[Node]:
        """The nodes to look at, until none is left; what is pushed meanwhile is included."""
        while self._queue:
            node = self._queue.popleft()
            self._queued.discard(node)
            if node.graph is not None:
                yield node


def is_plain(node: Node) -> bool:
    """Whether a node is of the default domain and all of its attributes are known here (not a function's parameter)."""
    return node.domain in ("", "ai.onnx") and not any(a.value is None for a in node.attributes.values())


def refine(value: Value, type: Type | None) -> None:
    """Note on `value` what `type`, of the same value, knows better: the rank, or sizes of dimensions."""
    if value.type is None:
        value.type = type
        return
    mine = value.type
    if not isinstance(mine, TensorType) or not isinstance(type, TensorType) or type.shape is None:
        return
    if mine.shape is None:
        value.type = TensorType(mine.dtype, type.shape, mine.sparse, mine.denotation, mine.axes)
    elif len(mine.shape) == len(type.shape):
        shape = tuple(b if a is None or (isinstance(a, str) and isinstance(b, int)) else a
                      for a, b in zip(mine.shape, type.shape, strict=True))  # fmt: skip
        if shape != mine.shape:
            value.type = TensorType(mine.dtype, shape, mine.sparse, mine.denotation, mine.axes)
