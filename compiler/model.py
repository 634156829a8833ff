"""Models as a library is given them, and the graphs in them."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from typing import TYPE_CHECKING, TypeAlias

from ..errors import ModelError
from ..ir.graph import Graph
from ..ir.origin import Origin
from ..ir.shapes.infer import infer
from ..ir.stored import stored_files
from ..ir.verify.verify import verify

if TYPE_CHECKING:
    import onnx
    import onnx_graphsurgeon as gs

_LOG = logging.getLogger("optc")

Model: TypeAlias = "str | os.PathLike[str] | bytes | Graph | onnx.ModelProto | gs.Graph"


def read(model: Model) -> Graph:
    """The graph of a model in any form: a path, `zoo:NAME`, bytes, a ModelProto, a graphsurgeon graph, a `Graph`.

    Sorted, verified, and with types inferred. A `Graph` is copied, so the caller's own stays as it is. Raises
    `ModelError`.
    """
    graph = load(model)
    prepare(graph, model)
    return graph


def load(model: Model) -> Graph:
    if isinstance(model, Graph):
        graph = model.clone()
        for node in graph.walk():
            if node.origin == Origin():
                node.origin = Origin.own(node.name)
        return graph
    if isinstance(model, bytes):
        from ..ir.onnx.reader import from_bytes

        return from_bytes(model)
    if isinstance(model, str | os.PathLike):
        path = os.fspath(model)
        if path.startswith("zoo:"):
            from ..models.zoo import load as load_zoo

            return load_zoo(path.removeprefix("zoo:"))
        from ..ir.onnx.reader import load as load_file

        return load_file(path)
    if type(model).__module__.startswith("onnx_graphsurgeon"):
        from ..ir.onnx.surgeon import from_surgeon

        return from_surgeon(model)
    from ..ir.onnx.reader import from_proto

    return from_proto(model)


def prepare(graph: Graph, model: Model) -> None:
    """Sort, verify and type a graph that was just loaded; a complaint names the file it came from."""
    try:
        graph.sort()
        verify(graph)
        infer(graph)
        _LOG.debug("read %s: %d nodes", name_of(model), len(graph))
    except ModelError as error:
        if isinstance(model, str | os.PathLike):
            raise ModelError(f"{os.fspath(model)}: {error}") from error
        raise


def forget_types(graph: Graph, annotated: Collection[str]) -> None:
    """Drop the types inferred of values inside, but for the names given: a file must not grow by annotations."""
    for node in graph.walk():
        for value in node.outputs:
            if value.name not in annotated:
                value.type = None


def name_of(model: Model) -> str:
    return os.fspath(model) if isinstance(model, str | os.PathLike) else type(model).__name__


def stem_of(path: str) -> str:
    """What the files made of a model are called: its own name without folder and extension, or that of the zoo."""
    if path.startswith("zoo:"):
        return path.split(":")[1]
    return os.path.splitext(os.path.basename(path))[0]


def stored_bytes(model: Model, graph: Graph) -> int:
    """Bytes of the model as it was given: its file and its external data, or what a file of it would take."""
    if isinstance(model, str | os.PathLike) and not os.fspath(model).startswith("zoo:"):
        files = {os.path.abspath(os.fspath(model))} | stored_files(graph)
        return sum(os.path.getsize(file) for file in files)
    from ..ir.onnx.writer import size

    return size(graph)
