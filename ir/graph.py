"""The graph: nodes, values, and the only verbs that edit them.

SSA by identity. A `Value` is made once (by a node, as a graph input, or as a constant) and every place that reads it is
in its `uses`; being a graph output is a use like any other, so "dead" is one test everywhere. Node inputs are a tuple
that nobody assigns: `Node.set_input`, `Value.replace_uses`, `Graph.add`, `Graph.remove` and `Graph.set_output` are the
edits, so use lists cannot drift. Graphs of If, Loop and Scan bodies are attributes of their node and read values of
the graphs around them by plain reference.

The names of graph inputs and outputs are the model's interface and never change; an output's name belongs to the
graph's `Output`, not to the value, so any value may become an output. All other names are hints, made unique on
writing.
"""

from __future__ import annotations

from collections.abc import Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy.typing as npt

from .attributes import Attribute, AttributeValue
from .node import Node, Use, User, Value
from .origin import Origin
from .spilled import spilled
from .tensor import ArrayTensor, Tensor
from .types import TensorType, Type

__all__ = ["Function", "FunctionKey", "Graph", "Header", "Node", "Output", "Use", "User", "Value"]

FunctionKey: TypeAlias = tuple[str, str, str]
"""Domain, name, overload."""


@dataclass(slots=True, eq=False)
class Output:
    """One graph output: its fixed name and declared type, and the value returned under them."""

    name: str
    value: Value
    type: Type | None = None
    doc: str = ""
    metadata: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """What an ONNX model says about itself besides its graph. `extra` is a serialised ModelProto of the fields that
    nothing here interprets (training info, device configurations)."""

    ir_version: int = 10
    producer_name: str = ""
    producer_version: str = ""
    domain: str = ""
    model_version: int = 0
    doc: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    extra: bytes = b""


@dataclass(slots=True)
class Function:
    """A model-local function. Its graph's inputs and outputs are untyped; `attributes` are the ones that a caller may
    give (what refers to one that it does not is left out), `defaults` those that have a value of their own."""

    domain: str
    name: str
    overload: str
    graph: Graph
    attributes: tuple[str, ...] = ()
    defaults: dict[str, Attribute] = field(default_factory=dict)


