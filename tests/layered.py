"""Small graphs of dense layers, and running what is written of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from optc.ir.graph import Graph, Header
from optc.ir.types import DType, TensorType

FLOATS = TensorType(DType.FLOAT, (2, 3))
X = np.float32([[1, -2, 3], [-4, 5, -6]])


def new(name: str = "g", ir_version: int = 10) -> Graph:
    graph = Graph(name, opsets={"": 21})
    graph.header = Header(ir_version=ir_version)
    return graph


def layered(sizes: tuple[int, ...] = (3, 300, 301), seed: int = 0) -> Graph:
    """Dense layers; the default has two weights, the second of them streamed."""
    graph = new()
    value = graph.add_input("x", FLOATS)
    random = np.random.default_rng(seed)
    for index, (rows, columns) in enumerate(pairwise(sizes)):
        weight = graph.constant(random.standard_normal((rows, columns), np.float32), f"w{index}")
        value = graph.add("MatMul", [value, weight], outputs=[f"h{index}"], name=f"layer{index}").output
    graph.add_output(value, "y", TensorType(DType.FLOAT, (2, sizes[-1])))
    return graph


def run(model: Path | bytes, **feeds: npt.NDArray[np.generic]) -> list[npt.NDArray[np.generic]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds or {"x": X}))
