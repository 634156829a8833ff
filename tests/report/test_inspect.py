"""The summary of a model."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from optc.errors import ModelError
from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.report.inspect import as_dict, render, summary


def small() -> Graph:
    graph = Graph("small", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 3, 8, 8)))
    kernel = np.ones((4, 3, 3, 3), np.float32)
    kernel[0] = 0
    made = graph.add("Conv", [x, graph.constant(kernel)], {"pads": [1] * 4}, name="first").output
    made = graph.add("Relu", [made], name="[act]").output
    made = graph.add("Flatten", [made]).output
    made = graph.add("MatMul", [made, graph.constant(np.ones((256, 5), np.float32))], name="last").output
    graph.add_output(made, "y", TensorType(DType.FLOAT, ("N", 5)))
    return graph


def test_the_figures_of_a_summary() -> None:
    found = summary(small(), top=2)
    assert [(port.name, port.type) for port in found.inputs] == [("x", "float[N, 3, 8, 8]")]
    assert [(port.name, port.type) for port in found.outputs] == [("y", "float[N, 5]")]
    assert found.ops == {"Conv": 1, "Flatten": 1, "MatMul": 1, "Relu": 1}
    assert found.params == 4 * 27 + 256 * 5
    assert found.macs == 4 * 27 * 64 + 256 * 5
    assert [layer.name for layer in found.layers] == ["first", "last"]
    assert found.layers[0].output == "float[N, 4, 8, 8]"
    assert sum(layer.share for layer in found.layers) == 1
    [weights] = found.weights
    assert weights.zeros == 27 / found.params
    assert found.dims == ("N",)


def test_a_summary_leaves_the_graph_as_it_is() -> None:
    graph = small()
    before = str(graph)
    summary(graph)
    assert str(graph) == before


def test_a_summary_is_json() -> None:
    found = as_dict(summary(small()))
    assert json.loads(json.dumps(found))["opsets"] == {"ai.onnx": 17}


def test_a_summary_is_drawn_with_names_as_they_are() -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(render(summary(small()), title="small.onnx"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for part in ("small.onnx", "float[N, 3, 8, 8]", "costliest layers", "first", "MACs", "8.19 k"):
        assert part in text


def test_sizes_may_be_fixed() -> None:
    once, thrice = summary(small()), summary(small(), dims={"N": 3})
    assert thrice.macs == 3 * once.macs
    assert thrice.dims == ()
    assert thrice.layers[0].output == "float[3, 4, 8, 8]"
    with pytest.raises(ModelError, match="'M'"):
        summary(small(), dims={"M": 3})
