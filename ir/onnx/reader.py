"""Reading ONNX models into the graph.

Weights are not read: a tensor of more than a few kilobytes stays where it is, in the model's file or in its external
data file, and is mapped when a pass asks for it.
"""

from __future__ import annotations

import os

import onnx
from google.protobuf.message import DecodeError

from ...errors import ModelError, expect
from ..graph import Graph
from ..printable import has_control
from ..tensor import POINTER, SourceFile
from ..uncollected import uncollected
from . import wire
from .graph_reader import GraphReader
from .tensor_proto import TensorReader

_WHOLE = 1 << 20
"""A file of up to so many bytes is read and parsed as it is."""
_TAR = (257, 5)
"""Where a tar archive says that it is one, and in how many bytes."""
_LARGE = 1 << 14
"""In a larger one, data of so many bytes stays in the file."""


def load(path: str | os.PathLike[str]) -> Graph:
    """The model in a file. Raises `ModelError` where it is missing, not an ONNX model, or broken."""
    expect(path, (str, os.PathLike), "a model is read from a path", ModelError)
    name = os.fspath(path)
    if has_control(name):
        raise ModelError(f"{name!r}: holds a control character; give the file another name")
    if os.path.isdir(name):
        raise ModelError(f"{name}: is a folder; give the path of an .onnx file")
    if not name or (os.path.exists(name) and not os.path.isfile(name)):
        raise ModelError(f"{name or 'empty name'}: is not a plain file; give the path of an .onnx file")
    try:
        source = SourceFile(name)
    except OSError as error:
        raise ModelError(f"{name}: cannot be read: {error.strerror}") from error
    if source.size == 0:
        raise ModelError(f"{name}: is empty, not an ONNX model")
    if source.is_pointer:
        raise ModelError(f"{name}: {POINTER}")
    if source.read(*_TAR) == b"ustar":
        raise ModelError(f"{name}: is a tar archive, not an ONNX model; a compiled library is run by `optc run`")
    data: wire.Buffer = source.map()
    cuts: dict[int, int] = {}
    try:
        if source.size > _WHOLE:
            data, cuts = wire.cut(data, _LARGE, source.release)
        proto = _parse(data)
        return _read(proto, TensorReader(source, cuts, os.path.dirname(source.path)))
    except wire.WireError as error:
        raise ModelError(f"{name}: is not an ONNX model, or is damaged or cut off: {error}") from error
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error


def from_bytes(data: bytes) -> Graph:
    """The model in a serialised ModelProto without external data. Raises `ModelError`."""
    return _read(_parse(data), TensorReader())


def from_proto(model: onnx.ModelProto, *, folder: str | os.PathLike[str] | None = None) -> Graph:
    """The model in a ModelProto; external data is looked for in `folder`. Raises `ModelError`."""
    return _read(model, TensorReader(folder=None if folder is None else os.fspath(folder)))


def _parse(data: wire.Buffer) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(memoryview(data))
    except DecodeError as error:
        raise ModelError("is not an ONNX model, or is damaged or cut off") from error
    return proto


def _read(model: onnx.ModelProto, tensors: TensorReader) -> Graph:
    with uncollected():
        return GraphReader(tensors).model(model)
