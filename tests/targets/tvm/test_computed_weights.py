"""Weights that a file stores small are what they stand for in a library, so that layers get their fast kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from optc.ir.graph import Graph, Node, Value
from optc.ir.types import DType, TensorType
from optc.ir.verify.verify import verify
from optc.passes.base import Context
from optc.runtime.session import Session
from optc.targets import table
from optc.targets.tvm.legal.computed_weights import ComputedWeights

RNG = np.random.default_rng(0)
X = RNG.standard_normal((1, 4, 6, 6)).astype(np.float32)


def half(graph: Graph) -> Value:
    weight = graph.constant(RNG.standard_normal((8, 4, 3, 3)).astype(np.float16))
    return graph.add("Cast", [weight], {"to": int(DType.FLOAT)}).output


def codes(graph: Graph) -> Value:
    wide = graph.add("Cast", [graph.constant(RNG.integers(-9, 9, (8, 4, 3, 3), np.int8))], {"to": int(DType.FLOAT)})
    return graph.add("Mul", [wide.output, graph.constant(np.float32(0.1))]).output


def columns(graph: Graph) -> Value:
    """Codes of two weights in a byte, as `quant` packs those of four bits."""
    packed = graph.constant(RNG.integers(0, 255, (8, 4, 3, 2)).astype(np.uint8))
    low = graph.add("Mod", [packed, graph.constant(np.uint8(16))]).output
    high = graph.add("Div", [packed, graph.constant(np.uint8(16))]).output
    both = graph.add("Concat", [low, high], {"axis": 3}).output
    ends = (graph.constant(np.array([n], np.int64)) for n in (0, 3, 3))
    cut = graph.add("Slice", [both, *ends]).output
    return graph.add("Cast", [cut], {"to": int(DType.FLOAT)}).output


def network(weight: Value) -> Graph:
    graph = weight.graph
    assert graph is not None
    x = graph.add_input("x", TensorType(DType.FLOAT, X.shape))
    graph.add_output(graph.add("Conv", [x, weight]).output, "y")
    return graph


@pytest.mark.parametrize("stored", [half, codes, columns])
@pytest.mark.parametrize("target", ["host", "arm64", "opencl"])
def test_a_layer_reads_constants(target: str, stored: Callable[[Graph], Value]) -> None:
    graph = network(stored(Graph("net", opsets={"": 17})))
    before = Session(graph).run({"x": X})[0]
    for step in table.one(target).legalisation().passes:
        step.run(graph, Context(table.one(target).facts))
    verify(graph)
    (conv,) = (node for node in graph if node.op == "Conv")
    assert conv.inputs[1] is not None
    assert conv.inputs[1].constant is not None
    assert len(graph) == 1
    np.testing.assert_allclose(Session(graph).run({"x": X})[0], before, rtol=0, atol=1e-6 * np.abs(before).max())


def test_what_would_grow_without_bound_stays_computed() -> None:
    graph = Graph("net", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1024, 1)))
    line = graph.constant(np.arange(1024, dtype=np.float32))
    mask = graph.add("Expand", [line, graph.constant(np.array([1024, 1024], np.int64))]).output
    mask = graph.add("Sqrt", [graph.add("Abs", [mask]).output]).output
    noise = graph.add("RandomNormal", [], {"shape": [1024, 1]}).output
    graph.add_output(graph.add("MatMul", [mask, graph.add("Add", [x, noise]).output]).output, "y")
    ComputedWeights().run(graph, Context(table.one("host").facts))
    ops: list[str] = [node.op for node in graph if isinstance(node, Node)]
    assert "RandomNormal" in ops
    assert "Expand" in ops
