"""No file grows behind the guard's back: what is only cleaned, what is left to load time, how a file is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import optc
from optc.ir.graph import Graph
from optc.ir.onnx.writer import save, size
from optc.ir.tensor import BroadcastTensor, FillTensor
from optc.ir.types import DType, TensorType
from optc.passes.base import Context, TargetFacts
from optc.runtime.session import Session
from optc.targets.load_time import LoadTime
from optc.targets.onnx import OnnxTarget

RANDOM = np.random.default_rng(0)


def filled(rows: int = 1000, width: int = 1000) -> Graph:
    """y = sum over the rows of x * C, C of ones, which the file holds as a shape."""
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("n", 1)))
    shape = graph.constant(np.asarray([rows, width], np.int64))
    one = graph.add("ConstantOfShape", [shape], {"value": FillTensor(np.float32(1), (1,))}).output
    axis = graph.constant(np.asarray([0], np.int64))
    y = graph.add("ReduceSum", [graph.add("Mul", [one, x]).output, axis], {"keepdims": 0}).output
    graph.add_output(y, "y", TensorType(DType.FLOAT, ("m",)))
    return graph


def masked(tensor: FillTensor | BroadcastTensor) -> Graph:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, tensor.shape))
    graph.add_output(graph.add("Add", [x, graph.constant(tensor)]).output, "y", TensorType(DType.FLOAT, tensor.shape))
    return graph


def test_a_model_of_a_few_generated_numbers_is_no_larger_when_cleaned(tmp_path: Path) -> None:
    save(filled(), tmp_path / "m.onnx")
    before = (tmp_path / "m.onnx").stat().st_size
    build = optc.compile(tmp_path / "m.onnx", "clean", output=tmp_path / "o.onnx")
    assert (tmp_path / "o.onnx").stat().st_size <= before < 400
    assert build.report.after.bytes <= build.report.before.bytes
    assert build.report.after.nodes == sum(1 for _ in build.graph.walk()), "the size is of what is written"
    assert "would grow" in build.report.steps[0].report.notes[-1]
    assert not build.report.steps[0].report.changed
    feeds = {"x": RANDOM.standard_normal((1000, 1)).astype(np.float32)}
    one, other = (Session.open(str(tmp_path / f"{name}.onnx")).run(feeds)[0] for name in "mo")
    assert np.array_equal(one, other)


@pytest.mark.parametrize(
    "tensor",
    [
        FillTensor(np.float32(-1e9), (2048, 2048)),
        BroadcastTensor(RANDOM.standard_normal((1, 2048)).astype(np.float32), (2048, 2048)),
        BroadcastTensor(RANDOM.standard_normal((2048, 1)).astype(np.float32), (2048, 2048)),
    ],
)
def test_what_a_file_holds_once_is_not_written_out_for_load_time(tensor: FillTensor | BroadcastTensor) -> None:
    graph = masked(tensor)
    before = size(graph)
    assert before < 9_000
    assert not LoadTime().run(graph, Context(TargetFacts("onnx"))).changed
    assert size(graph) == before


def test_a_way_of_writing_that_takes_more_bytes_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (4,)))
    scale, zero = graph.constant(np.float32(0.1)), graph.constant(np.uint8(128))
    codes = graph.add("QuantizeLinear", [x, scale, zero]).output
    y = graph.add("DequantizeLinear", [codes, scale, zero]).output
    graph.add_output(y, "y", TensorType(DType.FLOAT, (4,)))
    plain = OnnxTarget().emit(graph, str(tmp_path / "plain.onnx")).bytes

    def swell(short: Graph) -> None:
        short.doc = 1000 * "words "

    monkeypatch.setattr("optc.targets.packed.pack", swell)
    assert OnnxTarget().emit(graph, str(tmp_path / "o.onnx")).bytes <= plain


def test_a_file_that_grew_all_the_same_is_told_of(tmp_path: Path) -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    weight = graph.constant(RANDOM.standard_normal((4, 3)).astype(np.float32))
    graph.add_output(graph.add("MatMul", [x, weight]).output, "y", TensorType(DType.FLOAT, ("N", 3)))
    save(graph, tmp_path / "m.onnx")
    passes = "quant:slower=int8"
    build = optc.compile(tmp_path / "m.onnx", passes, output=tmp_path / "o.onnx", guard=False, check=False)
    assert build.report.after.bytes > build.report.before.bytes
    assert any("the file is larger than the model was" in note for note in build.report.notes)
