"""Ranges: the least squared error against brute force on the samples themselves."""

from __future__ import annotations

import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.passes.base import Context, TargetFacts
from optc.passes.quant.deciding import deciding
from optc.passes.quant.layers import find_layers
from optc.passes.quant.numbers.histogram import Histogram
from optc.passes.quant.numbers.params import activation_params
from optc.passes.quant.numbers.ranges import find_range
from optc.passes.quant.qdq.placement import place
from optc.runtime.sources import load_samples


def measured(x: np.ndarray, low: float, high: float) -> float:
    grid = activation_params(low, high, DType.UINT8)
    return float(np.mean((grid.dequantize(grid.quantize(x)) - x) ** 2))


def of(x: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.add(x.astype(np.float32))
    return histogram


@pytest.mark.parametrize("kind", ["normal", "heavy", "relu", "negative", "uniform"])
def test_mse_is_close_to_the_best_of_many(kind: str) -> None:
    rng = np.random.default_rng(0)
    x = {
        "normal": rng.normal(size=60000),
        "heavy": rng.standard_t(2.5, size=60000),
        "relu": np.maximum(rng.standard_t(4, size=60000), 0),
        "negative": -np.abs(rng.normal(size=60000)) * 0.01,
        "uniform": rng.random(60000) * 7,
    }[kind].astype(np.float32)
    error = measured(x, *find_range(of(x), "mse", 256))
    shrinks = np.linspace(0.02, 1, 50)
    lows = min(x.min(), 0) * shrinks if x.min() < 0 else np.zeros(1)
    highs = max(x.max(), 0) * shrinks if x.max() > 0 else np.zeros(1)
    best = min(measured(x, float(a), float(b)) for a in lows for b in highs)
    assert error <= best * 1.05


def test_minmax_keeps_the_extremes_and_zero() -> None:
    assert find_range(of(np.asarray([2.0, 3.0])), "minmax", 256) == (0.0, 3.0)
    assert find_range(of(np.asarray([-2.0, -3.0])), "minmax", 256) == (-3.0, 0.0)


def test_percentile_cuts_both_tails() -> None:
    x = np.random.default_rng(0).normal(size=100000)
    low, high = find_range(of(x), "percentile", 256, 99.0)
    assert np.mean(x < low) == pytest.approx(0.01, abs=2e-3)
    assert np.mean(x > high) == pytest.approx(0.01, abs=2e-3)


@pytest.mark.parametrize("how", ["mse", "minmax", "percentile"])
def test_constants_zeros_and_nothing_at_all(how: str) -> None:
    assert find_range(of(np.zeros(10)), how, 256) == (0.0, 0.0)
    assert find_range(Histogram(), how, 256) == (0.0, 0.0)
    low, high = find_range(of(np.full(10, 4.0)), how, 256)
    grid = activation_params(low, high, DType.UINT8)
    assert grid.dequantize(grid.quantize(np.full(3, 4.0, np.float32))) == pytest.approx(4.0, rel=1e-2)


@pytest.mark.parametrize(("dtype", "symmetric"), [(DType.UINT8, False), (DType.INT8, False), (DType.INT8, True)])
def test_a_grid_holds_zero_exactly(dtype: DType, symmetric: bool) -> None:
    for low, high in ((0.0, 6.0), (-1.3, 2.9), (-4.0, 0.0), (0.0, 0.0)):
        grid = activation_params(low, high, dtype, symmetric=symmetric)
        assert grid.dequantize(grid.quantize(np.zeros(1, np.float32))) == 0.0
        assert grid.scale > 0
        x = np.linspace(low, high, 100, dtype=np.float32)
        assert np.abs(grid.dequantize(grid.quantize(x)) - x).max() <= 1.01 * float(grid.scale)


@pytest.mark.parametrize(("kind", "shortest", "longest"), [("uniform", 0.97, 1.0), ("heavy", 0.02, 0.6)])
def test_entropy_keeps_flat_ranges_and_cuts_heavy_tails(kind: str, shortest: float, longest: float) -> None:
    rng = np.random.default_rng(0)
    x = (rng.random(60000) * 7 if kind == "uniform" else rng.standard_t(2.5, size=60000)).astype(np.float32)
    low, high = find_range(of(x), "entropy", 256)
    assert shortest <= high / x.max() <= longest
    assert low == 0.0 if kind == "uniform" else low < 0.0


def test_entropy_of_a_constant() -> None:
    assert find_range(of(np.full(100, 3.0)), "entropy", 256) == (0.0, 3.0)


def test_a_range_before_a_sigmoid_cuts_background_and_keeps_what_decides() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(-12, 2, 100000), rng.uniform(-1, 2.4, 12)])
    assert find_range(of(x), "mse", 256)[1] < 2
    low, high = find_range(of(x), "sigmoid", 256)
    assert high == 4
    assert -12 < low <= -4
    assert find_range(of(x + 4), "sigmoid", 256)[1] == pytest.approx(x.max() + 4)
    assert find_range(of(x), "live", 256) == (pytest.approx(1.25 * x.min()), 4)
    assert find_range(of(np.abs(x)), "sigmoid", 256)[0] == 0


