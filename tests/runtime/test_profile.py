"""Times belong to the nodes of the graph, however the runtime fuses them."""

from __future__ import annotations

import numpy as np
import pytest

from optc.errors import TargetError
from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.runtime.profile import node_seconds

FEEDS = {"x": np.ones((1, 16, 64, 64), np.float32)}


def convolution() -> Graph:
    """A convolution with its normalisation and its activation."""
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 16, 64, 64)))
    weight = graph.constant(np.ones((16, 16, 3, 3), np.float32))
    one = [graph.constant(np.ones(16, np.float32)) for _ in range(4)]
    value = graph.add("Conv", [x, weight], {"pads": [1, 1, 1, 1]}).output
    normal = graph.add("BatchNormalization", [value, *one]).output
    graph.add_output(graph.add("Relu", [normal]).output, "y")
    return graph


def test_what_is_fused_counts_at_the_layer() -> None:
    seconds = node_seconds(convolution(), FEEDS, threads=1)
    assert {node.op for node in seconds} == {"Conv"}
    assert 0 < sum(seconds.values()) < 1


def test_the_graph_stays_as_it_is() -> None:
    graph = convolution()
    before = str(graph)
    node_seconds(graph, FEEDS, threads=1)
    assert str(graph) == before


def test_what_does_not_run_is_told() -> None:
    with pytest.raises(TargetError, match="cannot be profiled"):
        node_seconds(convolution(), {"x": np.ones((1, 1), np.float32)}, threads=1)
