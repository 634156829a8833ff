"""Bias correction of one layer, and of one behind it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from facts import facts_of

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Context
from optc.passes.quant.layers import find_layers
from optc.passes.quant.qdq.bias import answer_means, correct, correctable
from optc.runtime.sources import load_samples


def chain(*, bias: bool) -> tuple[Graph, Context]:
    rng = np.random.default_rng(0)
    graph = Graph("chain", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 3, 6, 6)))
    for name in ("a", "b"):
        weight = graph.constant(rng.normal(size=(3, 3, 3, 3)).astype(np.float32) / 5, name)
        own = [graph.constant(np.zeros(3, np.float32))] if bias else []
        x = graph.add("Conv", [x, weight, *own], {"pads": [1] * 4}, name=name).output
    graph.add_output(x, "y", TensorType(DType.FLOAT, None))
    infer(graph)
    samples = load_samples({"x": rng.normal(1.0, size=(20, 3, 6, 6)).astype(np.float32)}, graph)
    return graph, Context(facts_of(), fit=samples, threads=1)


@pytest.mark.parametrize("bias", [False, True])
def test_outputs_have_the_means_of_the_float_model_again(bias: bool) -> None:
    graph, ctx = chain(bias=bias)
    assert ctx.fit is not None
    layers = list(find_layers(graph)[0].values())
    means = answer_means(graph, layers, ctx, ctx.fit)
    for layer in layers:
        layer.write(layer.weights() * 1.1, None)
    shifted = answer_means(graph, layers, ctx, ctx.fit)
    assert np.abs(np.subtract(shifted, means)).max() > 0.01
    sizes = correct(graph, layers, means, dataclasses.replace(ctx), ctx.fit)
    assert sizes[0] == pytest.approx(0.1, rel=1e-3)
    np.testing.assert_allclose(answer_means(graph, layers, ctx, ctx.fit), means, atol=1e-5)


@pytest.mark.parametrize("constant", [True, False])
def test_a_product_is_corrected_where_a_constant_vector_is_added(constant: bool) -> None:
    graph = Graph("product", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    product = graph.add("MatMul", [x, graph.constant(np.ones((4, 4), np.float32))]).output
    other = graph.constant(np.zeros(4, np.float32)) if constant else x
    graph.add_output(graph.add("Add", [product, other]).output, "y", TensorType(DType.FLOAT, None))
    infer(graph)
    (layer,) = find_layers(graph)[0].values()
    assert correctable(layer) is constant
