"""Scaling channels in front of one product."""

from __future__ import annotations

import numpy as np
import pytest
from facts import facts_of
from quantized import quantized

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Context
from optc.passes.quant.equivalent.smooth import smooth
from optc.passes.quant.layers import find_layers
from optc.passes.quant.scheme import FREE
from optc.runtime.session import Session
from optc.runtime.sources import load_samples


def product(*, outlier: float, norm: bool) -> tuple[Graph, Context]:
    rng = np.random.default_rng(0)
    graph = Graph("product", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 32)))
    scale = np.where(np.arange(32) == 3, outlier, 1.0).astype(np.float32)
    if norm:
        parts = [graph.constant(scale, "scale"), graph.constant(np.zeros(32, np.float32), "shift")]
        value = graph.add("LayerNormalization", [x, *parts]).output
    else:
        value = graph.add("Mul", [x, graph.constant(scale)]).output
    weight = graph.constant(rng.normal(size=(32, 16)).astype(np.float32))
    graph.add_output(graph.add("MatMul", [value, weight], name="m").output, "y", TensorType(DType.FLOAT, ("N", 16)))
    infer(graph)
    samples = load_samples({"x": rng.normal(size=(64, 32)).astype(np.float32)}, graph)
    return graph, Context(facts_of(), fit=samples, threads=1)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("outlier", [1.0, 60.0])
def test_an_outlying_channel_is_scaled_and_the_function_stays(outlier: float, norm: bool) -> None:
    graph, ctx = product(outlier=outlier, norm=norm)
    assert ctx.fit is not None
    teacher = graph.clone()
    (layer,) = find_layers(graph)[0].values()
    before, nodes = layer.weights(), len(graph)
    rules = smooth(graph, {layer.source: [layer]}, ctx, ctx.fit, how=("minmax",), schemes={layer.node: FREE})
    assert rules == {layer.source: "minmax"}
    changed = not np.array_equal(layer.weights(), before)
    assert changed == (outlier > 1.0)
    assert len(graph) == nodes + (changed and not norm)  # a LayerNormalization takes the factors up
    feeds = next(ctx.fit.batches(64))
    want, got = (Session(g, threads=1).run(feeds)[0] for g in (teacher, graph))
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def test_words_that_no_row_held_are_not_scaled_up() -> None:
    """One of many: most channels are zero in any few rows, and one when their word comes."""
    rng = np.random.default_rng(0)
    graph = Graph("words", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 200)))
    weight = rng.normal(size=(200, 16)) * np.exp(rng.normal(size=200))[:, None]
    weights = graph.constant(weight.astype(np.float32)), graph.constant(rng.normal(size=(16, 8)).astype(np.float32))
    hidden = graph.add("Tanh", [graph.add("MatMul", [x, weights[0]], name="first").output]).output
    graph.add_output(graph.add("MatMul", [hidden, weights[1]]).output, "y", TensorType(DType.FLOAT, ("N", 8)))
    infer(graph)
    teacher = Session(graph.clone(), threads=1)
    every = np.eye(200, dtype=np.float32)
    quantized(graph, {"x": every[rng.integers(0, 40, 400)]})
    want, got = teacher.run({"x": every})[0], Session(graph, threads=1).run({"x": every})[0]
    assert ((want - got) ** 2).sum() < 1e-2 * (want**2).sum()
