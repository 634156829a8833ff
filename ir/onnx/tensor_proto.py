"""ONNX's TensorProto to and from `Tensor`: raw data, typed data, data in other files.

Data in another file is found only inside the model's own folder: an absolute path, a `..`, or a symbolic link that
leads out of the folder is refused, because a model is data from strangers and must not make us read `/etc`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
import numpy.typing as npt
import onnx

from ...errors import ModelError
from ..tensor import ArrayTensor, FileTensor, SourceFile, SparseTensor, Tensor, unpack
from ..types import DType, is_possible
from .scope import as_name

_TYPED = {
    DType.FLOAT: "float_data",
    DType.COMPLEX64: "float_data",
    DType.DOUBLE: "double_data",
    DType.COMPLEX128: "double_data",
    DType.INT64: "int64_data",
    DType.UINT32: "uint64_data",
    DType.UINT64: "uint64_data",
}
_DTYPES = {int(dtype): dtype for dtype in DType if dtype is not DType.UNDEFINED}


@dataclass(slots=True)
class TensorReader:
    """Reads the tensors of one model.

    `model` is the file the model came from and `cuts` the stretches of it (offset -> length) that markers stand for;
    `folder` is where external data may lie, `None` for a model that came from memory.
    """

    model: SourceFile | None = None
    cuts: Mapping[int, int] = field(default_factory=dict)
    folder: str | None = None
    files: dict[str, SourceFile] = field(default_factory=dict)

    def read(self, proto: onnx.TensorProto) -> Tensor:
        """Raises `ModelError` naming the tensor where its data is missing, misplaced, or of the wrong length."""
        dtype = _DTYPES.get(proto.data_type)
        if dtype is None:
            raise ModelError(f"tensor {proto.name!r}: unknown element type {proto.data_type}")
        shape = _shape(proto.name, proto.dims)
        if proto.data_location == onnx.TensorProto.EXTERNAL:
            return self._external(proto, dtype, shape)
        if proto.HasField("segment"):
            return self._cut(proto, dtype, shape)
        if dtype is DType.STRING:
            strings = np.empty(len(proto.string_data), object)
            strings[:] = list(proto.string_data)
            return ArrayTensor(_shaped(proto, strings, shape), dtype)
        if proto.HasField("raw_data"):
            return _in_memory(proto, proto.raw_data, dtype, shape)
        return ArrayTensor(_shaped(proto, _typed(proto, dtype, shape), shape), dtype)

    def read_sparse(self, proto: onnx.SparseTensorProto) -> SparseTensor:
        return SparseTensor(self.read(proto.values), self.read(proto.indices), _shape(proto.values.name, proto.dims))

    def _cut(self, proto: onnx.TensorProto, dtype: DType, shape: tuple[int, ...]) -> Tensor:
        begin, length = proto.segment.begin, proto.segment.end
        if self.model is None or self.cuts.get(begin) != length:
            raise ModelError(f"tensor {proto.name!r}: ONNX no longer allows tensors in segments; save it in one piece")
        _check_length(proto, length, dtype, shape)
        return FileTensor(self.model, begin, dtype, shape)

    def _external(self, proto: onnx.TensorProto, dtype: DType, shape: tuple[int, ...]) -> Tensor:
        entries = {as_name(entry.key): as_name(entry.value) for entry in proto.external_data}
        location = entries.get("location", "")
        try:
            offset = int(entries.get("offset", "0"))
            length = int(entries["length"]) if "length" in entries else None
        except ValueError:
            raise ModelError(
                f"tensor {proto.name!r}: offset {entries.get('offset')!r} or length {entries.get('length')!r} "
                f"in {location!r} is not a number"
            ) from None
        if dtype is DType.STRING:
            raise ModelError(f"tensor {proto.name!r}: strings cannot lie in a file of their own ({location!r})")
        source = self._open(proto.name, location)
        needed = dtype.file_bytes(math.prod(shape))
        if length not in (None, needed):
            raise ModelError(
                f"tensor {proto.name!r}: {length} bytes of {location!r} given where {dtype.text}{list(shape)} takes "
                f"{needed}; the model is damaged"
            )
        try:
            return FileTensor(source, offset, dtype, shape)
        except ModelError as error:
            raise ModelError(f"tensor {proto.name!r}: {error}") from error

    def _open(self, name: str, location: str) -> SourceFile:
        """The file at `location` in the model's folder, opened once."""
        mapped = self.files.get(location)
        if mapped is not None:
            return mapped
        where = f"tensor {name!r}: external data file {location!r}"
        if self.folder is None:
            raise ModelError(f"{where} has no folder to be found in; load the model from its file")
        parts = location.replace("\\", "/").split("/")
        if not location or os.path.isabs(location) or parts[0].endswith(":") or ".." in parts:
            raise ModelError(f"{where} is not a path inside the model's folder; refused")
        folder = os.path.realpath(self.folder)
        path = os.path.realpath(os.path.join(folder, location))
        if os.path.commonpath((folder, path)) != folder:
            raise ModelError(f"{where} is a link out of the model's folder (to {path}); refused")
        if not os.path.isfile(path):
            raise ModelError(f"{where} is missing from {folder}; put it beside the model")
        try:
            mapped = SourceFile(path)
        except OSError as error:
            raise ModelError(f"{where} cannot be read: {error.strerror}") from error
        self.files[location] = mapped
        return mapped


