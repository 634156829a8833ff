"""An artifact ready to run, and the inputs that it takes: an ONNX file, or what a library target wrote."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ..errors import TargetError
from ..ir.graph import Graph
from ..ir.types import DType, TensorType
from ..runtime.session import Session
from .model import read

if TYPE_CHECKING:
    from ..runtime.session import Runnable
    from ..targets.tuning import Device


def opened(path: str, *, threads: int = 0, device: Device | None = None) -> tuple[Runnable, Graph]:
    """The artifact at `path` (or `zoo:NAME`), and a graph with its inputs and outputs. With `device` it runs there.

    Raises `ModelError`, `TargetError`, `SpecError`.
    """
    from ..targets import table
    from ..targets.tvm.artifact import folder as artifact

    target = artifact.target_of(path) if os.path.exists(path) else ""
    if device is not None:
        from ..targets.tvm.remote.connection import Connection
        from ..targets.tvm.remote.run import Remote

        if not target:
            raise TargetError(
                f"{path} is no library that a device can load; build it with --target host, arm64 or armv7"
            )
        found: Runnable = Remote(path, Connection(device), threads=threads)
    elif path.startswith("zoo:"):
        graph = read(path)
        return Session(graph, threads=threads), graph
    else:
        found = table.parse(target or "onnx")[0].open(path, threads=threads)
    if isinstance(found, Session):
        return found, found.graph
    graph = Graph(path)
    for port in getattr(found, "inputs", ()):
        graph.add_input(port.name, TensorType(DType.of(np.dtype(port.dtype)), port.shape))
    for port in getattr(found, "outputs", ()):
        empty = np.empty([size if isinstance(size, int) else 0 for size in port.shape], port.dtype)
        graph.add_output(graph.constant(empty), port.name, TensorType(DType.of(empty.dtype), port.shape))
    return found, graph
