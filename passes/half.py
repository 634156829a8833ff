"""Half precision around a lossy pass: it fits in float, and what it leaves is stored as the model stores it.

Weights kept as float16 or bfloat16 behind a Cast are float constants to every pass (`look_through`), and so are tables
that are cast as a whole in one place, and by the rows that are looked up in another. Afterwards those that are left get
their Cast back, and new weights of the same names or layers one of their own (`restore`).

A graph that computes in half precision is turned into one that computes in float, with Casts at its inputs and outputs
(`widen`), where a pass has no kernels in half precision to aim at. Runtimes compute so on CPUs anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ..ir.graph import Graph, Node, Value
from ..ir.origin import Origin
from ..ir.shapes.infer import infer
from ..ir.tensor import LazyTensor, Tensor
from ..ir.types import DType, TensorType, Type

HALVES = frozenset({DType.FLOAT16, DType.BFLOAT16})
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_NAMING_TYPES = ("to", "dtype", "output_dtype")
"""Attributes that name the element type of a result."""

LEAST = 256
"""Elements from which on a constant is worth a Cast."""


@dataclass(slots=True)
class Stored:
    """What is stored in half precision: the float constants that stand for it, each with its numbers and the half
    that they are of; by their names, which what a pass writes in their place has, too, the type and the name of what
    was cast; and the layers that read one, with the names of the nodes that they were made from."""

    halves: dict[Value, tuple[Tensor, Tensor]] = field(default_factory=dict)
    cast: dict[str, tuple[DType, str]] = field(default_factory=dict)
    layers: dict[Node, DType] = field(default_factory=dict)
    names: dict[str, DType] = field(default_factory=dict)

    def remember(self, wide: Value, half: Tensor, name: str) -> None:
        assert wide.constant is not None
        self.halves[wide] = wide.constant, half
        self.cast[wide.name] = half.dtype, name

    def read_by(self, node: Node, dtype: DType) -> None:
        self.layers[node] = dtype
        self.names.update(dict.fromkeys(node.origin.nodes, dtype))

    def type_of(self, node: Node) -> DType | None:
        """The type that a layer's weights are stored in, where it is a half."""
        own = self.layers.get(node)
        return own or next((self.names[name] for name in node.origin.nodes if name in self.names), None)


def look_through(graph: Graph) -> Stored:
    """Make float constants of what is cast from constants in half precision."""
    stored = Stored()
    for part in graph.graphs():
        for node in tuple(part):
            source = node.input(0) if node.op == "Cast" and not node.domain else None
            half = None if source is None else source.constant
            if half is None or half.dtype not in HALVES or node.get_int("to") != int(DType.FLOAT):
                continue
            if node.output.is_output:
                continue
            wide = part.constant(_widened(half), node.output.name)
            for user, index in tuple(node.output.uses):
                if isinstance(user, Node) and user.op in _LAYERS and index == 1:
                    stored.read_by(user, half.dtype)
            node.output.replace_uses(wide)
            part.remove(node)
            if source is not None:
                stored.remember(wide, half, source.name)
                _look_up(source, wide)
    return stored


def _look_up(table: Value, wide: Value) -> None:
    """Let nodes that look up rows of a `table` in half precision and cast them look up the same rows in `wide`."""
    for node, index in tuple(table.uses):
        if not isinstance(node, Node) or (node.domain, node.op, index) != ("", "Gather", 0):
            continue
        casts = [user for user, _ in node.output.uses]
        if node.graph is wide.graph and casts and all(isinstance(cast, Node) and _widens(cast) for cast in casts):
            node.set_input(0, wide)
            node.output.type = _type_in(DType.FLOAT, node.output.type)
            for cast in casts:
                if isinstance(cast, Node) and cast.graph is not None:
                    cast.output.replace_uses(node.output)
                    cast.graph.remove(cast)


def _widens(cast: Node) -> bool:
    return cast.op == "Cast" and cast.get_int("to") == int(DType.FLOAT) and not cast.output.is_output


def restore(graph: Graph, stored: Stored) -> None:
    """Store in half precision again what is left of `stored`, and the new weights of its layers."""
    for part in graph.graphs():
        new: dict[Value, Tensor] = {}
        for value, (wide, half) in stored.halves.items():
            if value.graph is part and value.uses and value.constant is not None:
                new[value] = half if value.constant is wide else _narrowed(value.constant, half.dtype)
        for value in part.constants:
            constant, (dtype, _) = value.constant, stored.cast.get(value.name, (None, ""))
            if value in new or dtype is None or constant is None or constant.dtype is not DType.FLOAT:
                continue
            if value.uses and _fits(constant, dtype):
                new[value] = _narrowed(constant, dtype)
        for node in part:
            dtype = stored.type_of(node) if node.op in _LAYERS else None
            for read in node.inputs[1:3] if dtype is not None else ():
                constant = None if read is None else read.constant
                if read is None or constant is None or read in new or constant.dtype is not DType.FLOAT:
                    continue
                if constant.size >= LEAST and dtype is not None and _fits(constant, dtype):
                    new[read] = _narrowed(constant, dtype)
        _cast(part, new, stored)


