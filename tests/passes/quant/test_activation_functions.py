"""What readers make of a value: which chains are a function of it, and ranges by the error behind that function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from optc.ir.attributes import Attribute
from optc.ir.graph import Graph, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.quant.activation_functions import activation_functions
from optc.passes.quant.layers import find_layers
from optc.passes.quant.numbers.histogram import Histogram
from optc.passes.quant.numbers.params import activation_params
from optc.passes.quant.numbers.ranges import find_range
from optc.passes.quant.qdq.placement import place
from optc.passes.quant.quant import Quant
from optc.runtime.session import Session
from tests.quantized import quantized

Activation = Callable[[Graph, Value], Value]


def silu(graph: Graph, x: Value) -> Value:
    return graph.add("Mul", [x, graph.add("Sigmoid", [x]).output]).output


def hard_swish(graph: Graph, x: Value) -> Value:
    three, sixth = graph.constant(np.float32(3.0)), graph.constant(np.full((1, 1, 1, 1), 1 / 6, np.float32))
    zero, six = graph.constant(np.float32(0.0)), graph.constant(np.float32(6.0))
    inner = graph.add("Clip", [graph.add("Add", [x, three]).output, zero, six]).output
    return graph.add("Mul", [graph.add("Mul", [x, inner]).output, sixth]).output


def read_twice(graph: Graph, x: Value) -> Value:
    pooled = graph.add("MaxPool", [x], {"kernel_shape": Attribute.of([1, 1])}).output
    return graph.add("Concat", [silu(graph, x), pooled], {"axis": Attribute.of(1)}).output


def by_channel(graph: Graph, x: Value) -> Value:
    return graph.add(
        "Sigmoid", [graph.add("Mul", [x, graph.constant(np.ones((1, 16, 1, 1), np.float32))]).output]
    ).output


def affine(graph: Graph, x: Value) -> Value:
    half = graph.constant(np.float32(0.5))
    return graph.add("Add", [graph.add("Mul", [x, half]).output, half]).output


def network(activation: Activation, shift: float = -12.0) -> Graph:
    """x -> Conv -> activation -> Conv; the first one answers far below zero."""
    rng = np.random.default_rng(3)
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4, 6, 6)))
    first = graph.constant((4 * rng.standard_normal((16, 4, 1, 1))).astype(np.float32))
    y = activation(graph, graph.add("Conv", [x, first, graph.constant(np.full(16, shift, np.float32))]).output)
    width = 32 if activation is read_twice else 16
    second = graph.constant((rng.standard_normal((8, width, 1, 1)) / 3).astype(np.float32))
    graph.add_output(graph.add("Conv", [y, second]).output, "y", TensorType(DType.FLOAT, ("N", 8, 6, 6)))
    infer(graph)
    return graph


def function_of(graph: Graph) -> Callable[[np.ndarray], np.ndarray] | None:
    """That of the first layer's output."""
    layers, _ = find_layers(graph)
    return activation_functions(graph, place(graph, layers)).get(next(iter(layers)).output)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [(silu, lambda x: x / (1 + np.exp(-x))), (hard_swish, lambda x: x * np.clip(x + 3, 0, 6) / 6)],
)
def test_a_spelled_out_activation_is_one_function(
    activation: Activation, expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    x = np.linspace(-9, 9, 101)
    function = function_of(network(activation))
    assert function is not None
    np.testing.assert_allclose(function(x), expected(x), atol=1e-5)


@pytest.mark.parametrize("activation", [read_twice, by_channel, affine])
def test_what_is_no_function_of_a_number_is_none(activation: Activation) -> None:
    """Read past the activation too; a factor a channel; a scale and a shift, which change no range."""
    assert function_of(network(activation)) is None


@pytest.mark.parametrize("how", ["mse", "minmax"])
def test_what_the_function_makes_flat_is_cut(how: str) -> None:
    def function(x: np.ndarray) -> np.ndarray:
        return x * np.clip(x / 6 + 0.5, 0, 1)

    x = np.random.default_rng(0).normal(-5, 5, 60000)
    histogram = Histogram()
    histogram.add(x.astype(np.float32))

    def error(low: float, high: float) -> float:
        grid = activation_params(low, high, DType.UINT8)
        return float(np.mean((function(grid.dequantize(grid.quantize(x))) - function(x)) ** 2))

    low, high = find_range(histogram, how, 256, through=function)
    plain = find_range(histogram, how, 256)
    assert -3.5 < low < -2.5
    assert plain[0] < -15
    assert error(low, high) < 0.5 * error(*plain)
    if how == "minmax":
        assert high == plain[1]


@pytest.mark.parametrize("activation", [silu, hard_swish])
def test_a_network_answers_better(activation: Activation, monkeypatch: pytest.MonkeyPatch) -> None:
    feeds = {"x": np.random.default_rng(0).standard_normal((64, 4, 6, 6)).astype(np.float32)}
    errors = []
    for used in (True, False):
        graph = network(activation)
        expected = Session(graph).run(feeds)[0]
        if not used:
            monkeypatch.setattr("optc.passes.quant.static.activation_functions", lambda graph, plan: {})
            monkeypatch.setattr("optc.passes.quant.trial.activation_functions", lambda graph, plan: {})
        quantized(graph, feeds, Quant(slower="int8"))
        errors.append(float(np.mean((Session(graph, exact=True).run(feeds)[0] - expected) ** 2)))
    assert errors[0] < 0.9 * errors[1]
