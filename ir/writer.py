"""Writing the graph as an ONNX model.

Weights are streamed: the model is serialised with a stand-in where each large weight goes, and the pieces are written
one after the other (see `wire.splice`), so memory does not grow with the model. A file appears whole or not at all (see
`atomic`). The same graph gives the same bytes.
"""

from __future__ import annotations

import os
from io import BytesIO
from typing import BinaryIO

import onnx
from google.protobuf.message import EncodeError

from ..errors import ModelError
from . import wire
from .atomic import Replacement
from .graph import Graph
from .graph_writer import GraphWriter, check_length
from .tensor import Tensor

LIMIT = (1 << 31) - 1
"""Bytes that protobuf allows in one message, and so in one file without external data."""
_LARGE = 1 << 14
"""Data of so many bytes is streamed; in an external file, aligned."""
_ALIGNMENT = 4096


def save(graph: Graph, path: str | os.PathLike[str], *, external: bool | None = None) -> None:
    """Write the model to `path`: one file, or with its large weights in `PATH.data` beside it.

    `external` asks for the second file or forbids it; by default it is used above protobuf's limit of 2 GiB. Raises
    `ModelError` where the graph cannot be said in ONNX or does not fit in one file, `OutputError` where the place
    cannot be written. `path` may be the file that the graph was loaded from.
    """
    message = _Message(graph)
    with Replacement(path) as files:
        file = files.open()
        if external is None:
            external = message.length > LIMIT
        if external:
            message.move_out(os.path.basename(files.path) + ".data", files.open(".data"))
        message.write(file)


def size(graph: Graph) -> int:
    """Bytes that the model takes in one file, whether or not they would fit in one; no large weight is read."""
    return _Message(graph).length


def to_bytes(graph: Graph) -> bytes:
    """The serialised ModelProto, weights and all. Raises `ModelError`, also above protobuf's limit of 2 GiB."""
    file = BytesIO()
    _Message(graph).write(file)
    return file.getvalue()


def to_proto(graph: Graph) -> onnx.ModelProto:
    """The model as a ModelProto, weights and all. Raises `ModelError`, also above protobuf's limit of 2 GiB."""
    return GraphWriter(large=None, limit=LIMIT).model(graph)


class _Message:
    """A serialised model in `pieces`, a number standing for the weight of that index; `length` is that of them all."""

    def __init__(self, graph: Graph) -> None:
        writer = GraphWriter(large=_LARGE, limit=LIMIT)
        self.model = writer.model(graph)
        self.held = writer.held
        self._serialise()

    def _serialise(self) -> None:
        try:
            data = self.model.SerializeToString(deterministic=True)
        except EncodeError as error:
            raise ModelError(f"the model without its large weights takes more than {LIMIT} bytes: {error}") from error
        self.pieces, self.length = wire.splice(data, [tensor.nbytes for _, tensor in self.held])

    def write(self, file: BinaryIO) -> None:
        check_length(self.length, LIMIT)
        for piece in self.pieces:
            if isinstance(piece, int):
                _stream(self.held[piece][1], file)
            else:
                file.write(piece)

    def move_out(self, location: str, file: BinaryIO) -> None:
        """Write the large weights to `file` and let the model say that they are at `location`."""
        for proto, tensor in self.held:
            file.write(bytes(-file.tell() % _ALIGNMENT))
            proto.ClearField("raw_data")
            proto.data_location = onnx.TensorProto.EXTERNAL
            entries = {"location": location, "offset": file.tell(), "length": tensor.nbytes}
            for key, value in entries.items():
                proto.external_data.add(key=key, value=str(value))
            _stream(tensor, file)
        self.held = []
        self._serialise()


def _stream(tensor: Tensor, file: BinaryIO) -> None:
    before = file.tell()
    tensor.write(file)
    written = file.tell() - before
    if written != tensor.nbytes:
        raise ValueError(f"{tensor!r} wrote {written} bytes and had announced {tensor.nbytes}")
