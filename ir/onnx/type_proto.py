"""ONNX's TypeProto to and from `Type`."""

from __future__ import annotations

import onnx

from ...errors import ModelError
from ..printable import has_control
from ..types import Dim, DType, MapType, OpaqueType, OptionalType, SequenceType, TensorType, Type, is_possible
from .wire import text

_UNNAMED = ("", "?", "-1")


def read_type(proto: onnx.TypeProto) -> Type | None:
    """The type that a TypeProto states, `None` where it states none. A negative size is an unknown one,
    and so is one named "?" or "-1", as PaddlePaddle names any number of different sizes.

    Raises `ModelError` for an element type that ONNX does not have, and a name with control characters.
    """
    kind = proto.WhichOneof("value")
    if kind == "tensor_type":
        return _read_tensor_type(proto.tensor_type, text(proto.denotation), sparse=False)
    if kind == "sparse_tensor_type":
        return _read_tensor_type(proto.sparse_tensor_type, text(proto.denotation), sparse=True)
    if kind == "sequence_type":
        return SequenceType(read_type(proto.sequence_type.elem_type))
    if kind == "optional_type":
        return OptionalType(read_type(proto.optional_type.elem_type))
    if kind == "map_type":
        return MapType(_dtype(proto.map_type.key_type), read_type(proto.map_type.value_type))
    if kind == "opaque_type":
        return OpaqueType(text(proto.opaque_type.domain), text(proto.opaque_type.name))
    return None


def _read_tensor_type(
    proto: onnx.TypeProto.Tensor | onnx.TypeProto.SparseTensor, denotation: str, *, sparse: bool
) -> TensorType:
    if not proto.HasField("shape"):
        return TensorType(_dtype(proto.elem_type), None, sparse, denotation)
    shape: list[Dim] = []
    named = False
    for dim in proto.shape.dim:
        kind = dim.WhichOneof("value")
        if kind == "dim_value":
            shape.append(dim.dim_value if dim.dim_value >= 0 else None)
        else:
            name = text(dim.dim_param)
            if has_control(name):
                raise ModelError(f"the size called {name!r} holds a control character")
            shape.append(None if name in _UNNAMED else name)
        named = named or bool(dim.denotation)
    if not is_possible(shape):
        raise ModelError(f"a value of {len(shape)} axes has more of them, or more elements, than any array can have")
    axes = tuple(text(dim.denotation) for dim in proto.shape.dim) if named else ()
    return TensorType(_dtype(proto.elem_type), tuple(shape), sparse, denotation, axes)


def _dtype(number: int) -> DType:
    try:
        return DType(number)
    except ValueError:
        raise ModelError(f"unknown element type {number}") from None


def write_type(type: Type | None, proto: onnx.TypeProto) -> None:
    """Fill an empty TypeProto; one for `None` stays empty."""
    if isinstance(type, TensorType):
        if type.denotation:
            proto.denotation = type.denotation
        _write_tensor_type(type, proto.sparse_tensor_type if type.sparse else proto.tensor_type)
    elif isinstance(type, SequenceType):
        proto.sequence_type.SetInParent()
        if type.element is not None:
            write_type(type.element, proto.sequence_type.elem_type)
    elif isinstance(type, OptionalType):
        proto.optional_type.SetInParent()
        if type.element is not None:
            write_type(type.element, proto.optional_type.elem_type)
    elif isinstance(type, MapType):
        proto.map_type.key_type = type.key
        if type.value is not None:
            write_type(type.value, proto.map_type.value_type)
    elif isinstance(type, OpaqueType):
        proto.opaque_type.domain = type.domain
        proto.opaque_type.name = type.name


def _write_tensor_type(type: TensorType, proto: onnx.TypeProto.Tensor | onnx.TypeProto.SparseTensor) -> None:
    proto.elem_type = type.dtype
    if type.shape is None:
        return
    proto.shape.SetInParent()
    for axis, size in enumerate(type.shape):
        dim = proto.shape.dim.add()
        if isinstance(size, int):
            dim.dim_value = size
        elif size is not None:
            dim.dim_param = size
        if axis < len(type.axes) and type.axes[axis]:
            dim.denotation = type.axes[axis]
