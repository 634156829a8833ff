"""An artifact ready to run, and the inputs that it takes: an ONNX file, or what a library target wrote."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from ..errors import TargetError
from ..ir.graph import Graph
from ..ir.types import DType, TensorType
from ..runtime.columns import Array
from ..runtime.session import Runnable, Session
from .model import read

if TYPE_CHECKING:
    from ..targets.tuning import Device
    from ..targets.tvm.artifact.manifest import Port


@runtime_checkable
class OnDevice(Runnable, Protocol):
    """An artifact on a device, which times it there."""

    def timed(self, feeds: Mapping[str, Array], runs: int) -> tuple[list[Array], float]:
        """The outputs, and the seconds of the fastest of so many runs."""

    def close(self) -> None:
        """Give the device back."""


def opened(path: str, *, threads: int = 0, device: Device | None = None) -> tuple[Runnable, Graph]:
    """The artifact at `path` (or `zoo:NAME`), and a graph with its inputs and outputs. With `device` it runs there.

    Raises `ModelError`, `TargetError`, `SpecError`.
    """
    from ..targets import table
    from ..targets.tvm.artifact import folder as artifact

    target = artifact.target_of(path) if os.path.exists(path) else ""
    if device is not None:
        from ..targets.on_device import on_device

        if not target:
            raise TargetError(f"{path} is no library; devices run those for {table.on_devices()}")
        ready: Runnable = on_device(path, target, device, threads=threads)
    elif path.startswith("zoo:"):
        graph = read(path)
        return Session(graph, threads=threads), graph
    else:
        ready = table.parse(target or "onnx")[0].open(path, threads=threads)
    if isinstance(ready, Session):
        return ready, ready.graph
    return ready, _interface(path, getattr(ready, "inputs", ()), getattr(ready, "outputs", ()))


def interface(path: str) -> Graph:
    """A graph with the inputs and outputs of what a library target wrote, which need not run here."""
    from ..targets.tvm.artifact import folder as artifact
    from ..targets.tvm.artifact import manifest

    with artifact.opened(path) as folder:
        document = manifest.read(folder, path)
    return _interface(path, manifest.ports(document["inputs"]), manifest.ports(document["outputs"]))


def _interface(path: str, inputs: Sequence[Port], outputs: Sequence[Port]) -> Graph:
    graph = Graph(path)
    for port in inputs:
        graph.add_input(port.name, TensorType(DType.of(np.dtype(port.dtype)), port.shape))
    for port in outputs:
        empty = np.empty([size if isinstance(size, int) else 0 for size in port.shape], port.dtype)
        graph.add_output(graph.constant(empty), port.name, TensorType(DType.of(empty.dtype), port.shape))
    return graph