class Graph:
    """Nodes in order, with inputs, outputs and constants.

    `opsets` (domain -> version), `functions` and `header` belong to the outermost graph (a function's graph has its own
    `opsets`); bodies find them through `root`.
    """

    __slots__ = (
        "name", "doc", "metadata", "parent", "opsets", "functions", "header", "extra",
        "_inputs", "_outputs", "_constants", "_first", "_last", "_count",
    )  # fmt: skip

    def __init__(self, name: str = "", *, opsets: Mapping[str, int] | None = None) -> None:
        self.name = name
        self.doc = ""
        self.metadata: dict[str, str] = {}
        self.parent: Node | None = None
        self.opsets: dict[str, int] = dict(opsets or {})
        self.functions: dict[FunctionKey, Function] = {}
        self.header = Header()
        self.extra = b""
        self._inputs: list[Value] = []
        self._outputs: list[Output] = []
        self._constants: dict[Value, None] = {}
        self._first: Node | None = None
        self._last: Node | None = None
        self._count = 0

    # -- reading

    @property
    def inputs(self) -> tuple[Value, ...]:
        return tuple(self._inputs)

    @property
    def outputs(self) -> tuple[Output, ...]:
        return tuple(self._outputs)

    @property
    def constants(self) -> KeysView[Value]:
        """The constants this graph owns, in the order they were made."""
        return self._constants.keys()

    @property
    def root(self) -> Graph:
        """The outermost graph around this one (a function's graph is its own root)."""
        graph = self
        while graph.parent is not None and graph.parent.graph is not None:
            graph = graph.parent.graph
        return graph

    def opset(self, domain: str = "") -> int:
        """The version of an operator set in force here; 0 where the model does not import it."""
        return self.root.opsets.get(domain, 0)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Node]:
        """The nodes in order. Nodes may be added and removed, the current one included, while iterating."""
        node = self._first
        while node is not None:
            if node._graph is self:
                yield node
            node = node._next

    def __reversed__(self) -> Iterator[Node]:
        node = self._last
        while node is not None:
            if node._graph is self:
                yield node
            node = node._previous

    def walk(self) -> Iterator[Node]:
        """The nodes of this graph and of all bodies inside it, each node before its bodies' nodes."""
        for node in self:
            yield node
            if node.attributes:
                for body in node.bodies:
                    yield from body.walk()

    def graphs(self) -> Iterator[Graph]:
        """This graph and all bodies inside it; not the functions."""
        yield self
        for node in self:
            if node.attributes:
                for body in node.bodies:
                    yield from body.graphs()

    # -- making

    def add_input(self, name: str, type: Type | None, *, default: Tensor | None = None) -> Value:
        value = Value(name, type)
        value.default = default
        value._graph = self
        self._inputs.append(value)
        return value

    def add_output(self, value: Value, name: str, type: Type | None = None) -> Output:
        """Return `value` as one more output; its declared type is the value's own unless given."""
        output = Output(name, value, value.type if type is None else type)
        value._add_return(self, len(self._outputs))
        self._outputs.append(output)
        return output

    def constant(self, data: Tensor | npt.ArrayLike, name: str = "") -> Value:
        """A new constant of this graph; many elements held in memory go to a file (`spilled`)."""
        tensor = spilled(data if isinstance(data, Tensor) else ArrayTensor(data))
        value = Value(name, TensorType(tensor.dtype, tensor.shape))
        value.constant = tensor
        value._graph = self
        self._constants[value] = None
        return value

    def add(
        self,
        op: str,
        inputs: Sequence[Value | None] = (),
        attributes: Mapping[str, AttributeValue | list[int] | list[float] | list[str] | Attribute] | None = None,
        *,
        outputs: int | Sequence[str] = 1,
        types: Sequence[Type | None] = (),
        name: str = "",
        domain: str = "",
        origin: Origin | None = None,
        before: Node | None = None,
        after: Node | None = None,
    ) -> Node:
        """Make a node and put it last, or just `before` or `after` another node of this graph.

        `outputs` is a count or the hint names; `types` are the outputs' types where known.
        """
        node = Node(self, op, domain, name, tuple(inputs))
        if attributes:
            for key, attribute in attributes.items():
                node.set_attribute(key, attribute)
        if origin is not None:
            node.origin = origin
        hints = ("",) * outputs if isinstance(outputs, int) else outputs
        node._outputs = tuple([Value(hint) for hint in hints])
        for index, value in enumerate(node._outputs):
            value.producer = node
            value.index = index
            if index < len(types):
                value.type = types[index]
        if after is not None:
            self._link(node, after)
        else:
            self._link(node, self._last if before is None else before._previous)
        return node

    def add_like(self, model: Node, *, before: Node | None = None) -> Node:
        """Make a node as `model` but for what it reads and its attributes, and put it last, or just `before` another:
        the way in which graphs are copied, of which there are many."""
        node = Node(self, model.op, model.domain, model.name, ())
        node.origin, node.overload, node.doc, node.extra = model.origin, model.overload, model.doc, model.extra
        node.metadata = None if model.metadata is None else dict(model.metadata)
        outputs = []
        for index, old in enumerate(model._outputs):
            value = Value(old.name, old.type)
            value.producer, value.index = node, index
            outputs.append(value)
        node._outputs = tuple(outputs)
        self._link(node, self._last if before is None else before._previous)
        return node

    # -- editing

    def set_output(self, index: int, value: Value) -> None:
        """Return `value` as output `index`, under the same name and declared type."""
        output = self._outputs[index]
        output.value._drop_return(self, index)
        output.value = value
        value._add_return(self, index)

    def remove_output(self, index: int) -> None:
        """Drop an output and close the gap. Only for bodies and functions: a model's outputs are its interface."""
        for i, output in enumerate(self._outputs):
            output.value._drop_return(self, i)
        del self._outputs[index]
        for i, output in enumerate(self._outputs):
            output.value._add_return(self, i)

    def remove_input(self, index: int) -> None:
        """Drop an unused input and close the gap. A model's inputs are its interface: only where one is given up."""
        if self._inputs[index]._uses:
            raise ValueError(f"input {self._inputs[index].name!r} is still used")
        self._inputs.pop(index)._graph = None

    def remove(self, item: Node | Value) -> None:
        """Remove a node or a constant. Raises `ValueError` while something reads it."""
        if isinstance(item, Value):
            if item._uses:
                raise ValueError(f"constant {item.name!r} is still used")
            del self._constants[item]
            item._graph = None
            return
        if item._graph is not self:
            raise ValueError(f"node {item.name!r} ({item.op}) is not in this graph")
        for value in item._outputs:
            if value._uses:
                raise ValueError(f"output {value.name!r} of node {item.name!r} ({item.op}) is still used")
        if item.attributes:
            for body in item.bodies:
                body.clear()
        for index, read in enumerate(item._inputs):
            if read is not None:
                del read._uses[item, index]
        item._inputs = ()
        self._unlink(item)
        item._graph = None

    def clear(self) -> None:
        """Remove all nodes, outputs and constants: what holds values of the graphs around this one lets go of them."""
        for index in reversed(range(len(self._outputs))):
            self.remove_output(index)
        # In whatever order the nodes stand, bodies that read this graph go first, then the reads among its own nodes.
        for node in self:
            for body in node.bodies:
                body.clear()
            node.set_inputs(())
        for node in self:
            self.remove(node)
        for value in tuple(self._constants):
            self.remove(value)

    def move(self, node: Node, *, before: Node | None = None) -> None:
        """Put a node of this graph just before another one, or last."""
        if node is before:
            return
        self._unlink(node)
        self._link(node, self._last if before is None else before._previous)

    def become(self, other: Graph) -> None:
        """Take over everything `other` holds; what this graph held is dropped, and `other` is left empty."""
        for item in (*self, *self._inputs, *self._constants):
            item._graph = None
        for item in (*other, *other._inputs, *other._constants):
            item._graph = self
        for index, output in enumerate(other._outputs):
            output.value._drop_return(other, index)
            output.value._add_return(self, index)
        for slot in Graph.__slots__:
            if slot != "parent":
                setattr(self, slot, getattr(other, slot))
        Graph.__init__(other, other.name)

    def sweep(self) -> int:
        """Remove every node that nothing reads, in bodies too, and every constant left unused; returns how many nodes.

        Every ONNX operator is free of side effects, so unread means dead. Inputs and outputs stay.
        """
        removed = 0
        for node in reversed(self):
            if all(not value._uses for value in node._outputs):
                self.remove(node)
                removed += 1
            else:
                removed += sum(body.sweep() for body in node.bodies)
        for value in tuple(self._constants):
            if not value._uses:
                self.remove(value)
        return removed

    def sort(self) -> bool:
        """Put the nodes in topological order, bodies too, moving as few as needed; returns whether anything moved.

        Raises `ModelError` where the nodes form a cycle.
        """
        from .order import sort

        return sort(self)

    def clone(self) -> Graph:
        """A copy that shares nothing with this graph but the immutable tensors."""
        from .clone import clone

        return clone(self)

    def _link(self, node: Node, previous: Node | None) -> None:
        following = self._first if previous is None else previous._next
        node._previous, node._next = previous, following
        if previous is None:
            self._first = node
        else:
            previous._next = node
        if following is None:
            self._last = node
        else:
            following._previous = node
        self._count += 1

    def _unlink(self, node: Node) -> None:
        # The node keeps its own links, so that an iteration standing on it finds the way on.
        previous, following = node._previous, node._next
        if previous is None:
            self._first = following
        else:
            previous._next = following
        if following is None:
            self._last = previous
        else:
            following._previous = previous
        self._count -= 1

    def __str__(self) -> str:
        from .text.dump import dump

        return dump(self)

    def __repr__(self) -> str:
        return f"Graph({self.name!r}, {self._count} nodes)"
