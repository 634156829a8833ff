"""What follows an integer product is written so that the runtime finds the integer kernel all the same."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Literal

import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Override
from optc.passes.quant.equivalent.fusions import keep_apart
from optc.passes.quant.quant import Quant
from optc.runtime.islands import optimised
from optc.runtime.session import Session
from tests.quantized import quantized

RANDOM = np.random.default_rng(0)
FEEDS = {"x": RANDOM.standard_normal((64, 32)).astype(np.float32)}


def network(layer: str, follows: str, rank: Literal[2, 3] = 2) -> Graph:
    """x -> product -> what follows -> LayerNormalization, which reads floats."""
    graph = Graph("g", opsets={"": 17})
    shape = ("N", 32) if rank == 2 else ("N", 1, 32)
    x = graph.add_input("x", TensorType(DType.FLOAT, shape))
    weight = graph.constant((RANDOM.standard_normal((32, 32)) / 6).astype(np.float32), "weight")
    bias = [graph.constant(RANDOM.standard_normal(32).astype(np.float32))] if layer == "Gemm" else []
    y = graph.add(layer, [x, weight, *bias], name="layer").output
    low, high = graph.constant(np.float32(-0.5)), graph.constant(np.float32(0.5))
    match follows:
        case "Relu":
            y = graph.add("Relu", [y]).output
        case "Clip":
            y = graph.add("Clip", [y, low, high]).output
        case "Clip below":
            y = graph.add("Clip", [y, None, high]).output
        case "residual":
            y = graph.add("Add", [x, y]).output
        case "row":
            y = graph.add("Add", [y, graph.constant(RANDOM.standard_normal((1, 32)).astype(np.float32))]).output
        case "two readers":
            y = graph.add("Add", [y, graph.add("Sigmoid", [y]).output]).output
    ones, zeros = graph.constant(np.ones(32, np.float32)), graph.constant(np.zeros(32, np.float32))
    y = graph.add("LayerNormalization", [y, ones, zeros]).output
    graph.add_output(y, "y", TensorType(DType.FLOAT, shape))
    return graph


@pytest.mark.parametrize("follows", ["Relu", "Clip", "Clip below", "residual", "row", "two readers", "nothing"])
@pytest.mark.parametrize(("layer", "rank"), [("MatMul", 2), ("MatMul", 3), ("Gemm", 2)])
def test_no_weight_is_decoded_at_every_run(layer: str, rank: Literal[2, 3], follows: str) -> None:
    graph = network(layer, follows, rank)
    feeds = {"x": FEEDS["x"].reshape(64, 1, 32) if rank == 3 else FEEDS["x"]}
    before = Session(graph).run(feeds)[0]
    quantized(graph, feeds, Quant(slower="int8"), contrib_ops=True)
    ops = Counter(node.op_type for node in optimised(graph).node)
    assert not {"MatMul", "Gemm", "FusedGemm", "FusedMatMul"} & set(ops), ops
    assert {"MatMulIntegerToFloat", "QGemm", "QLinearMatMul"} & set(ops), ops
    after = Session(graph).run(feeds)[0]
    assert float(np.square(after - before).mean() / np.square(before).mean()) < 1e-3


def keeps_weights(graph: Graph, feeds: dict[str, np.ndarray], layers: int) -> None:
    """The runtime rounds weights of so many layers, and no more once they are kept apart."""
    written = Session(graph, optimise=False, threads=1).run(feeds)[0]
    assert np.mean(Session(graph, threads=1).run(feeds)[0] != written) > 0.01
    assert keep_apart(graph, []) == layers
    infer(graph)
    assert np.array_equal(Session(graph, optimise=False, threads=1).run(feeds)[0], written)
    assert np.mean(Session(graph, threads=1).run(feeds)[0] != written) < 0.001


@pytest.mark.parametrize("layer", ["ConvTranspose", "Conv", "Gemm"])
def test_weights_that_stay_float_between_codes_are_not_rounded_by_the_runtime(layer: str) -> None:
    """ONNX Runtime takes what is between codes for a layer to round, with one scale for all weights."""
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8) if layer == "Gemm" else ("N", 8, 6, 6)))
    shape = (8, 8) if layer == "Gemm" else (8, 8, 1, 1)
    weights = (RANDOM.standard_normal(shape) * np.exp(RANDOM.normal(size=shape))).astype(np.float32)
    codes = [graph.constant(np.float32(0.05)), graph.constant(np.uint8(128))]
    for _ in range(2):
        x = graph.add("DequantizeLinear", [graph.add("QuantizeLinear", [x, *codes]).output, *codes]).output
        x = graph.add(layer, [x, graph.constant(weights / 4)]).output
    x = graph.add("QuantizeLinear", [x, *codes]).output
    graph.add_output(graph.add("DequantizeLinear", [x, *codes]).output, "y")
    infer(graph)
    feeds = {"x": RANDOM.standard_normal((16, 8) if layer == "Gemm" else (16, 8, 6, 6)).astype(np.float32)}
    keeps_weights(graph, feeds, 2)


@pytest.mark.parametrize(
    ("layer", "before", "behind"),
    [
        *product(["ConvTranspose", "Conv"], ["", "Transpose"], ["Relu", "Clip", "Transpose", "Reshape", "Slice"]),
        *product(["Gemm"], [""], ["Relu", "Clip", "Reshape", "Slice"]),
        ("Conv", "", "MaxPool"),
        ("Conv", "", "Relu, Transpose"),
    ],
)
def test_nor_are_those_behind_which_values_are_clamped_or_moved(layer: str, before: str, behind: str) -> None:
    """The runtime moves codes past such operators, and takes clamps for part of the layer."""
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (8, 8) if layer == "Gemm" else (8, 8, 8, 8)))
    shape = (8, 8) if layer == "Gemm" else (8, 8, 1, 1)
    weights = (RANDOM.standard_normal(shape) * np.exp(RANDOM.normal(size=shape))).astype(np.float32)
    codes = [graph.constant(np.float32(0.05)), graph.constant(np.uint8(128))]
    x = graph.add("DequantizeLinear", [graph.add("QuantizeLinear", [x, *codes]).output, *codes]).output
    follows = {
        "Relu": [],
        "Clip": [graph.constant(np.float32(-1)), graph.constant(np.float32(2))],
        "Reshape": [graph.constant(np.asarray([4, -1]))],
        "Slice": [graph.constant(np.asarray([end])) for end in (0, 5, 0)],
    }
    for op in [*filter(None, [before]), layer, *behind.split(", ")]:
        attributes = {"Transpose": {"perm": [1, 0, *range(2, len(shape))]}, "MaxPool": {"kernel_shape": [2, 2]}}
        rest = [graph.constant(weights / 4)] if op == layer else follows.get(op, [])
        x = graph.add(op, [x, *rest], attributes.get(op, {})).output
    x = graph.add("QuantizeLinear", [x, *codes]).output
    graph.add_output(graph.add("DequantizeLinear", [x, *codes]).output, "y")
    infer(graph)
    feeds = {"x": RANDOM.standard_normal((8, 8) if layer == "Gemm" else (8, 8, 8, 8)).astype(np.float32)}
    keeps_weights(graph, feeds, 1)


@pytest.mark.parametrize("behind", ["", "Relu"])
def test_layers_behind_are_fitted_to_what_a_float_layer_really_answers(behind: str) -> None:
    """The weights of a channel that is silent leave none for the others in a scale that all share."""
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8, 8, 8)))
    weights = [(RANDOM.standard_normal((8, 8, 3, 3)) / 9).astype(np.float32) for _ in range(3)]
    biases = [RANDOM.standard_normal(8).astype(np.float32) for _ in range(3)]
    weights[0][0], biases[0][0], weights[1][:, 0] = 0, 0, 40
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = graph.add(
            "Conv", [x, graph.constant(weight), graph.constant(bias)], {"pads": [1, 1, 1, 1]}, name=f"layer{index}"
        ).output
        x = graph.add(behind, [x]).output if behind else x
    graph.add_output(x, "y")
    infer(graph)
    feeds = {"x": RANDOM.standard_normal((96, 8, 8, 8)).astype(np.float32)}
    before = Session(graph).run(feeds)[0]
    apart = Override("layer1", keep=True)
    quantized(graph, feeds, overrides=(apart,), contrib_ops=True)
    after = Session(graph).run(feeds)[0]
    error = float(np.square(after - before).mean() / before.var())
    assert error < 1e-3, error