def _shape(name: str, dims: Sequence[int]) -> tuple[int, ...]:
    if not is_possible(dims):
        raise ModelError(f"tensor {name!r}: has more axes, or more elements, than any array can have")
    shape = tuple(dims)
    if shape and min(shape) < 0:
        raise ModelError(f"tensor {name!r}: negative size in shape {list(shape)}")
    return shape


def _in_memory(proto: onnx.TensorProto, raw: bytes, dtype: DType, shape: tuple[int, ...]) -> Tensor:
    _check_length(proto, len(raw), dtype, shape)
    if dtype.bits % 8:
        return ArrayTensor(unpack(np.frombuffer(raw, np.uint8), dtype, shape), dtype)
    return ArrayTensor(np.frombuffer(raw, dtype.numpy).reshape(shape), dtype)


def _typed(proto: onnx.TensorProto, dtype: DType, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
    """The flat elements of `float_data` and its like, as onnx.proto says they are coded."""
    data = np.asarray(getattr(proto, _TYPED.get(dtype, "int32_data")), None if dtype in _TYPED else np.int32)
    if dtype in (DType.COMPLEX64, DType.COMPLEX128):
        part = np.float32 if dtype is DType.COMPLEX64 else np.float64
        return data.astype(part).view(dtype.numpy)
    if dtype in _TYPED or (dtype.is_integer and dtype.bits >= 8) or dtype is DType.BOOL:
        return data.astype(dtype.numpy)
    if dtype.bits == 16:
        return data.astype(np.uint16).view(dtype.numpy)
    if dtype.bits in (8, 6):
        return (data & ((1 << dtype.bits) - 1)).astype(np.uint8).view(dtype.numpy)
    _check_length(proto, len(data), dtype, shape)
    return unpack(data.astype(np.uint8), dtype, shape).reshape(-1)


def _shaped(proto: onnx.TensorProto, data: npt.NDArray[np.generic], shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
    if data.size != math.prod(shape):
        raise ModelError(
            f"tensor {proto.name!r}: {data.size} elements given for shape {list(shape)}; "
            f"the model is damaged or was saved without its weights"
        )
    return data.reshape(shape)


def _check_length(proto: onnx.TensorProto, length: int, dtype: DType, shape: tuple[int, ...]) -> None:
    needed = dtype.file_bytes(math.prod(shape))
    if dtype is DType.STRING or length != needed:
        raise ModelError(
            f"tensor {proto.name!r}: {length} bytes given where {dtype.text}{list(shape)} takes {needed}; "
            f"the model is damaged"
        )


def describe_tensor(tensor: Tensor, proto: onnx.TensorProto) -> None:
    """Write element type and shape into an empty TensorProto."""
    proto.dims.extend(tensor.shape)
    proto.data_type = tensor.dtype


def tensor_bytes(tensor: Tensor) -> bytes:
    """The `raw_data` of a tensor."""
    buffer = BytesIO()
    tensor.write(buffer)
    return buffer.getvalue()
