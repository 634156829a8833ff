"""Products and sums with one number cost no rounding: the codes are read otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from quantized import quantized

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.quant.numbers.params import QuantParams, activation_params
from optc.passes.quant.qdq.affine import laid_on
from optc.runtime.session import Session


def network(offset: float) -> Graph:
    """Convolutions whose activations have a scale and an offset of their own, as those of PP-LCNetV3."""
    rng = np.random.default_rng(0)
    graph = Graph("g", opsets={"": 17})
    y = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8, 12, 12)))
    for _ in range(3):
        weight = graph.constant((rng.standard_normal((8, 8, 1, 1)) / 2).astype(np.float32))
        bias = graph.constant(rng.standard_normal(8).astype(np.float32))
        y = graph.add("Relu", [graph.add("Conv", [y, weight, bias]).output]).output
        y = graph.add("Mul", [graph.constant(np.full(1, 0.63, np.float32)), y], name="scale").output
        y = graph.add("Add", [y, graph.constant(np.full((1, 1, 1), offset, np.float32))], name="offset").output
        kernel = graph.constant((rng.standard_normal((8, 1, 3, 3)) / 2).astype(np.float32))
        y = graph.add("Conv", [y, kernel], {"group": 8, "pads": [1, 1, 1, 1]}).output
    graph.add_output(y, "y")
    infer(graph)
    return graph


def test_nothing_is_left_of_them_and_the_answers_stay() -> None:
    graph = network(-0.2)
    feeds = {"x": np.random.default_rng(1).standard_normal((64, 8, 12, 12)).astype(np.float32)}
    before = Session(graph).run(feeds)[0]
    quantized(graph, feeds)
    assert not [node.op for node in graph if node.op in ("Add", "Mul")]
    after = Session(graph).run(feeds)[0]
    error = float(np.square(after - before).mean() / before.var())
    assert error < 2e-3, f"{error:.2e}"


def test_an_offset_that_leaves_no_code_for_zero_stays_a_sum() -> None:
    """Padding needs a zero; 0.37 and all that Relu answers lie above it."""
    graph = network(0.37)
    feeds = {"x": np.random.default_rng(1).standard_normal((64, 8, 12, 12)).astype(np.float32)}
    before = Session(graph).run(feeds)[0]
    quantized(graph, feeds)
    assert [node.op for node in graph if node.op in ("Add", "Mul")] == ["Add"] * 3
    after = Session(graph).run(feeds)[0]
    error = float(np.square(after - before).mean() / before.var())
    assert error < 2e-3, f"{error:.2e}"


@pytest.mark.parametrize(
    ("number", "lies_on"), [(-0.5, True), (0.31, True), (-1.7, True), (0.013, False), (1e-9, False)]
)
def test_a_grid_is_laid_on_a_number_where_that_makes_it_little_wider(number: float, lies_on: bool) -> None:
    old = activation_params(-1.0, 1.5, DType.UINT8)
    new = laid_on(old, number)
    assert isinstance(new, QuantParams)
    steps = number / new.unit
    assert (abs(steps - round(steps)) < 1e-4 and round(steps) != 0) == lies_on
    assert new.bounds[0] <= old.bounds[0] + new.unit / 2
    assert old.unit <= new.unit <= old.unit * (1 + 1 / 16)
