"""Graphs with errors put in: every number is off by an error of its own, at every opset that the runtime loads."""

from __future__ import annotations

import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.runtime.perturbed import perturbed
from optc.runtime.session import Session
from optc.targets.onnx import newest_loadable

ERROR = 2.0**-10


@pytest.mark.parametrize("opset", sorted({14, 21, *range(22, newest_loadable()[0] + 1)}))
@pytest.mark.parametrize("dtype", [DType.FLOAT, DType.FLOAT16, DType.DOUBLE])
def test_every_number_has_an_error_of_its_own(opset: int, dtype: DType) -> None:
    graph = Graph("g", opsets={"": opset})
    x = graph.add_input("x", TensorType(dtype, ("N", 5, 8)))
    y = graph.add("Relu", [graph.add("Neg", [graph.add("Neg", [x]).output]).output]).output
    graph.add_output(y, "y", TensorType(dtype, None))
    infer(graph)
    feeds = {"x": np.full((4, 5, 8), 3.0, dtype.numpy)}
    answers = [Session(perturbed(graph, ERROR, seed)).run(feeds)[0].astype(np.float64) for seed in (0, 0, 1)]
    gaps = answers[0] / 3.0 - 1.0
    most = {DType.FLOAT: ERROR, DType.FLOAT16: 2.0**-9, DType.DOUBLE: 2.0**-48}[dtype]
    assert 0 < np.abs(gaps).max() <= 3.5 * most  # three values that are read, and the roundings of the type
    assert len(np.unique(gaps)) > (100 if dtype is DType.FLOAT else 5)
    assert np.array_equal(answers[0], answers[1]) or (opset < 22 and dtype is not DType.DOUBLE)
    assert not np.array_equal(answers[0], answers[2])
    assert Session(perturbed(graph, ERROR, 0)).run({"x": feeds["x"][:0]})[0].shape == (0, 5, 8)
