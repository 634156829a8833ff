"""Writing the graph as an ONNX model.

Weights are streamed: the model is serialised with a stand-in where each large weight goes, and the pieces are written
one after the other (see `wire.splice`), so memory does not grow with the model. A file appears whole or not at all (see
`atomic`). The same graph gives the same bytes.

Large weights beside the model lie in a file that is named by its content, `m.onnx.0123456789abcdef.data`: until the
model is replaced, at one stroke, the old one has its old data, and from then on the new one its new.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable
from io import BytesIO
from typing import BinaryIO

import onnx
from google.protobuf.message import DecodeError, EncodeError

from ...errors import ModelError, OutputError, expect
from ...storage.atomic import Replacement
from ...storage.fingerprint import Fingerprint
from ..graph import Graph
from ..tensor import Tensor
from . import wire
from .graph_writer import GraphWriter, check_length

LIMIT = (1 << 31) - 1
"""Bytes that protobuf allows in one message, and so in one file without external data."""
_LARGE = 1 << 14
"""Data of so many bytes is streamed; in an external file, aligned."""
_ALIGNMENT = 4096
_SUFFIX = ".{}.data"


def save(graph: Graph, path: str | os.PathLike[str], *, external: bool | None = None) -> tuple[str, ...]:
    """Write the model to `path`: one file, or with its large weights in another beside it. Returns the files.

    `external` asks for the second file or forbids it; by default it is used above protobuf's limit of 2 GiB. The data
    of the model that was at `path` is removed, where it was named as here and is not used any more. Raises
    `ModelError` where the graph cannot be said in ONNX or does not fit in one file, `OutputError` where the place
    cannot be written. `path` may be the file that the graph was loaded from.
    """
    expect(graph, Graph, "a Graph is written", ModelError)
    expect(path, (str, os.PathLike), "a place to write to is a path", OutputError)
    message = _Message(graph)
    old = data_files(path)
    written: tuple[str, ...] = (os.fspath(path),)
    with Replacement(path) as files:
        file = files.open()
        if external is None:
            external = message.length > LIMIT
        if external and message.streamed:
            data = files.open(_SUFFIX.format(16 * "0"))
            place = files.name(data, _SUFFIX.format(message.move_out(data)[:16]))
            message.name_data(os.path.basename(place))
            written += (place,)
        message.write(file)
    discard(old, written)
    return written


def data_files(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The files beside the model at `path` that hold its data and are named by their content, as `save` does."""
    folder, name = os.path.split(os.fspath(path))
    form = re.compile(re.escape(name) + _SUFFIX.format("[0-9a-f]{16}").replace(".", r"\."))
    with contextlib.suppress(OSError, DecodeError):
        if names := {one for one in os.listdir(folder or ".") if form.fullmatch(one)}:
            model = onnx.load(path, load_external_data=False)
            used = {entry.value for one in model.graph.initializer for entry in one.external_data}
            return tuple(os.path.join(folder, one) for one in sorted(names & used))
    return ()


def discard(old: Iterable[str], new: Collection[str]) -> None:
    """Remove the data of a model that was replaced, but for what the `new` one uses too."""
    for path in old:
        if path not in new:
            with contextlib.suppress(OSError):
                os.unlink(path)


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
        self.streamed = writer.streamed
        self._serialise()

    def _serialise(self) -> None:
        try:
            data = self.model.SerializeToString(deterministic=True)
        except EncodeError as error:
            raise ModelError(f"the model without its large weights takes more than {LIMIT} bytes: {error}") from error
        self.pieces, self.length = wire.splice(data, [tensor.nbytes for _, tensor in self.streamed])

    def write(self, file: BinaryIO) -> None:
        check_length(self.length, LIMIT)
        for piece in self.pieces:
            if isinstance(piece, int):
                _stream(self.streamed[piece][1], file)
            else:
                file.write(piece)

    def move_out(self, file: BinaryIO) -> str:
        """Write the large weights to `file`; returns the digest of it."""
        copy = _Hashed(file)
        for proto, tensor in self.streamed:
            copy.write(bytes(-file.tell() % _ALIGNMENT))
            proto.ClearField("raw_data")
            proto.data_location = onnx.TensorProto.EXTERNAL
            entries = {"location": "", "offset": file.tell(), "length": tensor.nbytes}
            for key, value in entries.items():
                proto.external_data.add(key=key, value=str(value))
            _stream(tensor, copy.sink)
        return copy.text

    def name_data(self, location: str) -> None:
        """Let the model say that the weights that were moved out are at `location`."""
        for proto, _ in self.streamed:
            proto.external_data[0].value = location
        self.streamed = []
        self._serialise()


class _Hashed(Fingerprint):
    """Writes to a file, and knows the digest of what it wrote."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]
        self._file.write(data)
        return super().write(data)

    def tell(self) -> int:
        return self._file.tell()


def _stream(tensor: Tensor, file: BinaryIO) -> None:
    before = file.tell()
    tensor.write(file)
    written = file.tell() - before
    if written != tensor.nbytes:
        raise ValueError(f"{tensor!r} wrote {written} bytes and had announced {tensor.nbytes}")
