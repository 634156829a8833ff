"""Gradients against those of tinygrad, which runs ONNX and differentiates by rules of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from equivalence import feeds as random_feeds
from gradients import runtime, with_gradients

from optc.ir.graph import Graph, Value
from optc.ir.onnx.writer import to_bytes
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType


def inputs_of(graph: Graph) -> dict[str, np.ndarray]:
    """The weights of `graph` made inputs; returns what they were."""
    arrays = {}
    for i, value in enumerate(tuple(graph.constants)):
        data = value.numpy()
        if value.dtype is DType.FLOAT and data is not None and data.ndim > 0 and data.size > 1:
            name = f"weight{i}"
            arrays[name] = np.array(data)
            value.replace_uses(graph.add_input(name, value.type))
            graph.remove(value)
    return arrays


def network() -> Graph:
    """Convolutions with strides, groups and borders, a pool, a normalisation, products: a few of each family."""
    random = np.random.default_rng(1)

    def weight(*shape: int) -> Value:
        return graph.constant(random.standard_normal(shape).astype(np.float32))

    graph = Graph("small", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (2, 3, 8, 8)))
    first = graph.add("Conv", [x, weight(4, 3, 3, 3), weight(4)], {"strides": [2, 2], "pads": [1] * 4}).output
    second = graph.add(
        "Conv", [graph.add("HardSwish", [first]).output, weight(4, 1, 3, 3)], {"group": 4, "pads": [1] * 4}
    )
    pooled = graph.add("AveragePool", [second.output], {"kernel_shape": [2, 2], "strides": [2, 2]}).output
    flat = graph.add("Flatten", [pooled]).output
    normal = graph.add("LayerNormalization", [flat, weight(16), weight(16)]).output
    y = graph.add("Softmax", [graph.add("Gemm", [normal, weight(16, 5), weight(5)]).output]).output
    graph.add_output(y, "y", TensorType(DType.FLOAT, (2, 5)))
    infer(graph)
    return graph


def test_against_tinygrad(tmp_path: Path) -> None:
    try:
        from tinygrad import Tensor
        from tinygrad.nn.onnx import OnnxRunner
    except ImportError:
        pytest.skip("tinygrad is not installed")
    graph = network()
    images = {v.name: array for v, array in zip(graph.inputs, random_feeds(graph, size=2))}
    weights = inputs_of(graph)
    path = tmp_path / "model.onnx"
    path.write_bytes(to_bytes(graph))
    tensors = {n: Tensor(array) for n, array in {**images, **weights}.items()}
    (answer,) = OnnxRunner(path)(tensors).values()
    seed = np.random.default_rng(0).standard_normal(answer.shape).astype(np.float32)
    names = list(weights)
    expected = dict(zip(names, (answer * Tensor(seed)).sum().gradient(*(tensors[n] for n in names))))
    output = graph.outputs[0].name
    both, names = with_gradients(graph, [v for v in graph.inputs if v.name in weights])
    gradients = dict(zip(names, runtime(both, {**images, **weights, f"seed.{output}": seed})))
    assert set(gradients) == set(weights)
    for weight, gradient in gradients.items():
        scale = max(float(np.abs(gradient).max()), 1e-3)
        np.testing.assert_allclose(expected[weight].numpy(), gradient, atol=2e-3 * scale, err_msg=weight)
