"""Types, shapes and shape arithmetic: what is known of every value before anything runs.

One walk in topological order. Each node is handed to the shape rule of its operator (`shape_rules`), which works on
symbolic sizes and on the elements of small integer tensors; to its bodies (`control_flow`) or its function; or to
ONNX's own inference. Where a rule leaves a size open and the model records one, the recorded one is kept; where both
know, the inferred one is. Recorded element types must agree: a runtime refuses the model otherwise. A recorded rank
that disagrees is dropped, as runtimes do.

Declared types of the model's inputs and outputs are never changed, but by `bind`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...errors import ModelError
from ..calls import most_nodes
from ..graph import Function, Graph
from ..instantiate import instantiate
from ..node import Node, Value
from ..tensor import Tensor
from ..types import Dim, DType, TensorType, Type, is_possible
from ..uncollected import uncollected
from .control_flow import control_flow
from .onnx_inference import fact_of, onnx_facts, type_of
from .rules import RULES, Call, Cannot, Fact
from .symbols import Size, Sym, symbol

__all__ = ["Inference", "Size", "Sym", "analyse", "axis_name", "bind", "infer", "size_names"]


@dataclass(slots=True)
class Inference:
    """What is known of the values of a graph, its bodies, and the functions it calls.

    `calls` holds, for every call of a model-local function, the function's graph as instantiated for this call; its
    values have facts as well.
    """

    facts: dict[Value, Fact] = field(default_factory=dict)
    calls: dict[Node, Graph] = field(default_factory=dict)

    def type(self, value: Value) -> Type | None:
        fact = self.facts.get(value)
        return value.type if fact is None else type_of(fact)

    def shape(self, value: Value) -> tuple[Size, ...] | None:
        """The shape with every unknown size told apart: equal entries are equal sizes."""
        fact = self.facts.get(value)
        if fact is None and value.constant is not None:
            return value.constant.shape
        return None if fact is None else fact.shape

    @property
    def elements(self) -> dict[Value, tuple[Size, ...]]:
        """The elements, in row-major order, of the small integer tensors that nodes make and that are known from the
        shapes alone. An element is a number or a symbol; one that starts with `?` is an unknown."""
        arrays = {}
        for value, fact in self.facts.items():
            integral = fact.dtype in (DType.INT64, DType.INT32)
            if integral and value.producer is not None and fact.elements is not None:
                arrays[value] = tuple(fact.elements.reshape(-1).tolist())
        return arrays


def infer(graph: Graph, *, fresh: bool = False) -> Inference:
    """Write the type of every value in `graph` and its bodies onto it.

    With `fresh`, types recorded on values that nodes make are forgotten first: for use after a rewrite that may have
    left stale ones. Raises `ModelError` naming the node where no run of it can succeed, or where a recorded element
    type contradicts the inferred one.
    """
    inference = analyse(graph, fresh=fresh)
    _record(graph, inference)
    return inference


def _record(graph: Graph, inference: Inference) -> None:
    for inner in graph.graphs():
        if inner is not graph:
            for value in inner.inputs:
                _write(value, inference)
        for node in inner:
            for value in node.outputs:
                _write(value, inference)
        if inner is not graph:
            for output in inner.outputs:
                output.type = inference.type(output.value) or output.type


def _write(value: Value, inference: Inference) -> None:
    fact = inference.facts.get(value)
    inferred = None if fact is None else type_of(fact)
    old = value.type
    if isinstance(inferred, TensorType) and isinstance(old, TensorType) and (old.sparse or old.denotation or old.axes):
        keeps = old.rank == inferred.rank
        inferred = replace(inferred, sparse=old.sparse, denotation=old.denotation, axes=old.axes if keeps else ())
    if inferred != old:
        value.type = inferred


def bind(graph: Graph, dims: Mapping[str, int]) -> Inference:
    """Fix the symbolic sizes named in `dims`, in the declared types of inputs and outputs too, and infer afresh.

    Raises `ModelError` where no input has a size of such a name.
    """
    size_names(graph, dims)
    inference = analyse(graph, dims, fresh=True)
    for value in graph.inputs:
        value.type = _bound(value.type, dims)
    for output in graph.outputs:
        declared = _bound(output.type, dims)
        shape = inference.shape(output.value)
        if isinstance(declared, TensorType) and declared.shape is not None and shape is not None:
            sizes = [s if isinstance(s, int) and not isinstance(d, int) else d for d, s in zip(declared.shape, shape)]
            declared = replace(declared, shape=tuple(sizes)) if len(sizes) == declared.rank == len(shape) else declared
        output.type = declared
    _record(graph, inference)
    return inference


def size_names(graph: Graph, wanted: Iterable[str] = ()) -> tuple[str, ...]:
    """The names of symbolic sizes of the inputs, in order. Raises `ModelError` for a name that is not one."""
    names = tuple(dict.fromkeys(d for v in graph.inputs for d in v.shape or () if isinstance(d, str)))
    for name in wanted:
        if name not in names:
            listed = ", ".join(names) or "none"
            raise ModelError(f"graph {graph.name!r}: no input has a size named {name!r}; the named sizes are: {listed}")
    return names


def _bound(type: Type | None, dims: Mapping[str, int]) -> Type | None:
    if not isinstance(type, TensorType) or type.shape is None:
        return type
    sizes: list[Dim] = []
    for dim in type.shape:
        size = symbol(dim, dims) if isinstance(dim, str) else dim
        # A name that holds none of the bound ones stays spelled as it is.
        unbound = isinstance(dim, str) and size == symbol(dim)
        sizes.append(dim if unbound else str(size) if isinstance(size, Sym) else size)
    return replace(type, shape=tuple(sizes))


def analyse(
    graph: Graph, dims: Mapping[str, int] | None = None, *, fresh: bool = False, declared: bool = True
) -> Inference:
    """What `infer` would write, with the sizes in `dims` fixed; changes nothing. Without `declared`, what the model
    declares of its outputs is left aside. Raises as `infer` does."""
    walk = _Walk(graph, dims or {}, fresh)
    if not declared:
        walk.declared.clear()
    with uncollected():
        walk.run(graph, None)
    return walk.inference


class _Walk:
    """One inference over one model."""

    def __init__(self, graph: Graph, dims: Mapping[str, int], fresh: bool) -> None:
        self.inference = Inference()
        self.facts = self.inference.facts
        self.functions = graph.root.functions
        self.dims = dims
        self.fresh = fresh
        self.counter = itertools.count()
        self.declared = {output.value: output.type for output in graph.outputs}
        self.depth = 0
        self.called: dict[tuple[object, ...], tuple[Graph, list[Fact]]] = {}
        self.left = most_nodes(graph)
        """Nodes of bodies and functions still to be looked at: loops in loops and calls in calls are many."""

    def run(self, graph: Graph, inputs: Sequence[Fact] | None) -> list[Fact]:
        """Infer a graph for the facts of its inputs, or for their declared types; returns its outputs' facts."""
        opset = graph.opset()
        for index, value in enumerate(graph.inputs):
            fact = inputs[index] if inputs is not None and index < len(inputs) else None
            call = self.call_for(None, opset, 0)
            if fact is None:
                self.facts[value] = _sized(value, fact_of(value.type, call), self.dims)
            else:
                self.facts[value] = fact if self.fresh and _says(fact) else self.merge(value, fact, value.type, call)
        for node in ordered(graph):
            self.visit(node, opset)
        self.left -= len(graph)
        return [self.fact(output.value) for output in graph.outputs]

    def body(self, graph: Graph, inputs: Sequence[Fact]) -> list[Fact]:
        if self.left <= 0:
            return [Fact() for _ in graph.outputs]
        self.depth += 1
        try:
            return self.run(graph, inputs)
        finally:
            self.depth -= 1

    def fact(self, value: Value) -> Fact:
        fact = self.facts.get(value)
        if fact is None:
            tensor = value.constant
            if tensor is not None:
                fact = Fact(tensor.dtype, tensor.shape, tensor=tensor)
            else:
                fact = fact_of(value.type, self.call_for(None, 0, 0))
            self.facts[value] = fact
        return fact

    def call_for(self, node: Node | None, opset: int, version: int) -> Call:
        facts = [] if node is None else [None if v is None else self.fact(v) for v in node.inputs]
        return Call(node, facts, opset, version, self.counter, self.dims)  # type: ignore[arg-type]

    def visit(self, node: Node, opset: int) -> None:
        version = opset if not node.domain or node.graph is None else node.graph.opset(node.domain)
        call = self.call_for(node, opset, version)
        try:
            facts = self.infer(call)
            if any(not isinstance(size, int | Sym) for fact in facts for size in fact.shape or ()):
                raise TypeError("a size is no whole number")
            if not all(is_possible(fact.shape or ()) for fact in facts):
                raise ValueError("the result would have more axes or elements than any array can have")
        except Cannot:
            facts = []
        except ModelError:
            # A branch that is never taken, a loop that never runs, may hold what could not run.
            if not self.depth:
                raise
            facts = []
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            if not self.depth:
                raise call.error(f"its inputs and attributes do not fit the operator ({error})") from error
            facts = []
        for index, value in enumerate(node.outputs):
            fact = facts[index] if index < len(facts) else Fact()
            if value.type is not None and not (self.fresh and _says(fact)):
                fact = self.merge(value, fact, value.type, call)
            if value in self.declared:
                fact = self.merge(value, fact, self.declared[value], call)
            if fact.shape is not None and any(isinstance(s, Sym) and s.large for s in fact.shape):
                short = (call.fresh() if isinstance(s, Sym) and s.large else s for s in fact.shape)
                fact = replace(fact, shape=tuple(short))
            self.facts[value] = fact

    def infer(self, call: Call) -> list[Fact]:
        node = call.node
        function = self.functions.get((node.domain, node.op, node.overload)) if self.functions else None
        if function is not None:
            return self.call(call, function)
        rule = RULES.get((node.domain, node.op))
        if rule is not None:
            try:
                return rule(call)
            except Cannot:
                return onnx_facts(call)
        if node.attributes and node.bodies:
            try:
                return control_flow(call, self.body)
            except Cannot:
                return onnx_facts(call)
        return onnx_facts(call)

    def call(self, call: Call, function: Function) -> list[Fact]:
        """The outputs of a function, inferred once for all calls that give it the same."""
        node = call.node
        signature = (function.domain, function.name, function.overload, _given(call))
        if signature not in self.called:
            if self.left <= 0:
                return [Fact() for _ in node.outputs]
            instance = instantiate(function, node)
            self.called[signature] = instance, self.run(instance, [f or Fact() for f in call.facts])
        self.inference.calls[node], outputs = self.called[signature]
        return outputs[: len(node.outputs)]

    def merge(self, value: Value, fact: Fact, recorded: Type | None, call: Call) -> Fact:
        """The inferred fact, completed by a recorded type."""
        actual = fact.other or TensorType(fact.dtype)
        if recorded is not None and _says(fact) and type(recorded) is not type(actual):
            # What a loop carries may be an optional before its first turn, and what that holds after it.
            if not self.depth and TensorType in (type(recorded), type(actual)):
                raise _contradicted(value, _kind(recorded), _kind(actual), call)
            return fact
        if not isinstance(recorded, TensorType):
            return fact if _says(fact) else Fact(other=recorded)
        if fact.other is not None:
            return fact
        dtype = fact.dtype or recorded.dtype
        if recorded.dtype not in (DType.UNDEFINED, dtype) and not self.depth:
            raise _contradicted(value, recorded.dtype.text, dtype.text, call)
        if recorded.shape is None:
            return replace(fact, dtype=dtype) if fact.dtype != dtype else fact
        if fact.shape is None:
            return replace(fact_of(recorded, call), dtype=dtype, data=fact.data)
        if len(fact.shape) != len(recorded.shape):
            return fact
        if fact.dtype == dtype and all(isinstance(s, int) or s.named for s in fact.shape):
            return fact
        sizes = list(fact.shape)
        for axis, dim in enumerate(recorded.shape):
            size = sizes[axis]
            if dim is not None and isinstance(size, Sym) and not size.named:
                sizes[axis] = symbol(dim, self.dims) if isinstance(dim, str) else dim
        return replace(fact, dtype=dtype, shape=tuple(sizes))


