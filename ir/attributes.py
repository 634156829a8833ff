"""Attributes of nodes: a value, its ONNX kind, and nothing else."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from .tensor import ArrayTensor, SparseTensor, Tensor
from .types import MapType, OpaqueType, OptionalType, SequenceType, TensorType, Type

if TYPE_CHECKING:
    from .graph import Graph

AttributeValue: TypeAlias = (
    "int | float | str | bytes | Tensor | Graph | Type | tuple[int, ...] | tuple[float, ...] | tuple[str | bytes, ...]"
    " | tuple[Tensor, ...] | tuple[Graph, ...] | tuple[Type, ...] | None"
)


class AttributeKind(enum.IntEnum):
    """The value is `onnx.AttributeProto.AttributeType`'s own number."""

    UNDEFINED = 0
    FLOAT = 1
    INT = 2
    STRING = 3
    TENSOR = 4
    GRAPH = 5
    FLOATS = 6
    INTS = 7
    STRINGS = 8
    TENSORS = 9
    GRAPHS = 10
    SPARSE_TENSOR = 11
    SPARSE_TENSORS = 12
    TYPE_PROTO = 13
    TYPE_PROTOS = 14


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute. `value` is `None` exactly when `ref` names the function attribute it stands for."""

    kind: AttributeKind
    value: AttributeValue
    ref: str = ""
    doc: str = ""

    @staticmethod
    def of(value: AttributeValue | list[int] | list[float] | list[str] | npt.NDArray[np.generic]) -> Attribute:
        """The attribute for a Python value; its kind follows from the value's type.

        Raises `TypeError` for a value of no ONNX kind, and for an empty list, whose kind cannot be known.
        """
        from .graph import Graph

        if isinstance(value, np.ndarray):
            return Attribute(AttributeKind.TENSOR, ArrayTensor(value))
        if isinstance(value, bool | int | np.integer):
            return Attribute(AttributeKind.INT, int(value))
        if isinstance(value, float | np.floating):
            return Attribute(AttributeKind.FLOAT, float(value))
        if isinstance(value, str | bytes):
            return Attribute(AttributeKind.STRING, value)
        if isinstance(value, SparseTensor):
            return Attribute(AttributeKind.SPARSE_TENSOR, value)
        if isinstance(value, Tensor):
            return Attribute(AttributeKind.TENSOR, value)
        if isinstance(value, Graph):
            return Attribute(AttributeKind.GRAPH, value)
        if isinstance(value, TensorType | SequenceType | OptionalType | MapType | OpaqueType):
            return Attribute(AttributeKind.TYPE_PROTO, value)
        if isinstance(value, tuple | list) and value:
            first = Attribute.of(value[0])
            kind = _LIST_OF.get(first.kind)
            if kind is not None:
                if kind is AttributeKind.INTS and any(isinstance(v, float) for v in value):
                    kind = AttributeKind.FLOATS
                if kind in (AttributeKind.INTS, AttributeKind.FLOATS):
                    convert = int if kind is AttributeKind.INTS else float
                    return Attribute(kind, tuple(convert(v) for v in value))  # type: ignore[arg-type]
                return Attribute(kind, tuple(value))  # type: ignore[arg-type]
        raise TypeError(f"{value!r} cannot be an ONNX attribute")


_LIST_OF = {
    AttributeKind.INT: AttributeKind.INTS,
    AttributeKind.FLOAT: AttributeKind.FLOATS,
    AttributeKind.STRING: AttributeKind.STRINGS,
    AttributeKind.TENSOR: AttributeKind.TENSORS,
    AttributeKind.SPARSE_TENSOR: AttributeKind.SPARSE_TENSORS,
    AttributeKind.GRAPH: AttributeKind.GRAPHS,
    AttributeKind.TYPE_PROTO: AttributeKind.TYPE_PROTOS,
}
