"""Convolutions whose weights the model computes take the kernels that those with constant weights take."""

from __future__ import annotations

import interpreted
import launched
import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.runtime.session import Session
from optc.targets.tvm.cpu.machines import host
from optc.targets.tvm.relax.module import workloads

RNG = np.random.default_rng(0)


def modulated(channels: int, filters: int, groups: int = 1, *, bias: bool) -> Graph:
    """A convolution of `x`, and one of that by weights that `style` scales for each channel of their input."""
    graph = Graph("net", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, channels, 7, 9)))
    style = graph.add_input("style", TensorType(DType.FLOAT, (1, channels // groups, 1, 1)))
    first = graph.constant(RNG.standard_normal((channels, channels, 3, 3)).astype(np.float32) / 3)
    image = graph.add("Conv", [x, first], {"pads": [1, 1, 1, 1]}).output
    base = graph.constant(RNG.standard_normal((filters, channels // groups, 3, 3)).astype(np.float32))
    weight = graph.add("Mul", [base, style]).output
    added = [graph.add("ReduceMean", [weight], {"axes": [1, 2, 3], "keepdims": 0}).output] if bias else []
    layer = graph.add("Conv", [image, weight, *added], {"pads": [1, 0, 1, 2], "strides": [2, 1], "group": groups})
    graph.add_output(graph.add("Relu", [layer.output]).output, "y")
    infer(graph)
    return graph


NETS = [
    pytest.param(modulated(16, 16, bias=False), "conv", id="whole blocks"),
    pytest.param(modulated(16, 10, bias=True), "conv", id="a part of a block"),
    pytest.param(modulated(3, 5, bias=True), "conv", id="few channels"),
    pytest.param(modulated(32, 64, 2, bias=False), "conv", id="groups"),
    pytest.param(modulated(16, 16, 16, bias=True), "depthwise", id="depthwise"),
]


@pytest.mark.parametrize(("graph", "kernel"), NETS)
@pytest.mark.parametrize("target", ["x86-64", "x86-64-v3", "opencl"])
def test_they_answer_as_the_graph(target: str, graph: Graph, kernel: str) -> None:
    feeds = [RNG.standard_normal(value.static_shape).astype(np.float32) for value in graph.inputs]
    if target == "opencl":
        launched.Device.here()
        (answer,) = launched.answers(graph, feeds)
    else:
        machine = host(target)
        counts = workloads(graph.clone(), machine)
        assert sum(count for one, count in counts.items() if one.kernel == kernel) >= (
            1 if kernel == "depthwise" else 2
        )
        (answer,) = interpreted.run(interpreted.build(graph, machine), feeds)
    (right,) = Session(graph).run({value.name: feed for value, feed in zip(graph.inputs, feeds, strict=True)})
    np.testing.assert_allclose(answer, right, rtol=0, atol=2e-6 * np.abs(right).max())


@pytest.mark.parametrize("turned", [0, 1])
def test_products_of_two_computed_matrices_are_cut_into_tiles(turned: int) -> None:
    graph = Graph("net", opsets={"": 17})
    a = graph.add_input("a", TensorType(DType.FLOAT, (12, 7) if turned else (7, 12)))
    b = graph.add_input("b", TensorType(DType.FLOAT, (19, 12) if turned else (12, 19)))
    c = graph.add_input("c", TensorType(DType.FLOAT, (19,)))
    one, other = (graph.add("Tanh", [value]).output for value in (a, b))
    layer = graph.add("Gemm", [one, other, c], {"transA": turned, "transB": turned, "alpha": 0.5, "beta": 2.0})
    graph.add_output(layer.output, "y")
    infer(graph)
    machine = host("x86-64-v3")
    assert [one.kernel for one in workloads(graph.clone(), machine)] == ["matmul"]
    feeds = [RNG.standard_normal(value.static_shape).astype(np.float32) for value in graph.inputs]
    (answer,) = interpreted.run(interpreted.build(graph, machine), feeds)
    (right,) = Session(graph).run({value.name: feed for value, feed in zip(graph.inputs, feeds, strict=True)})
    np.testing.assert_allclose(answer, right, rtol=0, atol=2e-6 * np.abs(right).max())