def axis_name(name: str, axis: int) -> str:
    """What a size without a name, that of an axis of the input `name`, is called in `dims`."""
    return f"{name}[{axis}]"


def _sized(value: Value, fact: Fact, dims: Mapping[str, int]) -> Fact:
    """`fact` of an input, with the sizes that `dims` tells by its axes."""
    if not dims or fact.shape is None:
        return fact
    sizes = tuple(dims.get(axis_name(value.name, axis), size) for axis, size in enumerate(fact.shape))
    return fact if sizes == fact.shape else replace(fact, shape=sizes)


def _contradicted(value: Value, recorded: str, actual: str, call: Call) -> ModelError:
    message = f"value {value.name!r} is recorded as {recorded} but the operator makes {actual}"
    return call.error(message) if call.node is not None else ModelError(message)


def _kind(of: Type) -> str:
    """A word for the kind of a type: `a tensor`, `a sequence`."""
    word = type(of).__name__.removesuffix("Type").lower()
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _says(fact: Fact) -> bool:
    return fact.dtype is not DType.UNDEFINED or fact.other is not None


def _given(call: Call) -> tuple[object, ...]:
    """All that decides what a function makes of a call."""
    facts = tuple(
        None if f is None else (f.dtype, f.shape, f.other, None if f.elements is None else tuple(f.elements.flat))
        for f in call.facts
    )
    attributes = tuple((name, one.kind, one.ref, _hashable(one.value)) for name, one in call.node.attributes.items())
    return facts, attributes, len(call.node.outputs)


def _hashable(value: object) -> object:
    """Tensors and graphs by what they are, not what they hold: there are few of them."""
    return id(value) if isinstance(value, Tensor | Graph) else repr(value)


def ordered(graph: Graph) -> Iterable[Node]:
    """The nodes, each after those whose values it or its bodies read; the graph's own order where that is one."""
    nodes = list(graph)
    place = {node: index for index, node in enumerate(nodes)}
    reads: dict[Node, list[Node]] = {}
    in_order = True
    for node in nodes:
        values = node.inputs + node.captures if node.attributes and node.bodies else node.inputs
        reads[node] = [v.producer for v in values if v is not None and v.producer in place]
        in_order = in_order and all(place[maker] < place[node] for maker in reads[node])
    if in_order:
        return nodes
    import graphlib

    try:
        return list(graphlib.TopologicalSorter(reads).static_order())
    except graphlib.CycleError as error:
        raise ModelError(f"graph {graph.name!r}: node {error.args[1][0].name!r} is on a cycle") from error
