"""Values and nodes: the two ends of every edge, and the edits that keep them in step."""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from .attributes import Attribute, AttributeKind, AttributeValue
from .origin import Origin
from .tensor import Tensor
from .types import DType, Shape, TensorType, Type

if TYPE_CHECKING:
    from .graph import Graph

User: TypeAlias = "Node | Graph"
Use: TypeAlias = tuple[User, int]
"""Who reads a value, and as which of its inputs (of a graph: as which of its outputs)."""


_DECODING = 100
"""Values that a weight is decoded through at most."""


class Value:
    """One edge of the graph: made in one place, read in any number.

    `producer` is the node that makes it and `index` its place among that node's outputs; both are `None` and 0 for
    graph inputs and constants. `constant` is the data of a constant. `default` is the data of a graph input that may be
    left out: not a constant, because a caller can override it.
    """

    __slots__ = (
        *("name", "type", "producer", "index", "constant", "default", "doc", "metadata"),
        *("_graph", "_uses", "_returns"),
    )

    name: str
    type: Type | None
    producer: Node | None
    index: int
    constant: Tensor | None
    default: Tensor | None
    doc: str
    metadata: dict[str, str] | None

    def __init__(self, name: str = "", type: Type | None = None) -> None:
        self.name = name
        self.type = type
        self.producer = None
        self.index = 0
        self.constant = None
        self.default = None
        self.doc = ""
        self.metadata = None
        self._graph: Graph | None = None
        self._uses: dict[Use, None] = {}
        self._returns = 0  # of the uses, those that are outputs of graphs: a value may have any number of uses

    @property
    def graph(self) -> Graph | None:
        """The graph that owns this value; `None` once it was removed."""
        return self._graph if self.producer is None else self.producer.graph

    @property
    def uses(self) -> KeysView[Use]:
        """Every read of this value, in the order in which the reads were made. A live view: copy it before editing."""
        return self._uses.keys()

    @property
    def users(self) -> tuple[Node, ...]:
        """The nodes that read this value, each once; graph outputs are not nodes."""
        return tuple(dict.fromkeys(user for user, _ in self._uses if isinstance(user, Node)))

    @property
    def is_output(self) -> bool:
        """Whether a graph (this one or a body) returns this value."""
        return self._returns > 0

    @property
    def is_input(self) -> bool:
        return self.producer is None and self.constant is None and self._graph is not None

    @property
    def unknown(self) -> str:
        """Why the data of this value, which is no constant, is not known before the model runs: "it is ..."."""
        if self.default is not None:
            return "an input with a default, which a caller may override"
        if self.is_input:
            return "an input"
        return "computed from constants when the model is loaded" if self.of_constants else "computed"

    @property
    def of_constants(self) -> bool:
        """Whether this value is a constant or follows from constants alone, as weights do that are decoded at load: by
        few nodes, of its own graph."""
        seen: set[Value] = set()
        stack: list[Value | None] = [self]
        while stack:
            value = stack.pop()
            if value is None or value in seen:
                continue
            seen.add(value)
            if value.is_input or len(seen) > _DECODING or (value.producer is not None and value.producer.captures):
                return False
            stack += [] if value.producer is None else value.producer.inputs
        return True

    @property
    def dtype(self) -> DType | None:
        """Element type where the value is a tensor of known type."""
        return self.type.dtype if isinstance(self.type, TensorType) else None

    @property
    def shape(self) -> Shape | None:
        """Shape where the value is a tensor of known rank."""
        return self.type.shape if isinstance(self.type, TensorType) else None

    @property
    def static_shape(self) -> tuple[int, ...] | None:
        """Shape where every dimension is a known number."""
        return self.type.static_shape if isinstance(self.type, TensorType) else None

    def numpy(self) -> npt.NDArray[np.generic] | None:
        """The elements of a constant, else `None`."""
        return None if self.constant is None else self.constant.numpy()

    def _add_return(self, graph: Graph, index: int) -> None:
        self._uses[graph, index] = None
        self._returns += 1

    def _drop_return(self, graph: Graph, index: int) -> None:
        del self._uses[graph, index]
        self._returns -= 1

    def replace_uses(self, other: Value) -> None:
        """Let every reader of this value, graph outputs included, read `other` instead."""
        if other is self:
            return
        for use in self._uses:
            user, index = use
            if isinstance(user, Node):
                inputs = user._inputs
                user._inputs = (other,) if len(inputs) == 1 else (*inputs[:index], other, *inputs[index + 1 :])
            else:
                user._outputs[index].value = other
            other._uses[use] = None
        other._returns += self._returns
        self._uses.clear()
        self._returns = 0

    def __repr__(self) -> str:
        return f"Value({self.name!r})"


