"""The target `onnx`: what it finds out about the runtime, and the versions it brings a graph to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from optc.compiler import compile
from optc.errors import ModelError, SpecError
from optc.ir.graph import Graph
from optc.ir.onnx.opset import convert, lower
from optc.ir.onnx.writer import to_bytes
from optc.ir.types import DType, TensorType
from optc.targets import table
from optc.targets.onnx import newest_loadable


def relu(opset: int, ir_version: int = 8) -> Graph:
    graph = Graph("relu", opsets={"": opset})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 600)))
    bias = graph.constant(np.arange(1200, dtype=np.float32).reshape(2, 600)[0], "bias")
    summed = graph.add("Add", [x, bias], outputs=["s"]).output
    y = graph.add("ReduceSum" if opset < 13 else "Relu", [summed], {"axes": [1]} if opset < 13 else None).output
    graph.add_output(y, "y", TensorType(DType.FLOAT, None))
    graph.header = type(graph.header)(ir_version=ir_version)
    return graph


def test_the_newest_loadable_versions_load() -> None:
    opset, ir_version = newest_loadable()
    assert 17 <= opset <= onnx.defs.onnx_opset_version()
    assert 8 <= ir_version <= onnx.IR_VERSION
    session = onnxruntime.InferenceSession(to_bytes(relu(opset, ir_version)), providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].name == "y"


def test_facts_are_whole() -> None:
    facts = table.find("onnx")().facts
    assert facts.name == "onnx"
    assert facts.channel_alignment in (8, 16)
    assert {facts.activation_dtype, facts.weight_dtype} <= {DType.INT8, DType.UINT8}
    assert (facts.max_opset, facts.max_ir_version) == newest_loadable()


def test_an_unknown_target_gets_the_nearest_name() -> None:
    with pytest.raises(SpecError, match="Did you mean 'onnx'"):
        table.parse("onx:cpu=arm")


def test_the_cpu_of_a_target_decides_the_int8_form() -> None:
    arm, vnni, plain = table.parse("onnx:cpu=arm,onnx:cpu=x86-vnni,onnx:cpu=x86")
    assert (arm.facts.activation_dtype, arm.facts.saturating_int8) == (DType.INT8, False)
    assert (vnni.facts.activation_dtype, vnni.facts.saturating_int8) == (DType.UINT8, False)
    assert (plain.facts.activation_dtype, plain.facts.saturating_int8) == (DType.UINT8, True)
    assert [table.spec(one) for one in (arm, vnni)] == ["onnx:cpu=arm", "onnx:cpu=x86-vnni"]
    assert arm.facts.name == "onnx:cpu=arm"


def test_convert_keeps_weights_away_from_the_converter_and_the_answers_equal() -> None:
    graph = relu(11)
    weight = next(iter(graph.constants)).constant
    feeds = {"x": np.random.default_rng(0).standard_normal((3, 600)).astype(np.float32)}
    before = onnxruntime.InferenceSession(to_bytes(graph), providers=["CPUExecutionProvider"]).run(None, feeds)
    graph.constant(np.zeros(5000, np.float32), "unused")
    convert(graph, 13)
    assert graph.opset() == 13
    assert any(value.constant is weight or value.name == "bias" for value in graph.constants)
    after = onnxruntime.InferenceSession(to_bytes(graph), providers=["CPUExecutionProvider"]).run(None, feeds)
    np.testing.assert_array_equal(before[0], after[0])
    assert [v.name for v in graph.inputs] == ["x"]


def test_lower_says_what_it_changed_and_leaves_the_rest() -> None:
    assert lower(relu(17, 8), 21, 10) == []
    graph = relu(21, 12)
    assert lower(graph, 17, 9) == ["opset 21 to 17", "IR version 12 to 9"]
    assert graph.opset() == 17
    assert graph.header.ir_version == 9
    old = relu(17, 3)
    assert lower(old, 21, 10) == ["IR version 3 to 8"]


def test_lower_refuses_what_the_runtime_cannot_have() -> None:
    graph = relu(21)
    four = graph.constant(np.zeros(8), "four")
    four.type = TensorType(DType.INT4, (8,))
    with pytest.raises(ModelError, match="needs ONNX IR version 10"):
        lower(graph, 21, 9)


@pytest.mark.parametrize("same", [True, False])
def test_residual_sums_keep_the_fast_normalisation(same: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    graph = Graph("residual", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 6, 16)))
    other = graph.add("Tanh", [x]).output if same else graph.constant(rng.normal(size=16).astype(np.float32), "b")
    total = graph.add("Add", [x, other]).output
    scale = graph.constant(rng.normal(size=16).astype(np.float32), "gamma")
    shift = graph.constant(rng.normal(size=16).astype(np.float32), "beta")
    y = graph.add("LayerNormalization", [total, scale, shift]).output
    graph.add_output(y, "y", TensorType(DType.FLOAT, ("N", 6, 16)))
    samples = {"x": rng.normal(size=(8, 6, 16)).astype(np.float32)}
    done = compile(graph, "clean", data=samples, threads=1)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(to_bytes(done.graph), options, providers=["CPUExecutionProvider"])
    ops = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert "SkipLayerNormalization" not in ops
    assert ("Sum" in ops) is same
    assert done.report.agreement is not None
    assert done.report.agreement.share > 0.9999
