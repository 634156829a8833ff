"""Models that are quantized already: kept, refused or done anew, and never doubled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from quantized import signal_to_noise

from optc.compiler import Build, compile
from optc.errors import ModelError
from optc.ir.graph import Graph
from optc.ir.onnx.reader import from_proto
from optc.ir.onnx.writer import save
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.ir.verify.verify import verify
from optc.passes.base import Outcome, Report
from optc.passes.quant.read.decode import decode
from optc.runtime.session import Session

FEEDS = {"x": np.random.default_rng(3).normal(size=(48, 4, 8, 8)).astype(np.float32)}
CODING = ("QuantizeLinear", "DequantizeLinear")


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self._rows = iter(FEEDS["x"])

    def get_next(self) -> dict[str, np.ndarray] | None:
        row = next(self._rows, None)
        return None if row is None else {"x": row[None]}


def network() -> Graph:
    rng = np.random.default_rng(0)
    graph = Graph("network", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4, 8, 8)))
    for i in range(2):
        weight = graph.constant(rng.normal(size=(4, 4, 3, 3)).astype(np.float32) / 6, f"w{i}")
        bias = graph.constant(rng.normal(size=4).astype(np.float32) / 4, f"b{i}")
        x = graph.add("Conv", [x, weight, bias], {"pads": [1] * 4}, name=f"conv{i}").output
        x = graph.add("Relu", [x], name=f"relu{i}").output
    x = graph.add("MaxPool", [x], {"kernel_shape": [2, 2], "strides": [2, 2]}, name="pool").output
    x = graph.add("Flatten", [x], name="flat").output
    head = graph.constant(rng.normal(size=(64, 5)).astype(np.float32) / 8, "head")
    x = graph.add("MatMul", [x, head], name="head").output
    graph.add_output(x, "y", TensorType(DType.FLOAT, ("N", 5)))
    infer(graph)
    return graph


@pytest.fixture(scope="module", params=[QuantFormat.QDQ, QuantFormat.QOperator], ids=["qdq", "qoperator"])
def theirs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """The network as ONNX Runtime's own quantizer leaves it."""
    folder: Path = tmp_path_factory.mktemp("theirs")
    save(network(), folder / "float.onnx")
    quantize_static(
        folder / "float.onnx", folder / "out.onnx", Reader(), quant_format=request.param, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, reduce_range=True,
    )  # fmt: skip
    return onnx.load(folder / "out.onnx")


def built(model: onnx.ModelProto | Graph, passes: str) -> Build:
    return compile(model, passes, data=FEEDS, threads=1, guard=False)


def report_of(build: Build) -> Report:
    """What `quant` says, the last pass but for what makes the graph fit the target."""
    return next(step.report for step in build.report.steps if step.name == "quant")


def noise(graph: Graph) -> float:
    """The signal-to-noise ratio against the float network, in decibels."""
    return signal_to_noise(network(), graph, FEEDS)


def test_kept(theirs: onnx.ModelProto) -> None:
    before = built(theirs, "clean").graph
    done = built(theirs, "quant:slower=int8")
    assert sorted(node.op for node in done.graph) == sorted(node.op for node in before)
    report = report_of(done)
    assert report.count(Outcome.DONE) == 0
    assert {layer.reason for layer in report.layers if "island" not in layer.detail} == {"already quantized"}


def test_refused(theirs: onnx.ModelProto) -> None:
    with pytest.raises(ModelError, match="is quantized already"):
        built(theirs, "quant:requantize=refuse")


def test_a_float_model_is_not_refused() -> None:
    assert report_of(built(network(), "quant:requantize=refuse")).count(Outcome.DONE) == 3


def test_done_anew(theirs: onnx.ModelProto) -> None:
    done = built(theirs, "quant:requantize=redo:slower=int8")
    report = report_of(done)
    assert {layer.op for layer in report.layers if layer.outcome is Outcome.DONE} == {"Conv", "MatMul"}
    assert not any(node.op.startswith("QLinear") for node in done.graph)
    # Hardly more than in one that was never quantized before: nothing is doubled.
    fresh = built(network(), "quant:slower=int8").graph
    assert sum(n.op in CODING for n in done.graph) <= sum(n.op in CODING for n in fresh) + 2
    assert noise(done.graph) > noise(from_proto(theirs)) - 4
    assert noise(done.graph) > 22


@pytest.mark.parametrize("weights", ["int8", "int4", "int3"])
def test_our_own_output_done_anew_loses_little(weights: str) -> None:
    once = built(network(), f"quant:slower=int8:weights={weights}").graph
    again = built(once, "quant:requantize=redo:slower=int8").graph
    assert sum(n.op in CODING for n in again) <= sum(n.op in CODING for n in once)
    assert noise(again) > noise(once) - 4


def test_ranges_found_at_run_time_cannot_be_done_anew() -> None:
    dynamic = built(network(), "quant:activations=dynamic").graph
    with pytest.raises(ModelError, match=r"DynamicQuantizeLinear .* cannot be turned back into float"):
        built(dynamic, "quant:requantize=redo")


def test_scales_that_are_computed_cannot_be_done_anew(theirs: onnx.ModelProto) -> None:
    graph = from_proto(theirs)
    scale = graph.add("ReduceMax", [graph.inputs[0]], {"keepdims": 0}, before=next(iter(graph))).output
    stored = {value for value in graph.constants if value.dtype is DType.INT8}
    node = next(n for n in graph if n.op == "QLinearConv" or (n.op == "DequantizeLinear" and n.inputs[0] in stored))
    node.set_input(1, scale)
    with pytest.raises(ModelError, match=rf"the scale of {node.op} .* is computed"):
        decode(graph)


def test_quantized_values_that_no_operator_made_are_still_dequantized() -> None:
    rng = np.random.default_rng(0)
    graph = Graph("embedding", opsets={"": 21})
    ids = graph.add_input("ids", TensorType(DType.INT64, ("N", 3)))
    raw = graph.add_input("raw", TensorType(DType.UINT8, ("N", 3, 4)))
    table = graph.constant(rng.integers(-128, 128, size=(10, 4)).astype(np.int8), "table")
    scale, zero = graph.constant(np.full(4, 0.1, np.float32)), graph.constant(np.zeros(4, np.int8))
    rows = graph.add("Gather", [table, ids], {"axis": 0}).output
    rows = graph.add("DequantizeLinear", [rows, scale, zero], {"axis": 2}).output
    one, middle = graph.constant(np.float32(0.5)), graph.constant(np.uint8(100))
    image = graph.add("DequantizeLinear", [raw, one, middle]).output
    total = graph.add("Add", [rows, image]).output
    codes = graph.add("QuantizeLinear", [total, one, middle]).output
    graph.add_output(graph.add("DequantizeLinear", [codes, one, middle]).output, "y", TensorType(DType.FLOAT, None))
    infer(graph)
    feeds = {"ids": rng.integers(0, 10, size=(5, 3)), "raw": rng.integers(0, 256, size=(5, 3, 4)).astype(np.uint8)}
    want = Session(graph, threads=1).run(feeds)[0]
    decode(graph)
    infer(graph, fresh=True)
    verify(graph)
    np.testing.assert_allclose(Session(graph, threads=1).run(feeds)[0], want, atol=0.25)
