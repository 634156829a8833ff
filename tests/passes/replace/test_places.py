"""Where another block can stand, and how it comes to stand there.

A file of `tests/golden/replace` holds a graph, a line `---`, and the graph with one convolution in each of its places.
`--update-golden` writes what comes out now; read the difference.
"""

from __future__ import annotations

from pathlib import Path

import golden_text
import numpy as np
import pytest

from optc.ir.graph import Graph, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.replace import Replace
from optc.passes.replace.forms import Body, kernel_of
from optc.passes.replace.kind import BlockReplacement, Fitted
from optc.passes.replace.places import outside, places


def put_convolutions(graph: Graph) -> None:
    for place in places(graph):
        body, kernel = Body(place), kernel_of(place, Replace())
        weight = np.zeros((place.outputs, place.inputs, *kernel.size))
        done = body.done(body.conv(body.x, weight, kernel))
        one = Fitted(place.begin.name, place.end.name, "conv", done, 0.0, 0.0)
        BlockReplacement(0, place.end, place.nodes, place, one).apply(graph)


@golden_text.cases("replace")
def test_golden(path: Path, request: pytest.FixtureRequest) -> None:
    golden_text.check(path, request, put_convolutions)


def conv(graph: Graph, x: Value, pads: int = 1) -> Value:
    """A convolution of four channels."""
    weight = graph.constant(np.ones((4, 4, 3, 3), np.float32))
    return graph.add("Conv", [x, weight], {"pads": [pads] * 4}, name=f"conv{len(list(graph))}").output


def test_a_layer_in_no_place_is_told_why() -> None:
    graph = Graph("gated", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 4, 8, 8)))
    first = conv(graph, x)
    gate = graph.add("Sigmoid", [graph.add("GlobalAveragePool", [first]).output]).output
    product = graph.add("Mul", [first, gate]).output
    last = conv(graph, graph.add("MaxPool", [product], {"kernel_shape": [2, 2]}).output)
    graph.add_output(conv(graph, last, pads=0), "y", TensorType(DType.FLOAT, (1, 4, 5, 5)))
    infer(graph)
    assert not places(graph)
    reasons = [reason for _, reason in outside(graph, [])]
    assert reasons[0].startswith("GlobalAveragePool and a gate's Mul read what it answers")
    assert "with the convolutions beside it" in reasons[1]
    assert "that keep the size" in reasons[2]
