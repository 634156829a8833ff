"""A graph in one file, as a pass left it: everything the IR holds, which ONNX cannot say (types, origins, fills).

A snapshot is the text of the graph (`text.dump`) with its large tensors behind it, each at a multiple of 64 bytes, so
that they are mapped and not read:

    optc snapshot 1\n   length of the text, 8 bytes   text   tensors

The same graph gives the same bytes, so the digest of a snapshot is the identity of the graph. `settle` is what makes a
graph that was edited in memory equal to one that was read back, down to the order in which values are read; passes that
run on either then do the same.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import BinaryIO

from ...errors import ModelError
from ...storage.fingerprint import Fingerprint
from ..graph import Graph, Value
from ..names import unique_names
from ..tensor import ArrayTensor, FileTensor, LazyTensor, SourceFile, Tensor
from ..types import DType
from .dump import dump
from .parse import parse

_MAGIC = b"optc snapshot 1\n"
_ALIGNMENT = 64


def settle(graph: Graph) -> None:
    """Give every value its unique name, and record reads in the order of the nodes that make them."""
    for each in (graph, *(function.graph for function in graph.functions.values())):
        for item, name in unique_names(each).items():
            if isinstance(item, Value):
                item.name = name
    graph.become(graph.clone())


def write(graph: Graph, file: BinaryIO) -> None:
    """Append the snapshot of `graph` to `file`."""
    tensors: list[Tensor] = []
    end = 0

    def aside(tensor: Tensor) -> int:
        nonlocal end
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        tensors.append(tensor)
        end = start + tensor.nbytes
        return start

    text = dump(graph, tensors="inline", aside=aside).encode()
    head = _MAGIC + len(text).to_bytes(8, "little") + text
    file.write(head + bytes(-len(head) % _ALIGNMENT))
    at = 0
    for tensor in tensors:
        file.write(bytes(-at % _ALIGNMENT))
        plain = ArrayTensor(tensor.numpy(), tensor.dtype) if isinstance(tensor, LazyTensor) else tensor
        plain.write(file)
        at += -at % _ALIGNMENT + tensor.nbytes


def read(path: str | os.PathLike[str]) -> Graph:
    """The graph of a snapshot; its tensors stay in the file. Raises `ModelError`, and `OSError` where there is none."""
    source = SourceFile(os.fspath(path))
    data = source.map() if source.size else b""
    if data[: len(_MAGIC)] != _MAGIC:
        raise ModelError(f"{source.path}: is no snapshot of a graph")
    start = len(_MAGIC) + 8
    length = int.from_bytes(data[len(_MAGIC) : start], "little")
    try:
        text = bytes(data[start : start + length]).decode()
    except UnicodeDecodeError as error:
        raise ModelError(f"{source.path}: is damaged: {error}") from error
    base = -(-(start + length) // _ALIGNMENT) * _ALIGNMENT

    def aside(offset: int, dtype: DType, shape: Sequence[int]) -> Tensor:
        return FileTensor(source, base + offset, dtype, shape)

    return parse(text, aside=aside)


def digest(graph: Graph) -> str:
    """The identity of `graph`: equal for graphs that no pass can tell apart."""
    fingerprint = Fingerprint()
    write(graph, fingerprint.sink)
    return fingerprint.text
