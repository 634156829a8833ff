"""What a pass over the samples records of values and their channels."""

from __future__ import annotations

import numpy as np
from facts import facts_of

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Context
from optc.passes.quant.calibrate import calibrate, channel_statistics
from optc.passes.quant.layers import find_layers
from optc.runtime.sources import load_samples

X = np.random.default_rng(0).normal(size=(37, 3, 4, 5)).astype(np.float32) * np.asarray([1, 2, 4]).reshape(1, 3, 1, 1)


def layer() -> tuple[Graph, Context]:
    graph = Graph("layer", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 3, 4, 5)))
    weight = graph.constant(np.ones((2, 3, 1, 1), np.float32))
    graph.add_output(graph.add("Conv", [x, weight]).output, "y", TensorType(DType.FLOAT, None))
    infer(graph)
    return graph, Context(facts_of(), fit=load_samples({"x": X.astype(np.float32)}, graph), threads=1)


def test_the_energy_of_a_layer_is_the_mean_square_of_each_input_channel() -> None:
    graph, ctx = layer()
    ((node, one),) = find_layers(graph)[0].items()
    seen = calibrate(graph, [graph.inputs[0]], [one], ctx)
    np.testing.assert_allclose(seen.energy[node], np.square(X).mean(axis=(0, 2, 3)), rtol=1e-5)
    histogram = seen.histograms[graph.inputs[0]]
    assert (histogram.low, histogram.high) == (np.float32(X.min()), np.float32(X.max()))


def test_channels_are_told_by_extremes_mean_and_mean_square() -> None:
    graph, ctx = layer()
    assert ctx.fit is not None
    (one,) = channel_statistics(graph, {graph.inputs[0]: 1}, ctx, "", ctx.fit)
    x = X.astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal([one.low, one.high], [x.min((0, 2, 3)), x.max((0, 2, 3))])
    np.testing.assert_allclose(one.square, np.square(x).mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(one.mean, x.mean((0, 2, 3)), atol=1e-7 * np.sqrt(one.square.max()))
    (last,) = channel_statistics(graph, {graph.inputs[0]: -1}, ctx, "", ctx.fit)
    np.testing.assert_allclose(last.mean, x.mean((0, 1, 2)), rtol=1e-9)


def test_squares_of_large_numbers_are_held() -> None:
    graph, ctx = layer()
    ctx.fit = load_samples({"x": np.float32(1e25) * X.astype(np.float32)}, graph)
    assert ctx.fit is not None
    for axis, others in ((1, (0, 2, 3)), (-1, (0, 1, 2))):
        (one,) = channel_statistics(graph, {graph.inputs[0]: axis}, ctx, "", ctx.fit)
        np.testing.assert_allclose(one.square, 1e50 * np.square(X.astype(np.float64)).mean(others), rtol=1e-5)