class Node:
    """One operation. Made by `Graph.add`, ended by `Graph.remove`."""

    __slots__ = (
        "op", "domain", "overload", "name", "attributes", "origin", "doc", "metadata", "extra",
        "_inputs", "_outputs", "_graph", "_previous", "_next",
    )  # fmt: skip

    op: str
    domain: str
    overload: str
    name: str
    attributes: dict[str, Attribute]
    origin: Origin
    doc: str
    metadata: dict[str, str] | None
    extra: bytes
    """What ONNX stores on a node and nothing here interprets, as a serialised NodeProto of only those fields."""

    def __init__(self, graph: Graph, op: str, domain: str, name: str, inputs: tuple[Value | None, ...]) -> None:
        self.op = op
        self.domain = domain
        self.overload = ""
        self.name = name
        self.attributes = {}
        self.origin = _NOWHERE
        self.doc = ""
        self.metadata = None
        self.extra = b""
        self._graph: Graph | None = graph
        self._inputs = inputs
        self._outputs: tuple[Value, ...] = ()
        self._previous: Node | None = None
        self._next: Node | None = None
        for index, value in enumerate(inputs):
            if value is not None:
                value._uses[self, index] = None

    @property
    def graph(self) -> Graph | None:
        """The graph that owns this node; `None` once it was removed."""
        return self._graph

    @property
    def inputs(self) -> tuple[Value | None, ...]:
        """The values read, `None` for an optional input that is absent."""
        return self._inputs

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The values made. One that ONNX would leave unnamed is present, and merely unused."""
        return self._outputs

    @property
    def output(self) -> Value:
        """The first output."""
        return self._outputs[0]

    @property
    def label(self) -> str:
        """What a person knows the node by: its name, else its first output's, else its operator."""
        return self.name or (self._outputs[0].name if self._outputs else "") or self.op

    def input(self, index: int) -> Value | None:
        """Input `index`, or `None` where it is absent or past the end."""
        return self._inputs[index] if index < len(self._inputs) else None

    def set_input(self, index: int, value: Value | None) -> None:
        """Read `value` as input `index`; an index past the end adds absent inputs before it."""
        inputs = self._inputs
        if index >= len(inputs):
            inputs = (*inputs, *(None,) * (index + 1 - len(inputs)))
        old = inputs[index]
        if old is value:
            return
        if old is not None:
            del old._uses[self, index]
        if value is not None:
            value._uses[self, index] = None
        self._inputs = (*inputs[:index], value, *inputs[index + 1 :])

    def set_inputs(self, values: Sequence[Value | None]) -> None:
        """Read exactly `values`."""
        for index, old in enumerate(self._inputs):
            if old is not None:
                del old._uses[self, index]
        self._inputs = tuple(values)
        for index, value in enumerate(self._inputs):
            if value is not None:
                value._uses[self, index] = None

    def set_attribute(self, name: str, value: AttributeValue | list[int] | list[float] | list[str] | Attribute) -> None:
        """Set an attribute from a Python value (see `Attribute.of`) or an `Attribute`."""
        attribute = value if isinstance(value, Attribute) else Attribute.of(value)
        self.attributes[name] = attribute
        for body in _graphs(attribute):
            body.parent = self

    def get_int(self, name: str, default: int = 0) -> int:
        value = self._value(name, AttributeKind.INT)
        return default if value is None else value  # type: ignore[return-value]

    def get_ints(self, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
        value = self._value(name, AttributeKind.INTS)
        return tuple(default) if value is None else value  # type: ignore[return-value]

    def get_float(self, name: str, default: float = 0.0) -> float:
        value = self._value(name, AttributeKind.FLOAT)
        return default if value is None else value  # type: ignore[return-value]

    def get_floats(self, name: str, default: Sequence[float] = ()) -> tuple[float, ...]:
        value = self._value(name, AttributeKind.FLOATS)
        return tuple(default) if value is None else value  # type: ignore[return-value]

    def get_string(self, name: str, default: str = "") -> str:
        value = self._value(name, AttributeKind.STRING)
        return default if value is None else value  # type: ignore[return-value]

    def get_tensor(self, name: str) -> Tensor | None:
        return self._value(name, AttributeKind.TENSOR)  # type: ignore[return-value]

    def _value(self, name: str, kind: AttributeKind) -> AttributeValue:
        attribute = self.attributes.get(name)
        if attribute is None or attribute.kind is not kind:
            return None
        return attribute.value

    def adopt(self, value: Value) -> None:
        """Make `value`, with all that reads it, in place of this node's only output, which nothing may read. The node
        that made it gets an output without a reader instead."""
        before, (mine,) = value.producer, self._outputs
        if before is None or mine._uses:
            raise ValueError(f"node {self.name!r} ({self.op}) cannot make {value.name!r}")
        mine.producer, mine.index = before, value.index
        before._outputs = tuple(mine if output is value else output for output in before._outputs)
        value.producer, value.index = self, 0
        self._outputs = (value,)

    def add_outputs(self, count: int) -> None:
        """Make `count` more outputs, optional ones of its operator that were left out."""
        for _ in range(count):
            value = Value()
            value.producer, value.index = self, len(self._outputs)
            self._outputs = (*self._outputs, value)

    @property
    def bodies(self) -> tuple[Graph, ...]:
        """The graphs held by this node's attributes (If branches, Loop and Scan bodies), in attribute order."""
        bodies: tuple[Graph, ...] = ()
        for attribute in self.attributes.values():
            kind = attribute.kind
            if kind is _GRAPH or kind is _GRAPHS:  # asked of every node, again and again
                bodies += (*_graphs(attribute),)
        return bodies

    @property
    def captures(self) -> tuple[Value, ...]:
        """The values that this node's bodies read from the graphs around them, each once, in the order of the reads."""
        captured: dict[Value, None] = {}
        inner = dict.fromkeys(graph for body in self.bodies for graph in body.graphs())
        for body in inner:
            for node in body:
                captured.update((v, None) for v in node._inputs if v is not None and v.graph not in inner)
            captured.update((o.value, None) for o in body.outputs if o.value.graph not in inner)
        return tuple(captured)

    def __repr__(self) -> str:
        return f"Node({self.op}, {self.name!r})"


def _graphs(attribute: Attribute) -> Iterable[Graph]:
    if attribute.kind is AttributeKind.GRAPH and attribute.value is not None:
        return (attribute.value,)  # type: ignore[return-value]
    if attribute.kind is AttributeKind.GRAPHS and attribute.value is not None:
        return attribute.value  # type: ignore[return-value]
    return ()


_GRAPH, _GRAPHS = AttributeKind.GRAPH, AttributeKind.GRAPHS
_NOWHERE = Origin()
