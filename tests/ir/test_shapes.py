"""Shape inference: symbolic sizes, shape arithmetic, agreement with what runs produce."""

from __future__ import annotations

import numpy as np

from optc.ir.graph import Graph
from optc.ir.shapes import infer
from optc.ir.types import DType, TensorType


def test_a_reshape_by_shape_arithmetic_keeps_the_batch() -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 3, 4)))
    shape = graph.add("Shape", [x]).output
    batch = graph.add("Gather", [shape, graph.constant(np.array([0]))]).output
    target = graph.add("Concat", [batch, graph.constant(np.array([-1]))], {"axis": 0}).output
    y = graph.add("Reshape", [x, target]).output
    graph.add_output(y, "y", TensorType(DType.FLOAT, None))
    inference = infer(graph)
    assert y.shape == ("N", 12)
    assert [str(size) for size in inference.known[target]] == ["N", "-1"]
