"""One-dimensional convolutions become two-dimensional ones, with nothing but views at the ends, and answer the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from optc.ir.onnx.reader import from_proto
from optc.ir.onnx.writer import to_bytes
from optc.ir.shapes.infer import infer
from optc.ir.verify.verify import verify
from optc.passes.base import Context
from optc.targets.tvm.host import HostTarget
from optc.targets.tvm.legal.rows import LegalRows


class Net:
    """A network over [N, 8, W], written node by node."""

    def __init__(self, opset: int = 17) -> None:
        self.opset = opset
        self.random = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, data: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(data, dtype), name))
        return name

    def weights(self, *shape: int) -> str:
        return self.constant(self.random.normal(size=shape) / np.sqrt(shape[1] * shape[2]))

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def model(self, *outputs: str, width: int | str = 12) -> Any:
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8, width])
        graph = helper.make_graph(self.nodes, "g", [x], results, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


def compare(model: Any) -> Counter[str]:
    """The operators after the pass, which answer as the model does."""
    graph = from_proto(model)
    infer(graph)
    LegalRows().run(graph, Context(HostTarget().facts))
    verify(graph)
    x = np.random.default_rng(1).standard_normal((3, 8, 12)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    answers = [
        onnxruntime.InferenceSession(data, options).run(None, {"x": x})
        for data in (model.SerializeToString(), to_bytes(graph))
    ]
    for want, got in zip(*answers, strict=True):
        assert want.shape == got.shape
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    return Counter(node.op for node in graph)


@pytest.mark.parametrize("width", [12, "W"])
@pytest.mark.parametrize("opset", [11, 17])
def test_what_lies_between_layers_stays_an_image(opset: int, width: int | str) -> None:
    net = Net(opset)
    x = net.add("Conv", "x", net.weights(16, 8, 3), net.constant(np.ones(16)), pads=[1, 1])
    x = net.add("BatchNormalization", x, *(net.constant(net.random.uniform(0.5, 1.0, 16)) for _ in range(4)))
    x = net.add("PRelu", x, net.constant(np.full((16, 1), 0.1)))
    y = net.add("Conv", x, net.weights(16, 1, 5), auto_pad="SAME_UPPER", group=16)
    y = net.add("Add", net.add("Sigmoid", y), net.constant(net.random.normal(size=(1, 16, 1))))
    x = net.add("MaxPool", net.add("Add", x, y), kernel_shape=[2], strides=[2])
    x = net.add("Mul", net.add("Conv", x, net.weights(8, 16, 3), dilations=[2], pads=[2, 2]), net.constant(2.0))
    counts = compare(net.model(x, width=width))
    assert (counts["Unsqueeze"], counts["Squeeze"]) == (1, 1)


def test_transposed_layers_and_pools() -> None:
    net = Net()
    x = net.add("ConvTranspose", "x", net.weights(8, 4, 4), strides=[2], pads=[1, 2], output_padding=[1], group=2)
    x = net.add("AveragePool", x, kernel_shape=[3], strides=[2], pads=[1, 1], count_include_pad=1)
    counts = compare(net.model(net.add("Relu", x)))
    assert (counts["Unsqueeze"], counts["Squeeze"]) == (1, 1)


def test_codes_stay_codes() -> None:
    net = Net()

    def coded(value: str) -> str:
        scale, zero = net.constant(0.05), net.constant(128, np.uint8)
        return net.add("DequantizeLinear", net.add("QuantizeLinear", value, scale, zero), scale, zero)

    def layer(value: str) -> str:
        codes = net.constant(net.random.integers(-127, 128, (8, 8, 3)), np.int8)
        scales, zeros = net.constant(net.random.uniform(1e-3, 2e-3, 8)), net.constant(np.zeros(8), np.int8)
        weights = net.add("DequantizeLinear", codes, scales, zeros, axis=0)
        return net.add("Conv", value, weights, pads=[1, 1])

    model = net.model(layer(coded(net.add("Relu", layer(coded("x"))))))
    counts = compare(model)
    assert (counts["Unsqueeze"], counts["Squeeze"]) == (1, 1)
    graph = from_proto(model)
    infer(graph)
    LegalRows().run(graph, Context(HostTarget().facts))
    for layer_node in (node for node in graph if node.op == "Conv"):
        for value in layer_node.inputs[:2]:
            assert value is not None
            assert value.producer is not None
            assert value.producer.op == "DequantizeLinear"
            assert len(value.shape or ()) == 4


def test_what_does_not_fit_stays_as_it_is() -> None:
    """A product over the width, and weights that are computed."""
    net = Net()
    x = net.add("Conv", "x", net.weights(8, 8, 3), pads=[1, 1])
    x = net.add("MatMul", x, net.constant(net.random.normal(size=(12, 12)) / 4))
    x = net.add("Conv", x, net.add("Mul", net.weights(4, 8, 3), net.constant(0.5)))
    counts = compare(net.model(x))
    assert (counts["Unsqueeze"], counts["Squeeze"], counts["MatMul"]) == (1, 1, 1)