def computes_in_half(graph: Graph) -> bool:
    """Whether a layer of `graph` has weights in half precision."""
    weights = (node.input(1) for node in graph.walk() if node.op in _LAYERS and not node.domain)
    return any(v is not None and v.constant is not None and v.constant.dtype in HALVES for v in weights)


def widen(graph: Graph) -> Stored:
    """Turn a graph that computes in half precision into one that computes in float; its interface stays."""
    stored = Stored()
    for part in graph.graphs():
        for value in tuple(part.constants):
            half = value.constant
            if half is not None and half.dtype in HALVES:
                wide = part.constant(_widened(half), value.name)
                for user, index in tuple(value.uses):
                    if isinstance(user, Node) and user.op in _LAYERS and index == 1:
                        stored.read_by(user, half.dtype)
                value.replace_uses(wide)
                stored.remember(wide, half, value.name)
        for node in part:
            _widen_attributes(node)
            for value in node.outputs:
                value.type = _wide_type(value.type)
        for value in part.inputs if part is not graph else ():
            value.type = _wide_type(value.type)
        for output in part.outputs if part is not graph else ():
            output.type = _wide_type(output.type)
    _cast_interface(graph)
    graph.sort()
    infer(graph, fresh=True)
    return stored


def _cast_interface(graph: Graph) -> None:
    for value in graph.inputs:
        if value.dtype in HALVES:
            cast = graph.add("Cast", [value], {"to": int(DType.FLOAT)}, outputs=[f"{value.name}_float"])
            for user, index in tuple(value.uses):
                if isinstance(user, Node) and user is not cast:
                    user.set_input(index, cast.output)
    for output in graph.outputs:
        kind = output.type
        result = output.value
        if isinstance(kind, TensorType) and kind.dtype in HALVES and result.producer is not None:
            cast = graph.add("Cast", [None], {"to": int(kind.dtype)}, outputs=[output.name], types=[kind])
            readers = [(user, index) for user, index in result.uses if isinstance(user, Node)]
            result.replace_uses(cast.output)
            cast.set_input(0, result)
            for user, index in readers:
                user.set_input(index, result)
            result.name = f"{output.name}_float"


def _widen_attributes(node: Node) -> None:
    for name, attribute in tuple(node.attributes.items()):
        value = attribute.value
        if name in _NAMING_TYPES and value in (int(DType.FLOAT16), int(DType.BFLOAT16)):
            node.set_attribute(name, int(DType.FLOAT))
        elif isinstance(value, Tensor) and value.dtype in HALVES:
            node.set_attribute(name, _widened(value))


def _wide_type(kind: Type | None) -> Type | None:
    return _type_in(DType.FLOAT, kind) if isinstance(kind, TensorType) and kind.dtype in HALVES else kind


def _type_in(dtype: DType, kind: Type | None) -> Type | None:
    return replace(kind, dtype=dtype) if isinstance(kind, TensorType) else kind


def _widened(half: Tensor) -> Tensor:
    return LazyTensor(DType.FLOAT, half.shape, lambda: np.asarray(half.numpy(), np.float32))


def _narrowed(wide: Tensor, dtype: DType) -> Tensor:
    return LazyTensor(dtype, wide.shape, lambda: np.asarray(wide.numpy()).astype(dtype.numpy))


def _fits(tensor: Tensor, dtype: DType) -> bool:
    """Whether no element would become infinite."""
    largest = 65504.0 if dtype is DType.FLOAT16 else 3e38
    return bool(np.abs(np.asarray(tensor.numpy())).max(initial=0.0) <= largest)


def _cast(part: Graph, halves: Mapping[Value, Tensor], stored: Stored) -> None:
    """Let the readers of each value read it from a Cast of its half."""
    first = next(iter(part), None)
    for value, half in halves.items():
        origin = Origin.merge([user.origin for user, _ in value.uses if isinstance(user, Node)], "")
        _, name = stored.cast.get(value.name, (None, value.name))
        cast = part.add(
            "Cast", [part.constant(half, name)], {"to": int(DType.FLOAT)}, outputs=[value.name], types=[value.type],
            origin=origin, before=first,
        )  # fmt: skip
        value.replace_uses(cast.output)
