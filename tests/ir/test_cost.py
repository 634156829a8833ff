"""Cost: hand-computed small graphs, and the published figures of trained models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from optc.ir.cost import cost
from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType


def weight(graph: Graph, *shape: int, dtype: type = np.float32):
    return graph.constant(np.zeros(shape, dtype))


def test_a_grouped_convolution() -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8, 10, 10)))
    node = graph.add(
        "Conv", [x, weight(graph, 16, 4, 3, 3), weight(graph, 16)], {"group": 2, "pads": [1] * 4, "strides": [2, 2]}
    )
    graph.add_output(node.output, "y")
    total = cost(graph)
    assert total.macs == 16 * 5 * 5 * 4 * 9
    assert total.params == 16 * 4 * 9 + 16
    assert total.bytes == 4 * total.params
    assert total.activations == 4 * 16 * 25
    assert cost(graph, {"N": 3}).macs == 3 * total.macs


def test_a_transposed_convolution_counts_its_input() -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 4, 5, 5)))
    node = graph.add("ConvTranspose", [x, weight(graph, 4, 6, 2, 2)], {"strides": [2, 2]})
    graph.add_output(node.output, "y")
    assert cost(graph).macs == 4 * 25 * 6 * 4


@pytest.mark.parametrize(
    ("op", "attributes", "left", "right", "macs"),
    [
        ("MatMul", {}, (2, 3, 5, 7), (7, 11), 2 * 3 * 5 * 7 * 11),
        ("Gemm", {"transA": 1, "transB": 1}, (7, 5), (11, 7), 5 * 7 * 11),
        ("Einsum", {"equation": "bij,bjk->bik"}, (2, 5, 7), (2, 7, 11), 2 * 5 * 7 * 11),
    ],
)
def test_matrix_products(op: str, attributes: dict, left: tuple, right: tuple, macs: int) -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, left))
    graph.add_output(graph.add(op, [x, weight(graph, *right)], attributes).output, "y")
    assert cost(graph).macs == macs


def test_an_lstm_counts_four_gates() -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (6, 2, 3)))
    node = graph.add("LSTM", [x, weight(graph, 1, 20, 3), weight(graph, 1, 20, 5)], {"hidden_size": 5})
    graph.add_output(node.output, "y")
    assert cost(graph).macs == 6 * 2 * 4 * 5 * (3 + 5)


def test_quantized_forms_count_like_float_ones() -> None:
    """DequantizeLinear on both sides makes the products integer; scales and zero points are no parameters."""
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.UINT8, (1, 8)))
    scale, zero = graph.constant(np.float32(0.1)), graph.constant(np.uint8(0))
    scales, zeros = weight(graph, 4), weight(graph, 4, dtype=np.int8)
    activation = graph.add("DequantizeLinear", [x, scale, zero]).output
    matrix = graph.add("DequantizeLinear", [weight(graph, 8, 4, dtype=np.int8), scales, zeros], {"axis": 1}).output
    bias = graph.add("DequantizeLinear", [weight(graph, 4, dtype=np.int32), scales], {"axis": 0}).output
    graph.add_output(graph.add("Gemm", [activation, matrix, bias]).output, "y")
    total = cost(graph)
    assert total.macs == total.integer_macs == 32
    assert total.params == 32 + 4
    assert total.bytes == 32 + 16 + 16 + 4 + 4 + 1


def test_a_shared_constant_counts_once() -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 4)))
    matrix = weight(graph, 4, 4)
    first = graph.add("MatMul", [x, matrix])
    second = graph.add("MatMul", [first.output, matrix])
    graph.add_output(second.output, "y")
    total = cost(graph)
    assert total.params == 16
    assert total.bytes == 64
    assert total.nodes[first].params == total.nodes[second].params == 16
    assert total.macs == 32


@pytest.mark.parametrize(("limit", "trips"), [(5, 5), (0, 0), (2**31 - 1, 1), (2**63 - 1, 1)])
def test_a_loop_costs_its_trips(limit: int, trips: int) -> None:
    """A limit that is as high as can be is how exporters write a loop that ends by its condition."""
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (2, 4)))
    body = Graph("body")
    body.add_input("i", TensorType(DType.INT64, ()))
    go_on = body.add_input("c", TensorType(DType.BOOL, ()))
    state = body.add_input("s", None)
    inner = body.add("MatMul", [state, body.constant(np.zeros((4, 4), np.float32))])
    body.add_output(body.add("Identity", [go_on]).output, "co")
    body.add_output(inner.output, "so")
    loop = graph.add("Loop", [graph.constant(np.int64(limit)), None, x], {"body": body})
    graph.add_output(loop.output, "y")
    total = cost(graph)
    assert total.macs == trips * 2 * 16
    assert total.nodes[inner].macs == 2 * 16
    assert total.params == 16


def test_an_if_costs_its_costlier_branch() -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (2, 4)))
    condition = graph.add_input("c", TensorType(DType.BOOL, ()))
    branches = []
    for columns in (4, 6):
        branch = Graph("b")
        value = branch.add("MatMul", [x, branch.constant(np.zeros((4, columns), np.float32))])
        branch.add_output(value.output, "o")
        branches.append(branch)
    node = graph.add("If", [condition], {"then_branch": branches[0], "else_branch": branches[1]})
    graph.add_output(node.output, "y")
    total = cost(graph)
    assert total.macs == 2 * 4 * 6
    assert total.params == 16 + 24


@pytest.mark.parametrize(
    ("model", "params", "macs"),
    [
        ("cifar_resnet20", 0.27, 41),
        ("cifar_resnet32_bn", 0.46, 69),
        ("mobilenetv2", 3.49, 301),
        ("squeezenet11", 1.24, 349),
        ("face_rfb320", 0.30, 100),  # 0.28 without the anchors of its box decoding
        ("silero_vad16k", 0.31, 0.7),
        ("kws_dscnn", 0.02, 2.7),
        ("minilm_l6", 13.03, 520),
    ],
)
def test_trained_models(kit: Path, model: str, params: float, macs: float) -> None:
    from optc.ir.onnx.reader import load

    total = cost(load(kit / "models" / f"{model}.onnx"), {"T": 48})
    assert round(total.params / 1e6, 2) == params
    assert round(total.macs / 1e6, 1 if macs < 10 else 0) == macs


@pytest.mark.parametrize("network", ["digits_dscnn", "digits_resnet", "digits_transformer"])
def test_what_onnx_runtime_makes_of_a_model_costs_the_same(network: str, tmp_path: Path) -> None:
    """Its fused operators, its quantized ones, and QuantizeLinear pairs: all shapes known, as many MACs."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    from optc.ir.onnx.reader import load
    from optc.ir.onnx.writer import save
    from optc.ir.shapes.infer import infer
    from optc.models import zoo

    class Zeros(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter([{v.name: np.zeros([1, *(v.shape or ())[1:]], np.float32) for v in graph.inputs}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    graph = zoo.load(network)
    source = tmp_path / "model.onnx"
    save(graph, source)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    for form in (QuantFormat.QOperator, QuantFormat.QDQ):
        quantize_static(source, tmp_path / f"{form.name}.onnx", Zeros(), quant_format=form)
    wanted = cost(graph)
    for name in ("fused", "QOperator", "QDQ"):
        optimised = load(tmp_path / f"{name}.onnx")
        infer(optimised, fresh=True)
        for node in optimised:
            for value in node.outputs:
                assert not value.uses or (value.shape is not None and None not in value.shape), (name, node)
        total = cost(optimised)
        assert total.macs == wanted.macs, name
        assert total.integer_macs == (0 if name == "fused" else total.macs), name