def heads(last: str) -> Graph:
    """A convolution on codes, and behind it what `last` says."""
    graph = Graph("h", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 3, 8, 8)))
    weights = [np.full((16, n, 3, 3), 0.1, np.float32) for n in (3, 16)]
    for weight in weights:
        x = graph.add("Conv", [x, graph.constant(weight)], {"pads": [1, 1, 1, 1]}).output
        x.type = TensorType(DType.FLOAT, (1, 16, 8, 8))
        x.name = f"conv{weight.shape[1]}"
    y = x
    if last != "Conv":
        kind = TensorType(DType.FLOAT, (1, 16, 64))
        y = graph.add("Reshape", [x, graph.constant(np.array([1, 16, 64]))], types=[kind]).output
        y = graph.add(last, [y], types=[kind]).output
    graph.add_output(y, "y")
    return graph


def ctx_of(graph: Graph) -> Context:
    data = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    return Context(TargetFacts("test"), fit=load_samples({"x": data}, graph), threads=1)


@pytest.mark.parametrize(("last", "rule"), [("Sigmoid", "sigmoid"), ("Softmax", "wide"), ("Conv", "wide")])
def test_the_values_that_decide_are_known_by_the_graph(last: str, rule: str) -> None:
    graph = heads(last)
    plan = place(graph, find_layers(graph)[0])
    assert {value.name: how for value, how in deciding(graph, plan, ctx_of(graph)).items()} == {"conv16": rule}


def test_an_answer_that_another_head_reads_decides_too() -> None:
    graph = heads("Sigmoid")
    scores = graph.outputs[0].value
    back = graph.add("Reshape", [scores, graph.constant(np.array([1, 16, 8, 8]))]).output
    back.type = TensorType(DType.FLOAT, (1, 16, 8, 8))
    weight = graph.constant(np.full((16, 16, 1, 1), 0.1, np.float32))
    later = graph.add("Conv", [back, weight], outputs=["later"], types=[back.type]).output
    graph.add_output(later, "later")
    plan = place(graph, find_layers(graph)[0])
    rules = {value.name: how for value, how in deciding(graph, plan, ctx_of(graph)).items()}
    assert rules["conv16"] == "sigmoid"
    assert rules["later"] == "wide"
    assert "conv3" not in rules
    assert [how for name, how in rules.items() if name not in ("conv16", "later")] in ([], ["wide"])


def test_a_map_that_is_averaged_decides_by_no_single_value() -> None:
    graph = heads("Conv")
    value = graph.outputs[0].value
    graph.remove_output(0)
    graph.add_output(
        graph.add("GlobalAveragePool", [value], types=[TensorType(DType.FLOAT, (1, 16, 1, 1))]).output, "y"
    )
    assert deciding(graph, place(graph, find_layers(graph)[0]), ctx_of(graph)) == {}


def test_boxes_and_scores_in_one_tensor_are_told_apart() -> None:
    graph = heads("Conv")
    scores = graph.outputs[0].value
    graph.remove_output(0)
    weight = graph.constant(np.full((4, 16, 1, 1), 0.1, np.float32))
    boxes = graph.add("Conv", [scores.producer.inputs[0], weight], outputs=["boxes"]).output  # type: ignore[union-attr]
    boxes.type = TensorType(DType.FLOAT, (1, 4, 8, 8))
    whole = graph.add("Concat", [boxes, scores], {"axis": 1}, types=[TensorType(DType.FLOAT, (1, 20, 8, 8))]).output
    parts = graph.add(
        "Split", [whole, graph.constant(np.array([4, 16]))], {"axis": 1}, outputs=["b", "s"],
        types=[TensorType(DType.FLOAT, (1, n, 8, 8)) for n in (4, 16)],
    ).outputs  # fmt: skip
    ends = [graph.add(op, [v], types=[v.type]).output for op, v in zip(("Exp", "Sigmoid"), parts, strict=True)]
    for end in ends:
        graph.add_output(end, end.producer.op)  # type: ignore[union-attr]
    plan = place(graph, find_layers(graph)[0])
    rules = {value.name: how for value, how in deciding(graph, plan, ctx_of(graph)).items()}
    assert rules == {"boxes": "wide", "conv16": "sigmoid"}
